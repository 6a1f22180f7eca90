//! Entries of FLOWS that keep the places of connections which connection tracking translates.
//!
//! Rules of an earlier mode have given such a connection the addresses and ports that its endpoint
//! sees. A flow of programs with the same ones, at the same endpoint, would take its packets: the
//! client's port may be used for another Service with that endpoint, and the port to masquerade with
//! may be drawn again. So its place is taken, by an entry that changes nothing.

use std::collections::HashSet;

use switchyard_datapath::layout::{Address, FlowKey, FlowValue, Hook, TCP, flow_flags, limits};
use switchyard_netlink::conntrack::Connection;

use super::EbpfError;
use super::flows::Flows;

/// So many are kept at most: flows need room as well.
const KEPT_MAX: u32 = limits::FLOW_ENTRIES_MAX / 4;

/// The entries that are there.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// `None`: an earlier run may have left some.
    there: Option<HashSet<FlowKey>>,
}

impl Kept {
    /// Has the entries be those of these places. A place that a flow has already stays the flow's.
    pub(super) fn become_those(
        &mut self,
        flows: &mut Flows,
        wanted: &HashSet<FlowKey>,
    ) -> Result<(), EbpfError> {
        let mut there = match self.there.take() {
            Some(there) => there,
            None => left(flows)?,
        };
        for key in there.difference(wanted) {
            // A flow may have it since: a connection that ends gives way.
            if flows.get(key)?.is_some_and(|value| is_kept(&value)) {
                flows.remove(key)?;
            }
        }
        there.retain(|key| wanted.contains(key));
        let limit = usize::try_from(KEPT_MAX).unwrap_or(usize::MAX);
        for key in wanted {
            if there.len() >= limit {
                break;
            }
            if !there.contains(key) && flows.insert_new(key, &FlowValue::keeping(key))? {
                there.insert(*key);
            }
        }
        self.there = Some(there);
        Ok(())
    }
}

/// What an earlier run kept.
fn left(flows: &Flows) -> Result<HashSet<FlowKey>, EbpfError> {
    let mut left = HashSet::new();
    flows.walk(|key, value| {
        if is_kept(value) {
            left.insert(*key);
        }
    })?;
    Ok(left)
}

/// Whether an entry is none of a flow.
pub(super) const fn is_kept(value: &FlowValue) -> bool {
    value.flags & flow_flags::KEPT != 0
}

/// Where the answers of a connection would meet a flow's entry.
pub(super) fn place_of(connection: &Connection) -> FlowKey {
    let (from, to) = (connection.reply.source, connection.reply.destination);
    let hook = if connection.is_masqueraded() {
        Hook::Ingress
    } else {
        Hook::Egress
    };
    FlowKey {
        source: Address::from(from.ip()),
        destination: Address::from(to.ip()),
        source_port: from.port().to_be(),
        destination_port: to.port().to_be(),
        protocol: TCP,
        hook: hook.number(),
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use switchyard_netlink::conntrack::Tuple;

    use super::*;

    fn connection(client: &str, seen_as: &str) -> Connection {
        let socket = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let tuple = |source, destination| Tuple {
            source: socket(source),
            destination: socket(destination),
        };
        Connection {
            original: tuple(client, "192.0.2.1:30007"),
            reply: tuple("10.0.0.5:8080", seen_as),
            has_destination_nat: true,
            is_over: false,
            zone: None,
            id: None,
        }
    }

    #[test]
    fn a_place_is_where_the_answers_of_a_flow_would_be_met() {
        let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
        let client = "198.51.100.2:4000";
        let masked = place_of(&connection(client, "192.0.2.1:1176"));
        assert_eq!(masked.hook, Hook::Ingress.number());
        assert_eq!(masked.destination, address("192.0.2.1"));
        assert_eq!(masked.destination_port, 1176_u16.to_be());
        let plain = place_of(&connection(client, client));
        assert_eq!(plain.hook, Hook::Egress.number());
        assert_eq!(plain.destination, address("198.51.100.2"));
        assert_eq!(
            (plain.source, plain.source_port),
            (address("10.0.0.5"), 8080_u16.to_be())
        );
    }
}
