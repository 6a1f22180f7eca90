//! IPVS: virtual services and their destinations in the kernel's own load balancer.
//!
//! Source: `linux/ip_vs.h` and net/netfilter/ipvs/ip_vs_ctl.c, generic netlink family `IPVS`,
//! version 1. Needs Linux 4.2, CAP_NET_ADMIN in the network namespace, and the module `ip_vs`,
//! which Linux 5.15 loads when it is asked for the family (before, `modprobe ip_vs` does, or an
//! iptables rule with `-m ipvs`). Schedulers' modules the kernel loads by itself when a service
//! needs them, but for `lblc` and `lblcr`, where it may hang: their modules are loaded here before
//! it is asked, which takes CAP_SYS_MODULE, or have to be there ([`ChangeError::SchedulerNotLoaded`]).
//!
//! Each network namespace has its services. Changes go out many in one send, [`Ipvs::apply`];
//! reading destinations takes a question for each service. Nothing here empties the table
//! (`IPVS_CMD_FLUSH`), which others may use as well, and nobody needs the daemon that copies
//! connections to another machine.

#[cfg(any(test, fuzzing))]
pub(crate) mod any_bytes;
mod attributes;
mod change;
mod config;
mod destination;
mod error;
mod preload;
#[cfg(test)]
mod properties;
mod scheduler;
mod service;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use nix::libc::{ENOENT, ESRCH};

use crate::error::NetlinkError;
use crate::genl::{Answer, FamilyName, GenlSocket};
use crate::writer::Writer;

pub use change::{Change, Failure};
pub use config::{Info, Timeouts, Version};
pub use destination::{Connections, Destination, Forwarding, ListedDestination};
pub use error::{ChangeError, IpvsError};
pub use scheduler::{SCHEDULER_BYTES_MAX, SchedulerName};
pub use service::{Persistence, Service, ServiceFlags, ServiceKey};

const FAMILY: FamilyName = FamilyName {
    name: "IPVS",
    version: 1,
};

const CMD_NEW_SERVICE: u8 = 1;
const CMD_GET_SERVICE: u8 = 4;
const CMD_NEW_DEST: u8 = 5;
const CMD_GET_DEST: u8 = 8;
const CMD_SET_CONFIG: u8 = 12;
const CMD_GET_CONFIG: u8 = 13;
const CMD_SET_INFO: u8 = 14;
const CMD_GET_INFO: u8 = 15;

/// Changes sent at once, some 16 KiB. Each may be answered by an error of about 1 KiB of socket
/// memory, and the default receive buffer takes 208 KiB.
pub const CHANGES_PER_SEND_MAX: usize = 100;

/// Talks to IPVS of the network namespace it was opened in.
#[derive(Debug)]
pub struct Ipvs {
    socket: GenlSocket,
    writer: Writer,
}

impl Ipvs {
    /// Opens the socket, in the network namespace of the calling thread. It stays there, and is
    /// to be used by threads that are there: after an error it is opened anew.
    ///
    /// # Errors
    /// [`IpvsError::Absent`]; `Open` of [`NetlinkError`].
    pub fn open() -> Result<Self, IpvsError> {
        Ok(Self {
            socket: GenlSocket::open(FAMILY)?.ok_or(IpvsError::Absent)?,
            writer: Writer::new(),
        })
    }

    /// Version and size.
    ///
    /// # Errors
    /// `Refused` with `EPERM` without CAP_NET_ADMIN; [`IpvsError::Gone`] if the module was
    /// unloaded since.
    pub fn info(&mut self) -> Result<Info, IpvsError> {
        let mut info = None;
        let doing = "ask IPVS for its version";
        self.get(
            CMD_GET_INFO,
            0,
            doing,
            |_| {},
            |command, bytes| {
                if command == CMD_SET_INFO {
                    info = Some(Info::read(bytes)?);
                }
                Ok(())
            },
        )?;
        info.ok_or_else(|| no_answer(doing))
    }

