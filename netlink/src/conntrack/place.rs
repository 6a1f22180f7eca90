use std::fmt;

use super::connection::{CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE};
use super::flow::{
    CTA_STATUS, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, EntryKey, IPPROTO_TCP, IPPROTO_UDP, Tuple,
};
use crate::writer::Writer;

const CTA_TIMEOUT: u16 = 7;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

/// `IPS_SEEN_REPLY`, `IPS_ASSURED` (it is not dropped early) and `IPS_CONFIRMED`, which the kernel
/// sets itself and does not let go.
const STATUS: u32 = (1 << 1) | (1 << 2) | (1 << 3);
/// `TCP_CONNTRACK_ESTABLISHED`.
const TCP_ESTABLISHED: u8 = 3;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`: no packet is outside of a window that nobody has seen.
const BE_LIBERAL: u8 = 1 << 3;

/// Addresses and ports that somebody else than connection tracking translates to: while it is in
/// the table, the kernel gives them to nobody it translates itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// TCP or UDP.
    pub is_tcp: bool,
    /// From the client (or from who masquerades for it) to who really answers.
    pub original: Tuple,
}

impl Place {
    const fn protocol(&self) -> u8 {
        if self.is_tcp {
            IPPROTO_TCP
        } else {
            IPPROTO_UDP
        }
    }

    pub(super) const fn key(&self) -> EntryKey {
        EntryKey {
            protocol: self.protocol(),
            original: self.original,
            zone: None,
            id: None,
        }
    }

    /// Writes the entry.
    pub(super) fn write(&self, writer: &mut Writer, timeout_s: u32) {
        let protocol = self.protocol();
        for (kind, tuple) in [
            (CTA_TUPLE_ORIG, self.original),
            (CTA_TUPLE_REPLY, self.original.turned()),
        ] {
            writer.nest(kind, |writer| tuple.write(writer, protocol));
        }
        writer.u32_be(CTA_STATUS, STATUS);
        writer.u32_be(CTA_TIMEOUT, timeout_s);
        if !self.is_tcp {
            return;
        }
        writer.nest(CTA_PROTOINFO, |writer| {
            writer.nest(CTA_PROTOINFO_TCP, |writer| {
                writer.u8(CTA_PROTOINFO_TCP_STATE, TCP_ESTABLISHED);
                // Flags, and which of them are meant.
                let liberal = [BE_LIBERAL, BE_LIBERAL];
                writer.attribute(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &liberal);
                writer.attribute(CTA_PROTOINFO_TCP_FLAGS_REPLY, &liberal);
            });
        });
    }
}

/// `tcp a:1 -> b:2`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.is_tcp { "tcp" } else { "udp" };
        write!(f, "{protocol} {}", self.original)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_place_as_bytes() {
        let place = |is_tcp| Place {
            is_tcp,
            original: Tuple {
                source: "10.0.0.1:40".parse().unwrap(),
                destination: "10.0.0.2:53".parse().unwrap(),
            },
        };
        let mut writer = Writer::new();
        place(false).write(&mut writer, 60);
        let udp = [
            52, 0, 1, 0x80, 20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 1, 8, 0, 2, 0, 10, 0, 0, 2, 28,
            0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 0, 40, 0, 0, 6, 0, 3, 0, 0, 53, 0, 0,
            // CTA_TUPLE_REPLY
            52, 0, 2, 0x80, 20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 2, 8, 0, 2, 0, 10, 0, 0, 1, 28, 0,
            2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 0, 53, 0, 0, 6, 0, 3, 0, 0, 40, 0, 0, 8,
            0, 3, 0, 0, 0, 0, 14, // CTA_STATUS
            8, 0, 7, 0, 0, 0, 0, 60, // CTA_TIMEOUT
        ];
        assert_eq!(writer.bytes(), Some(&udp[..]));

        writer.clear();
        place(true).write(&mut writer, 60);
        let mut tcp = udp.to_vec();
        (tcp[32], tcp[52 + 32]) = (6, 6);
        // CTA_PROTOINFO: established, and no window to be outside of.
        tcp.extend([32, 0, 4, 0x80, 28, 0, 1, 0x80, 5, 0, 1, 0, 3, 0, 0, 0]);
        tcp.extend([6, 0, 4, 0, 8, 8, 0, 0, 6, 0, 5, 0, 8, 8, 0, 0]);
        assert_eq!(writer.bytes(), Some(&tcp[..]));
    }
}
