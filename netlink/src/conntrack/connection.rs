use super::flow::{
    CTA_ID, CTA_STATUS, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ZONE, EntryKey, IPPROTO_TCP, RawTuple,
    STATUS_DST_NAT, Tuple, Zone, ZoneScope,
};
use crate::attribute::{self, Detail, attributes};

pub(super) const CTA_PROTOINFO: u16 = 4;
pub(super) const CTA_PROTOINFO_TCP: u16 = 1;
pub(super) const CTA_PROTOINFO_TCP_STATE: u16 = 1;

/// `enum tcp_conntrack` of `linux/netfilter/nf_conntrack_tcp.h`.
const TCP_TIME_WAIT: u8 = 7;
const TCP_CLOSE: u8 = 8;

/// A TCP connection of the conntrack table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// From the client to where it believes to send.
    pub original: Tuple,
    /// From who really answers back to the client (or to who masquerades for it).
    pub reply: Tuple,
    /// The kernel translates the destination.
    pub has_destination_nat: bool,
    /// It was reset, or closed by both ends.
    pub is_over: bool,
    /// The conntrack zone, where it is not the default one.
    pub zone: Option<Zone>,
    /// The kernel's id of this very entry.
    pub id: Option<u32>,
}

impl Connection {
    /// Reads the attributes of one entry; `None` if it is not TCP.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Detail> {
        let (mut original, mut reply, mut status, mut state) = (None, None, 0, None);
        let (mut zone, mut id) = (None, None);
        for attribute in attributes(bytes) {
            let (kind, value) = attribute?;
            match kind {
                CTA_TUPLE_ORIG => {
                    let raw = RawTuple::parse(value)?;
                    if raw.protocol != Some(IPPROTO_TCP) {
                        return Ok(None);
                    }
                    original = Some(raw.tuple()?);
                    let scope = ZoneScope::Original;
                    zone = raw.zone.map(|id| Zone { id, scope }).or(zone);
                }
                CTA_TUPLE_REPLY => reply = Some(RawTuple::parse(value)?.tuple()?),
                CTA_STATUS => status = attribute::u32_be(value, "CTA_STATUS")?,
                CTA_ID => id = Some(attribute::u32_be(value, "CTA_ID")?),
                CTA_ZONE => {
                    let scope = ZoneScope::Both;
                    let id = attribute::u16_be(value, "CTA_ZONE")?;
                    zone = Some(Zone { id, scope });
                }
                CTA_PROTOINFO => state = tcp_state(value)?,
                _ => {}
            }
        }
        let (Some(original), Some(reply)) = (original, reply) else {
            return Err("a conntrack entry without both of its tuples".to_owned());
        };
        Ok(Some(Self {
            original,
            reply,
            has_destination_nat: status & STATUS_DST_NAT != 0,
            is_over: matches!(state, Some(TCP_TIME_WAIT | TCP_CLOSE)),
            zone,
            id,
        }))
    }

    /// Answers come from elsewhere than it was sent to: by the kernel's translation, or by IPVS.
    #[must_use]
    pub fn is_answered_elsewhere(&self) -> bool {
        self.reply.source != self.original.destination
    }

    /// The client is hidden behind another address or port.
    #[must_use]
    pub fn is_masqueraded(&self) -> bool {
        self.reply.destination != self.original.source
    }

    pub(super) const fn key(&self) -> EntryKey {
        EntryKey {
            protocol: IPPROTO_TCP,
            original: self.original,
            zone: self.zone,
            id: self.id,
        }
    }
}

/// The state of TCP in an entry, if it says one.
fn tcp_state(bytes: &[u8]) -> Result<Option<u8>, Detail> {
    for attribute in attributes(bytes) {
        let (CTA_PROTOINFO_TCP, value) = attribute? else {
            continue;
        };
        for attribute in attributes(value) {
            if let (CTA_PROTOINFO_TCP_STATE, value) = attribute? {
                return attribute::u8(value, "CTA_PROTOINFO_TCP_STATE").map(Some);
            }
        }
    }
    Ok(None)
}
