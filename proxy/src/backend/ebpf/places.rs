//! Places of flows in connection tracking's table, while rules of another mode translate what is
//! new.
//!
//! The kernel gives a connection that it translates addresses and ports that no other has at the
//! same endpoint, as far as it knows. It does not know flows of programs: it may choose the port
//! that one of them is masqueraded with, or leave a client its port which a flow of the same client
//! to another Service has. The flow's programs would then take the connection's packets. So each
//! flow has an entry there, which nothing is translated by.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchyard_datapath::layout::{FlowKey, FlowValue, TCP, UDP, flow_flags};
use switchyard_netlink::NetlinkError;
use switchyard_netlink::conntrack::{Conntrack, Place, Tuple};

use super::EbpfError;
use super::flows::Flows;

/// So many places are taken at most: it is not only our table.
const PLACES_MAX: usize = 1 << 16;
/// And so large a part of what the table may hold.
const SHARE: usize = 4;
/// Where the kernel says how much that is.
const TABLE_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// A place is given back so long after it was last asked for, should the agent end.
const TIMEOUT_S: u32 = 120;
/// How often it is asked for.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The places that flows have.
#[derive(Debug)]
pub(super) struct Places {
    /// Those that others have not taken before.
    taken: HashSet<Place>,
    asked: Instant,
    /// They can't be taken, and that was said.
    is_without: bool,
}

impl Places {
    /// None yet.
    pub(super) fn none() -> Self {
        Self {
            taken: HashSet::new(),
            asked: Instant::now(),
            is_without: false,
        }
    }

    /// Takes places for flows that have none, and gives back those of flows that are over.
    pub(super) fn follow(&mut self, flows: &Flows) -> Result<(), EbpfError> {
        let mut wanted = HashSet::new();
        let room = room();
        flows.walk(|key, value| {
            if wanted.len() < room {
                wanted.extend(place_of(key, value));
            }
        })?;
        if let Err(error) = self.become_those(&wanted)
            && !std::mem::replace(&mut self.is_without, true)
        {
            tracing::warn!(
                %error,
                "the kernel may choose ports for new connections that flows of ebpf mode have"
            );
        }
        Ok(())
    }

    fn become_those(&mut self, wanted: &HashSet<Place>) -> Result<(), NetlinkError> {
        let mut kernel = Conntrack::open()?;
        let new: Vec<Place> = wanted.difference(&self.taken).copied().collect();
        self.taken.extend(kernel.take(&new, TIMEOUT_S)?);
        let over: Vec<Place> = self.taken.difference(wanted).copied().collect();
        kernel.give_back(&over)?;
        self.taken.retain(|place| wanted.contains(place));
        if self.asked.elapsed() >= ASK_AGAIN {
            let taken: Vec<Place> = self.taken.iter().copied().collect();
            kernel.keep(&taken, TIMEOUT_S)?;
            self.asked = Instant::now();
        }
        Ok(())
    }
}

fn room() -> usize {
    let text = std::fs::read_to_string(TABLE_MAX).unwrap_or_default();
    let max = text.trim().parse().unwrap_or(usize::MAX);
    PLACES_MAX.min(max / SHARE)
}

/// What an entry says of how its flow's endpoint sees the client; each flow has one that does.
fn place_of(key: &FlowKey, value: &FlowValue) -> Option<Place> {
    let of_answers = flow_flags::REPLY | flow_flags::UNMASQUERADE;
    let of_none = flow_flags::REFUSED | flow_flags::KEPT;
    if value.flags & of_answers == 0 || value.flags & of_none != 0 {
        return None;
    }
    let socket = |address, port| SocketAddr::new(address, u16::from_be(port));
    Some(Place {
        is_tcp: match key.protocol {
            TCP => true,
            UDP => false,
            _ => return None,
        },
        original: Tuple {
            source: socket(key.destination.into(), key.destination_port),
            destination: socket(key.source.into(), key.source_port),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use switchyard_datapath::layout::{Address, Hook, SCTP};

    use super::*;

    fn place(protocol: u8, flags: u16) -> Option<String> {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let key = FlowKey {
            source: address("10.0.0.5"),
            destination: address("192.0.2.1"),
            source_port: 8080_u16.to_be(),
            destination_port: 1176_u16.to_be(),
            protocol,
            hook: Hook::Ingress.number(),
            reserved: 0,
        };
        let value = FlowValue {
            flags,
            ..FlowValue::default()
        };
        place_of(&key, &value).map(|place| place.to_string())
    }

    #[test]
    fn answers_tell_whom_the_endpoint_sees() {
        use flow_flags::{BOTH, KEPT, MASQUERADE, REFUSED, REPLY, REQUEST, STREAM, UNMASQUERADE};
        let tcp = Some("tcp 192.0.2.1:1176 -> 10.0.0.5:8080".to_owned());
        for flags in [UNMASQUERADE, REPLY, REPLY | BOTH, UNMASQUERADE | STREAM] {
            assert_eq!(place(TCP, flags), tcp);
        }
        assert_eq!(
            place(UDP, REPLY).as_deref(),
            Some("udp 192.0.2.1:1176 -> 10.0.0.5:8080")
        );
        for flags in [REQUEST, MASQUERADE, REPLY | REFUSED, KEPT | STREAM] {
            assert_eq!(place(TCP, flags), None);
        }
        assert_eq!(place(SCTP, REPLY), None);
    }
}
