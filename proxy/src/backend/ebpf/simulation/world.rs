//! The maps in memory, filled as the agent fills the kernel's, and what becomes of a packet or
//! of a socket's call by them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use switchyard_cluster::object::IpFamily;
use switchyard_datapath::layout::{Address, Hook, PortRange, SettingsPorts};
use switchyard_datapath::socket::{Call, Outcome, restore, restore_connected, translate};
use switchyard_datapath::table::{Table, TableSocket};

use super::super::compile::{compile, protocol_number};
use super::super::slot::Slot;
use super::super::{Config, ConntrackTimeouts, Forwarding, node};
use super::packet::{build, read};
use crate::addresses::{AddressInfo, Scope};
use crate::devices::{Device, LinkLayer};
use crate::plan::generated::NODE_ADDRESSES;
use crate::plan::{NodeContext, Packet, PlanTable};

/// The devices of the node, by index and name. Only the first has addresses of its own.
const DEVICES: [(u32, &str); 3] = [(2, "eth0"), (3, "veth1"), (4, "cbr0")];
const UPLINK: u32 = 2;
/// The cookies of the node's network namespace and of a pod's.
const HOST: u64 = 7;
const POD: u64 = 8;
/// What masquerading may use as source ports: not what the machine that runs tests has.
const PORTS: [PortRange; 2] = [
    PortRange {
        first: 1024,
        last: 29_999,
    },
    PortRange {
        first: 61_000,
        last: 65_535,
    },
];

/// What became of a packet or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    To(SocketAddr, Source),
    Reject,
    Drop,
    Untouched,
}

/// Whose address the endpoint sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The client's.
    Own,
    /// The node's.
    Node,
    /// Whatever the kernel gives a socket that connects to the endpoint itself.
    Socket,
}

/// A node with its maps.
pub(super) struct World {
    pub(super) plans: PlanTable,
    pub(super) node: NodeContext,
    pub(super) local: Vec<IpAddr>,
    pub(super) host_only: bool,
    maps: Table,
}

fn config(node: &NodeContext, host_only: bool) -> Config {
    let addresses = NODE_ADDRESSES.map(|text| {
        let address: IpAddr = text.parse().unwrap();
        let (interface_index, scope) = if address.is_loopback() {
            (1, Scope::Host)
        } else {
            (UPLINK, Scope::Global)
        };
        let info = AddressInfo {
            interface_index,
            scope,
        };
        (address, info)
    });
    let devices = DEVICES.map(|(index, name)| Device {
        index,
        name: name.into(),
        link_layer: LinkLayer::Ethernet,
        is_up: true,
        has_far_peer: false,
        is_plain_bridge: false,
    });
    Config {
        node: node.clone(),
        families: IpFamily::BOTH.to_vec(),
        local_addresses: Arc::new(addresses.into_iter().collect()),
        devices: Arc::new(devices.into_iter().collect()),
        stations: Arc::default(),
        conntrack: ConntrackTimeouts::default(),
        host_namespace_only: host_only,
        forwarding: Forwarding::Stack,
    }
}

fn bytes(slots: &[Slot]) -> Vec<[u8; 32]> {
    let of_slot = |slot: &Slot| {
        let mut bytes = [0; 32];
        for (to, word) in bytes.chunks_exact_mut(8).zip(slot.0) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    };
    slots.iter().map(of_slot).collect()
}

impl World {
    pub(super) fn new(plans: PlanTable, node: NodeContext, host_only: bool, seed: u64) -> Self {
        let config = config(&node, host_only);
        let mut maps = Table::new(seed);
        let mut next = 1;
        let mut put = |maps: &mut Table, index: u32, block: &[Slot]| {
            maps.put_slots(next, &bytes(block));
            maps.set_word(index, next);
            next += u32::try_from(block.len()).unwrap();
        };
        let mut settings = node::settings_block(&config, HOST, false);
        *settings.last_mut().unwrap() = Slot::from(SettingsPorts {
            ranges: PORTS,
            reserved: [0; 6],
        });
        put(&mut maps, 0, &settings);
        for (address, flags) in node::addresses(&config) {
            maps.add_address(address, flags);
        }
        for (index, device) in node::devices(&config, false) {
            maps.set_device(index, device);
        }
        for (index, plan) in (1..).zip(plans.plans()) {
            let compiled = compile(plan).unwrap();
            let ranges = compiled.ranges.as_ref().map_or(0, |_| index);
            let block = compiled.block(index, ranges);
            assert_eq!(u32::try_from(block.len()).unwrap(), compiled.slots());
            put(&mut maps, index, &block);
            for (key, kind) in &compiled.frontends {
                let port = u16::from_be(key.port);
                maps.add_frontend(key.address, port, key.protocol, index, *kind);
            }
            for (address, flag) in &compiled.addresses {
                maps.add_address(*address, *flag);
            }
            for (bits, network) in compiled.ranges.iter().flatten() {
                maps.add_range(ranges, *network, *bits);
            }
        }
        Self {
            plans,
            local: NODE_ADDRESSES.map(|text| text.parse().unwrap()).to_vec(),
            node,
            host_only,
            maps,
        }
    }

