//! The connection tracking table, as far as a service proxy touches it: stream the UDP flows
//! of a family, and delete chosen ones; stream the TCP connections; keep places in it.
//!
//! Source: `linux/netfilter/nfnetlink_conntrack.h`. Needs `nf_conntrack_netlink` and
//! CAP_NET_ADMIN. Deleting by id needs Linux 5.2 to be exact (before, ids could be reused
//! within a moment). Filtering in the kernel (`CTA_FILTER`) is there since 5.8: older kernels
//! overlook the wish and send flows of all protocols, which are then sorted out here.

mod connection;
mod flow;
mod place;

use std::fmt;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use nix::libc::{EEXIST, EINVAL, ENOENT, EOPNOTSUPP};

use crate::attribute::Detail;
use crate::error::NetlinkError;
use crate::family::Family;
use crate::nfnl::{Answer, NfnlSocket};
use crate::writer::{MessageHead, Writer};

pub use connection::Connection;
use flow::{EntryKey, IPPROTO_TCP, IPPROTO_UDP};
pub use flow::{Flow, Tuple, Zone, ZoneScope};
pub use place::Place;

const SUBSYSTEM_CTNETLINK: u8 = 1;
const MSG_NEW: u8 = 0;
const MSG_GET: u8 = 1;
const MSG_DELETE: u8 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// "The protocol number of the original tuple must match." The flags of `CTA_FILTER` are
/// bits in the order of the tuple's fields (source, destination, zone, protocol number, …);
/// no header of the kernel exports them.
const FILTER_PROTO_NUM: u32 = 1 << 3;

/// Requests sent at once. Each may be answered by an error of about 1 KiB of socket memory,
/// and the default receive buffer takes 208 KiB.
pub const REQUESTS_PER_SEND_MAX: usize = 100;

/// Talks to the conntrack table of the network namespace it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    socket: NfnlSocket,
    writer: Writer,
    /// Ask the kernel to filter; no longer once it refused.
    kernel_filters: bool,
}

/// What a dump went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpCounts {
    /// Flows the kernel sent.
    pub received: u64,
    /// Those of the protocol that was asked for, all handed to the callback.
    pub wanted: u64,
}

