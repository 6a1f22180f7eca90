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

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::ipvs::{Persistence, SchedulerName, ServiceFlags};
    use crate::protocol::Protocol;

    fn written(change: &Change) -> Vec<u8> {
        let mut writer = Writer::new();
        change.write(&mut writer);
        writer.bytes().unwrap().to_vec()
    }

    fn key(address: &str) -> ServiceKey {
        ServiceKey {
            protocol: Protocol::Udp,
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn a_service_as_bytes() {
        let change = Change::NewService(Service {
            key: key("10.0.0.1:53"),
            scheduler: SchedulerName::ROUND_ROBIN,
            persistence: Some(Persistence {
                timeout_seconds: 258,
                prefix_bits: 24,
            }),
            flags: ServiceFlags::ONE_PACKET,
        });
        let expected = [
            84, 0, 1, 0x80, // IPVS_CMD_ATTR_SERVICE
            6, 0, 1, 0, 2, 0, 0, 0, // family, in host order
            6, 0, 2, 0, 17, 0, 0, 0, // protocol, in host order
            20, 0, 3, 0, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // address
            6, 0, 4, 0, 0, 53, 0, 0, // port, in network order
            7, 0, 6, 0, b'r', b'r', 0, 0, // scheduler
            12, 0, 7, 0, 5, 0, 0, 0, 255, 255, 255, 255, // flags and their mask
            8, 0, 8, 0, 2, 1, 0, 0, // seconds
            8, 0, 9, 0, 255, 255, 255, 0, // mask, in network order
        ];
        assert_eq!(written(&change), expected);
    }

    #[test]
    fn a_destination_as_bytes() {
        let address = "[fd00::2]:80".parse().unwrap();
        let change = Change::NewDestination(
            key("[fd00::1]:53"),
            Destination {
                upper_threshold: 7,
                ..Destination::masqueraded(address, 1)
            },
        );
        let mut expected = vec![48, 0, 1, 0x80]; // IPVS_CMD_ATTR_SERVICE
        let [first, rest] = [0xfd, 0];
        expected.extend([6, 0, 1, 0, 10, 0, 0, 0, 6, 0, 2, 0, 17, 0, 0, 0]);
        expected.extend([20, 0, 3, 0, first, rest]);
        expected.extend([0; 13]);
        expected.extend([1, 6, 0, 4, 0, 0, 53, 0, 0]);
        expected.extend([72, 0, 2, 0x80]); // IPVS_CMD_ATTR_DEST
        expected.extend([20, 0, 1, 0, first, rest]);
        expected.extend([0; 13]);
        expected.extend([2, 6, 0, 2, 0, 0, 80, 0, 0]);
        expected.extend([6, 0, 11, 0, 10, 0, 0, 0]); // family
        expected.extend([8, 0, 3, 0, 0, 0, 0, 0]); // masquerade
        expected.extend([8, 0, 4, 0, 1, 0, 0, 0]); // weight
        expected.extend([8, 0, 5, 0, 7, 0, 0, 0]); // upper threshold
        expected.extend([8, 0, 6, 0, 0, 0, 0, 0]); // lower threshold
        assert_eq!(written(&change), expected);
    }
}