    /// The first packet of a flow, from the device it comes in by to the one it goes out by,
    /// and its answer back to the client.
    pub(super) fn device(&self, packet: &Packet, client_port: u16) -> Fate {
        self.maps.forget_flows();
        self.maps.take_refusals();
        let protocol = protocol_number(packet.protocol);
        let client = SocketAddr::new(packet.source, client_port);
        let vip = SocketAddr::new(packet.destination, packet.port);
        let came_by = index_of(packet.in_interface.as_deref().unwrap());
        let mut bytes = build(client, vip, protocol, false);
        let before = bytes.clone();
        let passes = self.maps.meet(&mut bytes, Hook::Ingress, came_by);
        let refusals = self.maps.take_refusals();
        if !passes {
            assert!(
                matches!(&refusals[..], [refusal] if !refusal.told),
                "{refusals:?}"
            );
            return Fate::Drop;
        }
        let (source, endpoint) = read(&bytes);
        assert_eq!(source, client, "ingress changes the destination only");
        if endpoint.port() == 0 {
            assert!(self.local.contains(&endpoint.ip()), "refused by {endpoint}");
            assert!(
                matches!(&refusals[..], [refusal] if refusal.told),
                "{refusals:?}"
            );
            return Fate::Reject;
        }
        assert_eq!(refusals, []);
        let goes_by = match endpoint.ip() {
            at if at == packet.source => came_by,
            _ => UPLINK,
        };
        assert!(self.maps.meet(&mut bytes, Hook::Egress, goes_by));
        if bytes == before {
            return Fate::Untouched;
        }
        let (source, still) = read(&bytes);
        assert_eq!(still, endpoint, "egress changes the source only");
        self.answer(client, vip, source, endpoint, protocol, [goes_by, came_by]);
        if source == client {
            return Fate::To(endpoint, Source::Own);
        }
        assert!(self.local.contains(&source.ip()) && !source.ip().is_loopback());
        let is_ours = |range: &PortRange| (range.first..=range.last).contains(&source.port());
        assert!(PORTS.iter().any(is_ours), "{source}");
        Fate::To(endpoint, Source::Node)
    }

    /// The client sees the VIP answer.
    fn answer(
        &self,
        client: SocketAddr,
        vip: SocketAddr,
        seen: SocketAddr,
        endpoint: SocketAddr,
        protocol: u8,
        [comes_by, goes_by]: [u32; 2],
    ) {
        let mut bytes = build(endpoint, seen, protocol, true);
        assert!(self.maps.meet(&mut bytes, Hook::Ingress, comes_by));
        assert_eq!(read(&bytes), (endpoint, client));
        assert!(self.maps.meet(&mut bytes, Hook::Egress, goes_by));
        assert_eq!(read(&bytes), (vip, client));
    }

    /// A call of a socket in the sender's network namespace.
    pub(super) fn socket(&self, packet: &Packet, is_send: bool) -> Fate {
        self.maps.take_refusals();
        let namespace = if packet.in_interface.is_none() {
            HOST
        } else {
            POD
        };
        let mut socket = TableSocket::new(namespace);
        let call = Call {
            address: Address::from(packet.destination),
            port: packet.port.to_be(),
            protocol: protocol_number(packet.protocol),
            is_send,
        };
        let outcome = translate(&self.maps, &mut socket, &call);
        let refusals = self.maps.take_refusals();
        let told = refusals.first().map(|refusal| refusal.told);
        let (fate, expected) = match outcome {
            Outcome::Untouched => (Fate::Untouched, None),
            Outcome::Refuse => (Fate::Reject, Some(true)),
            Outcome::Deny => (Fate::Drop, Some(false)),
            Outcome::To(endpoint) => {
                let (address, port) = (&endpoint.address, endpoint.port);
                let peer = match socket.connected.get() {
                    Some(to) => restore_connected(&to, address, port),
                    None => restore(&socket.record, address, port),
                };
                assert_eq!(peer, Some((call.address, call.port)));
                if is_send {
                    // To its peer, datagrams from one socket are one flow.
                    let again = translate(&self.maps, &mut socket, &call);
                    assert_eq!(again, outcome);
                }
                let port = u16::from_be(endpoint.port);
                let to = SocketAddr::new(endpoint.address.into(), port);
                (Fate::To(to, Source::Socket), None)
            }
        };
        assert_eq!(told, expected);
        fate
    }
}

fn index_of(device: &str) -> u32 {
    let found = DEVICES.iter().find(|(_, name)| *name == device);
    found.unwrap().0
}
