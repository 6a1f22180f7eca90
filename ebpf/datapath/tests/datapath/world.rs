//! A node with two devices, some Services, and clients: what most cases need.

use std::net::IpAddr;

use switchyard_datapath::layout::{
    Address, Counters, Device, Endpoint, FlowKey, FlowValue, Hook, Kind, PortRange, Reason,
    Settings, SettingsPorts, TCP, address_flags, device_flags, flow_flags, settings_flags,
};
use switchyard_datapath::table::{Block, Bytes, Table};

use crate::packets::{Build, Read, SYN, verify};

/// The device towards everybody else.
pub(crate) const UPLINK: u32 = 2;
/// The device of local pods.
pub(crate) const PODS: u32 = 3;
/// A device without an address to masquerade with.
pub(crate) const BARE: u32 = 4;
/// The Service that most cases are about.
pub(crate) const WEB: u32 = 1;
/// Another one.
pub(crate) const OTHER: u32 = 2;
/// The ports that masquerading uses, in two ranges.
pub(crate) const RANGES: [(u16, u16); 2] = [(20_000, 20_099), (61_000, 61_099)];

/// An IP family; cases run in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    fn pick(self, v4: &str, v6: &str) -> IpAddr {
        match self {
            Self::V4 => v4.parse().unwrap(),
            Self::V6 => v6.parse().unwrap(),
        }
    }

    /// The node's own address.
    pub(crate) fn node(self) -> IpAddr {
        self.pick("192.168.0.1", "fd00:1::1")
    }

    /// A client outside the cluster.
    pub(crate) fn outside(self) -> IpAddr {
        self.pick("203.0.113.9", "2001:db8::9")
    }

    /// A local pod that is no endpoint.
    pub(crate) fn pod(self) -> IpAddr {
        self.pick("10.244.0.9", "fd00:244::9")
    }

    /// The n-th endpoint; even ones are on this node.
    pub(crate) fn endpoint(self, n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        match self {
            Self::V4 => IpAddr::from([
                10,
                244,
                high + if n.is_multiple_of(2) { 0 } else { 128 },
                low,
            ]),
            Self::V6 if n.is_multiple_of(2) => IpAddr::from([0xfd00, 0x244, 0, 0, 1, 0, 0, n]),
            Self::V6 => IpAddr::from([0xfd00, 0x245, 0, 0, 1, 0, 0, n]),
        }
    }

    /// A ClusterIP.
    pub(crate) fn vip(self) -> IpAddr {
        self.pick("10.96.0.10", "fd00:96::10")
    }

    /// The ClusterIP of the other Service.
    pub(crate) fn other_vip(self) -> IpAddr {
        self.pick("10.96.0.11", "fd00:96::11")
    }

    /// An external IP that the node does not have.
    pub(crate) fn external(self) -> IpAddr {
        self.pick("198.51.100.1", "2001:db8:1::1")
    }

    /// A LoadBalancer IP.
    pub(crate) fn balancer(self) -> IpAddr {
        self.pick("198.51.100.2", "2001:db8:1::2")
    }

    /// An external IP that the node has.
    pub(crate) fn held(self) -> IpAddr {
        self.pick("198.51.100.3", "2001:db8:1::3")
    }

    /// The prefix length of a network that is told as such in this family, as keys count it.
    pub(crate) fn bits(self, v4: u32, v6: u32) -> u32 {
        match self {
            Self::V4 => 96 + v4,
            Self::V6 => v6,
        }
    }

    fn any(self) -> Address {
        Address::from(self.pick("0.0.0.0", "::"))
    }
}

/// One packet's addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
}

impl Tuple {
    pub(crate) fn new(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self {
            source,
            destination,
        }
    }

    pub(crate) fn reversed(self) -> Self {
        Self::new(self.destination, self.source)
    }
}

pub(crate) struct World {
    pub(crate) family: Family,
    pub(crate) table: Table,
    /// The protocol of what is sent.
    pub(crate) protocol: u8,
}

fn device((masquerade_v4, masquerade_v6): (Address, Address), flags: u32) -> Device {
    Device {
        masquerade_v4,
        masquerade_v6,
        flags,
        reserved: 0,
    }
}

