use std::net::SocketAddr;

use nix::libc::{EAFNOSUPPORT, EEXIST, EINVAL, ENOENT, ERANGE, ESRCH};

use super::change::Change;
use super::scheduler::{SCHEDULER_BYTES_MAX, SchedulerName};
use super::service::ServiceKey;
use crate::error::NetlinkError;

/// Why IPVS could not be asked or told anything.
#[derive(Debug, thiserror::Error)]
pub enum IpvsError {
    /// The kernel has no IPVS.
    #[error("this kernel has no IPVS: the module ip_vs is not loaded, or not there to be loaded")]
    Absent,
    /// The module was unloaded since [`super::Ipvs::open`]; if it is back, that finds it again.
    #[error("the module ip_vs was unloaded: IPVS is gone, or has to be opened anew")]
    Gone,
    /// Not a name a scheduler can have.
    #[error(
        "{name:?} cannot name a scheduler: 1 to {SCHEDULER_BYTES_MAX} letters, digits, _ and - \
         are needed"
    )]
    BadScheduler {
        /// The name.
        name: String,
    },
    /// The kernel did not make a change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Anything else.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Why the kernel did not make one change of several.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The kernel lacks the service's scheduler, and did not find its module.
    #[error(
        "the virtual service {service} cannot have the scheduler {scheduler}: this kernel does \
         not have it (module ip_vs_{scheduler})"
    )]
    UnknownScheduler {
        /// The service.
        service: ServiceKey,
        /// The scheduler it was to have.
        scheduler: SchedulerName,
    },
    /// The module of the service's scheduler is not loaded, and could not be. The kernel was not
    /// asked: it can hang for ever where it loads `lblc` or `lblcr` for a service.
    #[error(
        "the virtual service {service} cannot have the scheduler {scheduler}: its module \
         ip_vs_{scheduler} is not loaded, and the kernel could hang if it was loaded for a \
         service; `modprobe ip_vs_{scheduler}` loads it, if the kernel has it"
    )]
    SchedulerNotLoaded {
        /// The service.
        service: ServiceKey,
        /// The scheduler it was to have.
        scheduler: SchedulerName,
    },
    /// There is no such service.
    #[error("there is no virtual service {service}")]
    ServiceMissing {
        /// The service.
        service: ServiceKey,
    },
    /// There is such a service already.
    #[error("there is a virtual service {service} already")]
    ServiceExists {
        /// The service.
        service: ServiceKey,
    },
    /// The service has no such destination.
    #[error("the virtual service {service} has no destination {destination}")]
    DestinationMissing {
        /// The service.
        service: ServiceKey,
        /// The destination.
        destination: SocketAddr,
    },
    /// The service has such a destination already.
    #[error("the virtual service {service} has a destination {destination} already")]
    DestinationExists {
        /// The service.
        service: ServiceKey,
        /// The destination.
        destination: SocketAddr,
    },
    /// The kernel does not take this destination.
    #[error("the virtual service {service} does not take the destination {destination}: {reason}")]
    BadDestination {
        /// The service.
        service: ServiceKey,
        /// The destination.
        destination: SocketAddr,
        /// Why not.
        reason: &'static str,
    },
    /// The kernel does not take this service.
    #[error("the virtual service {service} cannot be: {reason}")]
    BadService {
        /// The service.
        service: ServiceKey,
        /// Why not.
        reason: &'static str,
    },
    /// Anything else.
    #[error(transparent)]
    Refused(NetlinkError),
}

impl ChangeError {
    pub(super) fn new(change: &Change, code: i32) -> Self {
        let service = change.service();
        match change.destination() {
            Some(destination) => Self::of_destination(change, code, service, destination),
            None => Self::of_service(change, code, service),
        }
    }

    fn of_service(change: &Change, code: i32, service: ServiceKey) -> Self {
        match (code, change.scheduler()) {
            (ENOENT, Some(scheduler)) => Self::UnknownScheduler { service, scheduler },
            (EEXIST, _) => Self::ServiceExists { service },
            (ESRCH, _) => Self::ServiceMissing { service },
            (EAFNOSUPPORT, _) => Self::BadService {
                service,
                reason: "IPVS of this kernel has no IPv6",
            },
            (EINVAL, Some(_)) => Self::BadService {
                service,
                reason: "the kernel takes its scheduler, port, flags or persistence for invalid",
            },
            _ => refused(change, code),
        }
    }

    fn of_destination(
        change: &Change,
        code: i32,
        service: ServiceKey,
        destination: SocketAddr,
    ) -> Self {
        let bad = |reason| Self::BadDestination {
            service,
            destination,
            reason,
        };
        match code {
            ESRCH => Self::ServiceMissing { service },
            ENOENT => Self::DestinationMissing {
                service,
                destination,
            },
            EEXIST => Self::DestinationExists {
                service,
                destination,
            },
            ERANGE => bad("its weight or thresholds are out of range"),
            EINVAL => bad("its address is none that one host has, or of another family"),
            EAFNOSUPPORT => bad("IPVS of this kernel has no IPv6"),
            _ => refused(change, code),
        }
    }
}

fn refused(change: &Change, code: i32) -> ChangeError {
    ChangeError::Refused(NetlinkError::Refused {
        request: change.to_string(),
        code,
    })
}