impl Conntrack {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: NfnlSocket::open(SUBSYSTEM_CTNETLINK, "conntrack")?,
            writer: Writer::new(),
            kernel_filters: true,
        })
    }

    /// Takes all flows of a family from the kernel and sorts them out here, as it is on kernels
    /// before 5.8 anyway.
    pub const fn filter_in_user_space(&mut self) {
        self.kernel_filters = false;
    }

    /// Hands every UDP flow of a family to `on_flow`, as the kernel delivers them; the table
    /// is never held in memory. A flow may come twice, and one that comes or goes meanwhile
    /// may or may not be there. Deleting flows meanwhile, with another [`Conntrack`], is fine.
    ///
    /// # Errors
    /// `Refused` with `EPERM` without CAP_NET_ADMIN, with `EINVAL` where
    /// `nf_conntrack_netlink` is missing; `Overrun`, `Silent` and the like.
    pub fn for_each_udp(
        &mut self,
        family: Family,
        mut on_flow: impl FnMut(&Flow),
    ) -> Result<DumpCounts, NetlinkError> {
        self.for_each(family, IPPROTO_UDP, &mut |bytes| {
            let flow = Flow::parse_udp(bytes)?;
            Ok(flow.map(|flow| on_flow(&flow)).is_some())
        })
    }

    /// The same with every TCP connection of a family.
    ///
    /// # Errors
    /// As [`Self::for_each_udp`].
    pub fn for_each_tcp(
        &mut self,
        family: Family,
        mut on_connection: impl FnMut(&Connection),
    ) -> Result<DumpCounts, NetlinkError> {
        self.for_each(family, IPPROTO_TCP, &mut |bytes| {
            let connection = Connection::parse(bytes)?;
            Ok(connection.map(|it| on_connection(&it)).is_some())
        })
    }

    /// Hands over entries, which `on_entry` tells whether they are of the protocol.
    fn for_each(
        &mut self,
        family: Family,
        protocol: u8,
        on_entry: &mut dyn FnMut(&[u8]) -> Result<bool, Detail>,
    ) -> Result<DumpCounts, NetlinkError> {
        if self.kernel_filters {
            match self.dump(family, Some(protocol), on_entry) {
                Err(NetlinkError::Refused { code, .. }) if code == EINVAL || code == EOPNOTSUPP => {
                    self.kernel_filters = false;
                }
                other => return other,
            }
        }
        self.dump(family, None, on_entry)
    }

    fn dump(
        &mut self,
        family: Family,
        only: Option<u8>,
        on_entry: &mut dyn FnMut(&[u8]) -> Result<bool, Detail>,
    ) -> Result<DumpCounts, NetlinkError> {
        self.writer.clear();
        let head = self
            .socket
            .head(MSG_GET, NLM_F_REQUEST | NLM_F_DUMP, family.number());
        write_dump_request(&mut self.writer, &head, only);
        let mut counts = DumpCounts::default();
        let request = format_args!("list the {family} conntrack table");
        self.socket.request(
            &self.writer,
            head.sequence,
            &request,
            |command, _, bytes| {
                if command != MSG_NEW {
                    return Ok(());
                }
                counts.received += 1;
                counts.wanted += u64::from(on_entry(bytes)?);
                Ok(())
            },
        )?;
        Ok(counts)
    }

    /// Deletes exactly these flows: same original tuple, zone and id. One that is gone
    /// already, or was replaced by a younger flow with the same tuple, is left alone.
    /// Returns how many were deleted.
    ///
    /// # Errors
    /// The first refusal, naming its flow; the rest of its batch of at most
    /// [`REQUESTS_PER_SEND_MAX`] was still tried, later batches were not.
    pub fn delete(&mut self, flows: &[Flow]) -> Result<usize, NetlinkError> {
        let mut deleted = 0;
        for batch in flows.chunks(REQUESTS_PER_SEND_MAX) {
            deleted += self.delete_batch(batch, Flow::key)?;
        }
        Ok(deleted)
    }

    /// Deletes exactly these connections, in the same way.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn delete_connections(
        &mut self,
        connections: &[Connection],
    ) -> Result<usize, NetlinkError> {
        let mut deleted = 0;
        for batch in connections.chunks(REQUESTS_PER_SEND_MAX) {
            deleted += self.delete_batch(batch, Connection::key)?;
        }
        Ok(deleted)
    }

    /// Takes places that nobody has, so that the kernel gives them to nobody. Each is given back
    /// after `timeout_s` seconds, or by [`Self::give_back`]. Returns those that were taken.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn take(&mut self, places: &[Place], timeout_s: u32) -> Result<Vec<Place>, NetlinkError> {
        let mut taken = Vec::with_capacity(places.len());
        for batch in places.chunks(REQUESTS_PER_SEND_MAX) {
            let request = Request {
                what: "take a place in the conntrack table",
                command: MSG_NEW,
                flags: NLM_F_CREATE | NLM_F_EXCL,
                passed_over: EEXIST,
            };
            let others = self.send_batch(&request, batch, Place::key, |writer, place| {
                place.write(writer, timeout_s);
            })?;
            let own = batch
                .iter()
                .enumerate()
                .filter(|(at, _)| !others.contains(at));
            taken.extend(own.map(|(_, place)| *place));
        }
        Ok(taken)
    }

    /// Keeps places that were taken for another `timeout_s` seconds, and takes those anew that were
    /// lost meanwhile.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn keep(&mut self, places: &[Place], timeout_s: u32) -> Result<(), NetlinkError> {
        for batch in places.chunks(REQUESTS_PER_SEND_MAX) {
            let request = Request {
                what: "keep a place in the conntrack table",
                command: MSG_NEW,
                flags: NLM_F_CREATE,
                passed_over: EEXIST,
            };
            self.send_batch(&request, batch, Place::key, |writer, place| {
                place.write(writer, timeout_s);
            })?;
        }
        Ok(())
    }

    /// Gives places back.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn give_back(&mut self, places: &[Place]) -> Result<(), NetlinkError> {
        for batch in places.chunks(REQUESTS_PER_SEND_MAX) {
            self.delete_batch(batch, Place::key)?;
        }
        Ok(())
    }

    fn delete_batch<T: fmt::Display>(
        &mut self,
        entries: &[T],
        key: impl Fn(&T) -> EntryKey,
    ) -> Result<usize, NetlinkError> {
        let request = Request {
            what: "delete the conntrack flow",
            command: MSG_DELETE,
            flags: 0,
            passed_over: ENOENT,
        };
        let gone = self.send_batch(&request, entries, &key, |writer, entry| {
            key(entry).write(writer);
        })?;
        Ok(entries.len() - gone.len())
    }

    /// Sends one message for each entry; returns which of them the kernel refused for the reason
    /// that is passed over. Any other refusal is an error.
    fn send_batch<T: fmt::Display>(
        &mut self,
        request: &Request,
        entries: &[T],
        key: impl Fn(&T) -> EntryKey,
        write: impl Fn(&mut Writer, &T),
    ) -> Result<Vec<usize>, NetlinkError> {
        self.writer.clear();
        let mut sequences = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let family = Family::of(key(entry).original.destination.ip()).number();
            // Only the last is acknowledged: of others only refusals come back, and they come in
            // order.
            let is_last = at + 1 == entries.len();
            let flags = NLM_F_REQUEST | request.flags | if is_last { NLM_F_ACK } else { 0 };
            let head = self.socket.head(request.command, flags, family);
            self.writer.message(&head, |writer| write(writer, entry));
            sequences.push(head.sequence);
        }
        let Some(last) = sequences.last() else {
            return Ok(Vec::new());
        };
        let at = |sequence: u32| sequences.iter().position(|sent| *sent == sequence);
        let mut passed_over = Vec::new();
        let mut refused = None;
        let all = format_args!("{} ({} times)", request.what, entries.len());
        self.socket
            .exchange(&self.writer, *last, &all, &mut |answer| {
                match answer {
                    Answer::Refused { sequence, code, .. } if code == request.passed_over => {
                        passed_over.extend(at(sequence));
                    }
                    Answer::Refused { sequence, code, .. } => {
                        refused.get_or_insert((sequence, code));
                    }
                    Answer::Object { .. } => {}
                }
                Ok(())
            })?;
        let Some((sequence, code)) = refused else {
            return Ok(passed_over);
        };
        let entry = at(sequence).and_then(|at| entries.get(at));
        Err(NetlinkError::Refused {
            request: match entry {
                Some(entry) => format!("{} {entry}", request.what),
                None => all.to_string(),
            },
            code,
        })
    }
}