impl World {
    /// Two Services without endpoints at all kinds of addresses: WEB at port 80 (node port
    /// 30080), OTHER at port 80 of its ClusterIP.
    pub(crate) fn new(family: Family, protocol: u8) -> Self {
        let mut table = Table::new(7);
        let own = address_flags::LOCAL | address_flags::NODE_PORTS;
        table.add_address(family.node().into(), own);
        table.add_address(family.vip().into(), address_flags::CLUSTER_IP);
        table.add_address(family.other_vip().into(), address_flags::CLUSTER_IP);
        table.add_address(family.external().into(), address_flags::EXTERNAL);
        table.add_address(family.balancer().into(), address_flags::EXTERNAL);
        let held = address_flags::EXTERNAL | address_flags::LOCAL;
        table.add_address(family.held().into(), held);
        for (address, port, service, kind) in [
            (family.vip().into(), 80, WEB, Kind::ClusterIp),
            (family.other_vip().into(), 80, OTHER, Kind::ClusterIp),
            (family.external().into(), 80, WEB, Kind::External),
            (family.held().into(), 80, WEB, Kind::External),
            (family.balancer().into(), 80, WEB, Kind::LoadBalancer),
            (family.any(), 30_080, WEB, Kind::External),
        ] {
            table.add_frontend(address, port, protocol, service, kind);
        }
        let mut world = Self {
            family,
            table,
            protocol,
        };
        world.set_device(UPLINK, 0);
        world.set_device(PODS, device_flags::PODS);
        let bare = (Address::ANY, Address::ANY);
        world.table.set_device(BARE, device(bare, 0));
        world.set_settings(settings_flags::PODS_BY_CIDR);
        world.set_ports(RANGES);
        world.table.write_block(WEB, &Block::default());
        world.table.write_block(OTHER, &Block::default());
        world
    }

    /// Writes a device that has the node's address, with these flags.
    pub(crate) fn set_device(&mut self, index: u32, flags: u32) {
        let node = Address::from(self.family.node());
        let addresses = match self.family {
            Family::V4 => (node, Address::ANY),
            Family::V6 => (Address::ANY, node),
        };
        self.table.set_device(index, device(addresses, flags));
    }

    /// The same with endpoints 1 and 2 of WEB at port 8080.
    pub(crate) fn with_endpoints(family: Family, protocol: u8) -> Self {
        let mut world = Self::new(family, protocol);
        world.offer(WEB, &[1, 2]);
        world
    }

    /// Writes settings with other flags.
    pub(crate) fn set_settings(&mut self, flags: u32) {
        self.write_settings(flags, RANGES);
    }

    /// Writes settings with other ports to masquerade with.
    pub(crate) fn set_ports(&mut self, ranges: [(u16, u16); 2]) {
        self.write_settings(settings_flags::PODS_BY_CIDR, ranges);
    }

    fn write_settings(&mut self, flags: u32, ranges: [(u16, u16); 2]) {
        let of = |network: &str, bits| Settings {
            pods: network.parse::<IpAddr>().unwrap().into(),
            pods_bits: bits,
            flags,
            host_cookie: 1,
        };
        let families = [of("10.244.0.0", 96 + 17), of("fd00:244::", 32)];
        let ports = SettingsPorts {
            ranges: ranges.map(|(first, last)| PortRange { first, last }),
            reserved: [0; 6],
        };
        self.table.write_settings(&families, &ports);
    }

    /// A Service with these endpoints at port 8080 (even ones local), as the agent writes it.
    pub(crate) fn block(&self, numbers: &[u16]) -> Block {
        let list = |wanted: &dyn Fn(u16) -> bool| {
            let numbers = numbers.iter().filter(|n| wanted(**n));
            numbers.map(|n| self.at(*n)).collect::<Vec<_>>()
        };
        Block {
            cluster: list(&|_| true),
            local: list(&|n| n.is_multiple_of(2)),
            serving: list(&|_| true),
            ..Block::default()
        }
    }

    /// The n-th endpoint at port 8080.
    pub(crate) fn at(&self, n: u16) -> Endpoint {
        Endpoint::new(self.family.endpoint(n).into(), 8080_u16.to_be())
    }

    pub(crate) fn offer(&mut self, service: u32, numbers: &[u16]) {
        let block = self.block(numbers);
        self.table.write_block(service, &block);
    }