    /// The time-outs of connections.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn timeouts(&mut self) -> Result<Timeouts, IpvsError> {
        let mut timeouts = None;
        let doing = "read the time-outs of IPVS";
        self.get(
            CMD_GET_CONFIG,
            0,
            doing,
            |_| {},
            |command, bytes| {
                if command == CMD_SET_CONFIG {
                    timeouts = Some(Timeouts::read(bytes)?);
                }
                Ok(())
            },
        )?;
        timeouts.ok_or_else(|| no_answer(doing))
    }

    /// Sets the time-outs of connections, for all services of the namespace, others' too.
    ///
    /// # Errors
    /// As [`Self::info`]; `Refused` with `EINVAL` for one that is too long.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), IpvsError> {
        let doing = format!("set the time-outs of IPVS to {timeouts}");
        let write = |writer: &mut Writer| timeouts.write(writer);
        self.get(CMD_SET_CONFIG, 0, &doing, write, |_, _| Ok(()))
    }

    /// All services of both families, in no order, without those of firewall marks and of
    /// other protocols than [`crate::Protocol`]. One that somebody makes or deletes meanwhile may
    /// be there or not, and with it another may be missed or come twice.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn services(&mut self) -> Result<Vec<Service>, IpvsError> {
        let mut services = Vec::new();
        let doing = "list the virtual services";
        let dump = NLM_F_DUMP;
        self.get(
            CMD_GET_SERVICE,
            dump,
            doing,
            |_| {},
            |command, bytes| {
                if command == CMD_NEW_SERVICE {
                    services.extend(Service::read(bytes)?);
                }
                Ok(())
            },
        )?;
        Ok(services)
    }

    /// One service; `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn service(&mut self, key: &ServiceKey) -> Result<Option<Service>, IpvsError> {
        let mut service = None;
        let doing = format!("read the virtual service {key}");
        let write = |writer: &mut Writer| key.write(writer);
        let asked = self.get(CMD_GET_SERVICE, 0, &doing, write, |command, bytes| {
            if command == CMD_NEW_SERVICE {
                service = Service::read(bytes)?;
            }
            Ok(())
        });
        match asked {
            Err(IpvsError::Netlink(NetlinkError::Refused { code: ESRCH, .. })) => Ok(None),
            other => other.map(|()| service),
        }
    }

    /// The destinations of a service, in no order; none if there is no such service, which the
    /// kernel does not tell apart.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn destinations(
        &mut self,
        service: &ServiceKey,
    ) -> Result<Vec<ListedDestination>, IpvsError> {
        let mut destinations = Vec::new();
        let doing = format!("list the destinations of the virtual service {service}");
        let write = |writer: &mut Writer| service.write(writer);
        let dump = NLM_F_DUMP;
        self.get(CMD_GET_DEST, dump, &doing, write, |command, bytes| {
            if command == CMD_NEW_DEST {
                destinations.push(ListedDestination::read(bytes, service.family())?);
            }
            Ok(())
        })?;
        Ok(destinations)
    }

    /// Makes all changes, in this order, [`CHANGES_PER_SEND_MAX`] at once. One that the kernel
    /// does not make stops none of the others; these are returned, in order. The destinations
    /// of a service that could not be made fail as well, with [`ChangeError::ServiceMissing`].
    ///
    /// # Errors
    /// Of the connection to the kernel. How many changes were made is not known then.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Vec<Failure>, IpvsError> {
        let mut failures = Vec::new();
        for (batch, part) in changes.chunks(CHANGES_PER_SEND_MAX).enumerate() {
            let first = batch * CHANGES_PER_SEND_MAX;
            self.apply_batch(part, first, &mut failures)?;
        }
        Ok(failures)
    }

    /// Makes one change.
    ///
    /// # Errors
    /// [`IpvsError::Change`]; of the connection to the kernel.
    pub fn apply_one(&mut self, change: Change) -> Result<(), IpvsError> {
        let failure = self.apply(&[change])?.into_iter().next();
        failure.map_or(Ok(()), |failure| Err(failure.error.into()))
    }

    /// Which of the [`SchedulerName::KNOWN`] schedulers the kernel has. To find out, a service
    /// without destinations is made with each, and deleted at once; the schedulers' modules are
    /// loaded. `lblc` and `lblcr` are not found without CAP_SYS_MODULE where their modules are
    /// not loaded. `probe` must be a service that nobody has, such as
    /// 198.51.100.0:20000 (RFC 5737).
    ///
    /// # Errors
    /// [`ChangeError::ServiceExists`] if somebody has the service, which stays; as
    /// [`Self::apply_one`].
    pub fn schedulers(&mut self, probe: &ServiceKey) -> Result<Vec<SchedulerName>, IpvsError> {
        let mut found = Vec::new();
        for scheduler in SchedulerName::KNOWN {
            let service = Service {
                key: *probe,
                scheduler,
                persistence: None,
                flags: ServiceFlags::NONE,
            };
            match self.apply_one(Change::NewService(service)) {
                Ok(()) => {
                    self.apply_one(Change::DeleteService(*probe))?;
                    found.push(scheduler);
                }
                Err(IpvsError::Change(
                    ChangeError::UnknownScheduler { .. } | ChangeError::SchedulerNotLoaded { .. },
                )) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Makes the changes of one batch, of which `first` have gone before.
    fn apply_batch(
        &mut self,
        changes: &[Change],
        first: usize,
        failures: &mut Vec<Failure>,
    ) -> Result<(), IpvsError> {
        let (mut sendable, mut failed) = (Vec::with_capacity(changes.len()), Vec::new());
        for (index, change) in (first..).zip(changes) {
            match preload::check(change) {
                Ok(()) => sendable.push((index, change)),
                Err(error) => failed.push(Failure { index, error }),
            }
        }
        self.send_changes(&sendable, &mut failed)?;
        failed.sort_by_key(|failure| failure.index);
        failures.append(&mut failed);
        Ok(())
    }

    fn send_changes(
        &mut self,
        changes: &[(usize, &Change)],
        failures: &mut Vec<Failure>,
    ) -> Result<(), IpvsError> {
        let Some((last_index, _)) = changes.last() else {
            return Ok(());
        };
        self.writer.clear();
        let mut sequences = Vec::with_capacity(changes.len());
        for (index, change) in changes {
            // Refusals come back without being asked for, and in order.
            let flags = if index == last_index { NLM_F_ACK } else { 0 };
            let head = self.socket.head(change.command(), flags);
            head.message(&mut self.writer, |writer| change.write(writer));
            sequences.push(head.sequence);
        }
        let request = format_args!("make {} changes to IPVS", changes.len());
        let mut refused = Vec::new();
        let last = sequences.last().copied().unwrap_or_default();
        self.socket
            .exchange(&self.writer, last, &request, &mut |answer| {
                if let Answer::Refused { sequence, code } = answer {
                    refused.push((sequence, code));
                }
                Ok(())
            })?;
        if refused.iter().any(|(_, code)| *code == ENOENT) {
            self.check_family()?; // which the kernel tells in the same words
        }
        for (sequence, code) in refused {
            let place = sequences.iter().position(|sent| *sent == sequence);
            if let Some((index, change)) = place.and_then(|place| changes.get(place)) {
                failures.push(Failure {
                    index: *index,
                    error: ChangeError::new(change, code),
                });
            }
        }
        Ok(())
    }

    /// One question with its answers.
    fn get(
        &mut self,
        command: u8,
        flags: u16,
        doing: &str,
        write: impl FnOnce(&mut Writer),
        on_object: impl FnMut(u8, &[u8]) -> Result<(), String>,
    ) -> Result<(), IpvsError> {
        self.writer.clear();
        // The end of a dump is its acknowledgement.
        let flags = if flags == 0 { NLM_F_ACK } else { flags };
        let head = self.socket.head(command, flags);
        head.message(&mut self.writer, write);
        let asked = self
            .socket
            .request(&self.writer, head.sequence, &doing, on_object);
        match asked {
            Err(NetlinkError::Refused { code: ENOENT, .. }) => {
                self.check_family()?;
                asked.map_err(IpvsError::from)
            }
            other => other.map_err(IpvsError::from),
        }
    }

    /// That the family is still there under its number.
    fn check_family(&mut self) -> Result<(), IpvsError> {
        if self.socket.is_current()? {
            Ok(())
        } else {
            Err(IpvsError::Gone)
        }
    }
}

fn no_answer(doing: &str) -> IpvsError {
    IpvsError::Netlink(NetlinkError::Malformed {
        request: doing.to_owned(),
        detail: "no answer but an acknowledgement".to_owned(),
    })
}