/// What is asked for each entry of a batch.
struct Request {
    what: &'static str,
    command: u8,
    /// `NLM_F_*`, besides those of all requests.
    flags: u16,
    /// A refusal that is none.
    passed_over: i32,
}

fn write_dump_request(writer: &mut Writer, head: &MessageHead, only: Option<u8>) {
    writer.message(head, |writer| {
        if let Some(protocol) = only {
            writer.nest(CTA_TUPLE_ORIG, |writer| {
                flow::write_protocol_only(writer, protocol);
            });
            writer.nest(CTA_FILTER, |writer| {
                writer.u32_native(CTA_FILTER_ORIG_FLAGS, FILTER_PROTO_NUM);
            });
        }
    });
}

/// `a:1 -> b:2`.
impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)
    }
}

/// `tcp a:1 -> b:2`.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp {}", self.original)
    }
}

/// `udp a:1 -> b:2 (replies from c:3)`.
impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "udp {} (replies from {})",
            self.original, self.reply.source
        )
    }
}

/// Any bytes as a flow or connection that the kernel lists.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_bytes(bytes: &[u8]) {
    let _ = Flow::parse_udp(bytes);
    let _ = Connection::parse(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_filtered_dump_request_as_bytes() {
        let mut writer = Writer::new();
        let head = MessageHead {
            subsystem: SUBSYSTEM_CTNETLINK,
            command: MSG_GET,
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            sequence: 7,
            family: Family::V6.number(),
        };
        write_dump_request(&mut writer, &head, Some(IPPROTO_UDP));
        let expected = [
            48, 0, 0, 0, 1, 1, 1, 3, 7, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            10, 0, 0, 0, // nfgenmsg
            16, 0, 1, 0x80, 12, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, // CTA_TUPLE_ORIG
            12, 0, 25, 0x80, 8, 0, 1, 0, 8, 0, 0, 0, // CTA_FILTER
        ];
        assert_eq!(writer.bytes(), Some(&expected[..]));
        writer.clear();
        write_dump_request(&mut writer, &head, None);
        assert_eq!(writer.len(), 20);
    }
}