    /// Sends a packet by a device, with TCP flags; what comes out, `None` if it is lost.
    pub(crate) fn meet(
        &self,
        hook: Hook,
        device: u32,
        tuple: Tuple,
        tcp_flags: u8,
    ) -> Option<Tuple> {
        let mut build = Build::new(tuple.source, tuple.destination, self.protocol);
        build.tcp_flags = tcp_flags;
        let whole = build.whole();
        let mut packet = Bytes::plain(whole.clone());
        if !self.table.meet(&mut packet, hook, device) {
            return None;
        }
        verify(&packet.bytes);
        let read = Read::of(&packet.bytes);
        assert_eq!(packet.bytes.len(), whole.len());
        Some(Tuple::new(read.source, read.destination))
    }

    /// A packet that comes in by a device.
    pub(crate) fn comes(&self, device: u32, tuple: Tuple, tcp_flags: u8) -> Option<Tuple> {
        let out = self.meet(Hook::Ingress, device, tuple, tcp_flags)?;
        assert_eq!(
            out.source, tuple.source,
            "ingress changes destinations only"
        );
        Some(out)
    }

    /// A packet that goes out by a device.
    pub(crate) fn goes(&self, device: u32, tuple: Tuple, tcp_flags: u8) -> Option<Tuple> {
        let out = self.meet(Hook::Egress, device, tuple, tcp_flags)?;
        assert_eq!(
            out.destination, tuple.destination,
            "egress changes sources only"
        );
        Some(out)
    }

    /// A packet through the node: in by one device, out by another.
    pub(crate) fn through(&self, from: u32, to: u32, tuple: Tuple, tcp_flags: u8) -> Option<Tuple> {
        let routed = self.comes(from, tuple, tcp_flags)?;
        self.goes(to, routed, tcp_flags)
    }

    /// Opens a flow (with a SYN in TCP) and gives the endpoint's number it was sent to.
    pub(crate) fn open(&self, device: u32, tuple: Tuple) -> Option<u16> {
        let flags = if self.protocol == TCP { SYN } else { 0 };
        let out = self.comes(device, tuple, flags)?;
        assert_eq!(out.destination.1, 8080, "{out:?} is no endpoint");
        (1..100).find(|n| self.family.endpoint(*n) == out.destination.0)
    }

    /// Connections, packets and bytes of all endpoints that were used.
    pub(crate) fn counted(&self) -> Counters {
        let mut sum = Counters::default();
        for counters in self.table.counters().values() {
            sum.connections += counters.connections;
            sum.packets += counters.packets;
            sum.bytes += counters.bytes;
        }
        sum
    }

    /// Entries of flows that have a flag.
    pub(crate) fn entries(&self, flag: u16) -> Vec<(FlowKey, FlowValue)> {
        let flows = self.table.flows().into_iter();
        flows.filter(|(_, value)| value.flags & flag != 0).collect()
    }

    /// Why packets were refused since this was last asked, and whether the sender was told.
    pub(crate) fn refusals(&self) -> Vec<(Reason, bool)> {
        let refusals = self.table.take_refusals().into_iter();
        refusals
            .map(|refusal| (refusal.reason, refusal.told))
            .collect()
    }

    /// There is no entry of any flow.
    pub(crate) fn assert_no_flow(&self) {
        let flows = self.table.flows();
        assert!(flows.is_empty(), "{flows:#?}");
    }

    /// All entries of a flow have one id, and none is left of another.
    pub(crate) fn assert_one_flow(&self, entries: usize) {
        let flows = self.table.flows();
        assert_eq!(flows.len(), entries, "{flows:#?}");
        let ids: std::collections::BTreeSet<u64> = flows.values().map(|value| value.id).collect();
        assert!(ids.len() <= 1, "{flows:#?}");
        let of = |flag| self.entries(flag).len();
        let masqueraded = usize::from(entries > 2);
        assert_eq!(
            [
                of(flow_flags::REQUEST),
                of(flow_flags::REPLY),
                of(flow_flags::MASQUERADE),
                of(flow_flags::UNMASQUERADE)
            ],
            [1, 1, masqueraded, masqueraded]
        );
    }
}
