//! The connection tracking table, as far as a service proxy touches it: stream the UDP flows
//! of a family, and delete chosen ones; stream the TCP connections.
//!
//! Source: `linux/netfilter/nfnetlink_conntrack.h`. Needs `nf_conntrack_netlink` and
//! CAP_NET_ADMIN. Deleting by id needs Linux 5.2 to be exact (before, ids could be reused
//! within a moment). Filtering in the kernel (`CTA_FILTER`) is there since 5.8: older kernels
//! overlook the wish and send flows of all protocols, which are then sorted out here.

mod connection;
mod flow;

use std::fmt;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nix::libc::{EINVAL, ENOENT, EOPNOTSUPP};

use crate::attribute::Detail;
use crate::error::NetlinkError;
use crate::family::Family;
use crate::nfnl::{Answer, NfnlSocket};
use crate::writer::{MessageHead, Writer};

pub use connection::Connection;
use flow::{EntryKey, IPPROTO_TCP, IPPROTO_UDP};
pub use flow::{Flow, Tuple, Zone, ZoneScope};

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

/// Deletions sent at once. Each may be answered by an error of about 1 KiB of socket memory,
/// and the default receive buffer takes 208 KiB.
pub const DELETIONS_PER_SEND_MAX: usize = 100;

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
    /// [`DELETIONS_PER_SEND_MAX`] was still tried, later batches were not.
    pub fn delete(&mut self, flows: &[Flow]) -> Result<usize, NetlinkError> {
        let mut deleted = 0;
        for batch in flows.chunks(DELETIONS_PER_SEND_MAX) {
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
        for batch in connections.chunks(DELETIONS_PER_SEND_MAX) {
            deleted += self.delete_batch(batch, Connection::key)?;
        }
        Ok(deleted)
    }

    fn delete_batch<T: fmt::Display>(
        &mut self,
        entries: &[T],
        key: impl Fn(&T) -> EntryKey,
    ) -> Result<usize, NetlinkError> {
        let Some((last, others)) = entries.split_last() else {
            return Ok(0);
        };
        let family = |key: &EntryKey| Family::of(key.original.destination.ip()).number();
        self.writer.clear();
        let mut heads = Vec::with_capacity(entries.len());
        for entry in others {
            // No acknowledgement asked for: only refusals come back, and they come in order.
            let key = key(entry);
            let head = self.socket.head(MSG_DELETE, NLM_F_REQUEST, family(&key));
            write_delete(&mut self.writer, &head, &key);
            heads.push(head.sequence);
        }
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let key = key(last);
        let head = self.socket.head(MSG_DELETE, flags, family(&key));
        write_delete(&mut self.writer, &head, &key);
        heads.push(head.sequence);

        let mut gone = 0;
        let mut refused = None;
        let request = format_args!("delete {} conntrack flows", entries.len());
        self.socket
            .exchange(&self.writer, head.sequence, &request, &mut |answer| {
                match answer {
                    Answer::Refused { code: ENOENT, .. } => gone += 1,
                    Answer::Refused { sequence, code, .. } => {
                        refused.get_or_insert((sequence, code));
                    }
                    Answer::Object { .. } => {}
                }
                Ok(())
            })?;
        let Some((sequence, code)) = refused else {
            return Ok(entries.len() - gone);
        };
        let entry = heads
            .iter()
            .position(|head| *head == sequence)
            .and_then(|at| entries.get(at));
        Err(NetlinkError::Refused {
            request: match entry {
                Some(entry) => format!("delete the conntrack flow {entry}"),
                None => request.to_string(),
            },
            code,
        })
    }
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

fn write_delete(writer: &mut Writer, head: &MessageHead, key: &EntryKey) {
    writer.message(head, |writer| key.write(writer));
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
