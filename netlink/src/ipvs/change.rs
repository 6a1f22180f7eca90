use std::fmt;
use std::net::SocketAddr;

use super::destination::{self, Destination};
use super::error::ChangeError;
use super::scheduler::SchedulerName;
use super::service::{Service, ServiceKey};
use crate::writer::Writer;

const CMD_NEW_SERVICE: u8 = 1;
const CMD_SET_SERVICE: u8 = 2;
const CMD_DEL_SERVICE: u8 = 3;
const CMD_NEW_DEST: u8 = 5;
const CMD_SET_DEST: u8 = 6;
const CMD_DEL_DEST: u8 = 7;

/// One thing to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes a service, without destinations.
    NewService(Service),
    /// Gives a service that is there another scheduler, persistence or flags. Destinations and
    /// connections stay.
    SetService(Service),
    /// Deletes a service with its destinations.
    DeleteService(ServiceKey),
    /// Adds a destination to a service.
    NewDestination(ServiceKey, Destination),
    /// Gives a destination another weight, other thresholds or another way of forwarding.
    /// Connections stay.
    SetDestination(ServiceKey, Destination),
    /// Deletes a destination of a service. Its connections end with the next packet, or go on
    /// without counting (`net.ipv4.vs.expire_nodest_conn`).
    DeleteDestination(ServiceKey, SocketAddr),
}

/// A change that the kernel did not make.
#[derive(Debug)]
pub struct Failure {
    /// Which of the changes it was.
    pub index: usize,
    /// Why.
    pub error: ChangeError,
}

impl Change {
    /// The service it is about.
    #[must_use]
    pub const fn service(&self) -> ServiceKey {
        match self {
            Self::NewService(service) | Self::SetService(service) => service.key,
            Self::DeleteService(key)
            | Self::NewDestination(key, _)
            | Self::SetDestination(key, _)
            | Self::DeleteDestination(key, _) => *key,
        }
    }

    /// The destination it is about.
    #[must_use]
    pub const fn destination(&self) -> Option<SocketAddr> {
        match self {
            Self::NewDestination(_, destination) | Self::SetDestination(_, destination) => {
                Some(destination.address)
            }
            Self::DeleteDestination(_, address) => Some(*address),
            Self::NewService(_) | Self::SetService(_) | Self::DeleteService(_) => None,
        }
    }

    /// The scheduler that a service is to have.
    pub(super) const fn scheduler(&self) -> Option<SchedulerName> {
        match self {
            Self::NewService(service) | Self::SetService(service) => Some(service.scheduler),
            _ => None,
        }
    }

    /// The message's command.
    pub(super) const fn command(&self) -> u8 {
        match self {
            Self::NewService(_) => CMD_NEW_SERVICE,
            Self::SetService(_) => CMD_SET_SERVICE,
            Self::DeleteService(_) => CMD_DEL_SERVICE,
            Self::NewDestination(..) => CMD_NEW_DEST,
            Self::SetDestination(..) => CMD_SET_DEST,
            Self::DeleteDestination(..) => CMD_DEL_DEST,
        }
    }

    /// The message's attributes.
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::NewService(service) | Self::SetService(service) => service.write(writer),
            Self::DeleteService(key) => key.write(writer),
            Self::NewDestination(key, destination) | Self::SetDestination(key, destination) => {
                key.write(writer);
                destination.write(writer);
            }
            Self::DeleteDestination(key, address) => {
                key.write(writer);
                destination::write_key(writer, *address);
            }
        }
    }
}

/// In words.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewService(service) => write!(f, "make the virtual service {service}"),
            Self::SetService(service) => write!(f, "change the virtual service {service}"),
            Self::DeleteService(key) => write!(f, "delete the virtual service {key}"),
            Self::NewDestination(key, destination) => {
                write!(
                    f,
                    "add the destination {destination} to the virtual service {key}"
                )
            }
            Self::SetDestination(key, destination) => {
                write!(
                    f,
                    "change the destination {destination} of the virtual service {key}"
                )
            }
            Self::DeleteDestination(key, address) => {
                write!(
                    f,
                    "delete the destination {address} of the virtual service {key}"
                )
            }
        }
    }
}
