//! What the programs must know of the node: settings, addresses, devices.

use std::collections::HashMap;
use std::net::IpAddr;

use switchyard_cluster::object::IpFamily;
use switchyard_datapath::layout::{
    Address, Device, PortRange, Settings, SettingsPorts, StationKey, address_flags, device_flags,
    limits, settings_flags,
};

use super::compile::range;
use super::slot::Slot;
use super::{Config, Forwarding};
use crate::addresses::Scope;
use crate::plan::LocalDetector;

/// Where the kernel says which ports connections of its own start from.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The kernel's default for that.
const EPHEMERAL_DEFAULT: (u16, u16) = (32_768, 60_999);
/// Kubernetes' default for node ports.
const NODE_PORTS: (u16, u16) = (30_000, 32_767);
/// Ports below are for well-known services.
const LOWEST: u16 = 1024;

/// The settings block.
pub(super) fn settings_block(config: &Config, host_cookie: u64, beside_rules: bool) -> Vec<Slot> {
    let mut block: Vec<Slot> = IpFamily::BOTH
        .into_iter()
        .map(|family| {
            let mut settings = settings(config, family, host_cookie);
            if beside_rules {
                settings.flags |= settings_flags::HANDOVER;
            }
            Slot::from(settings)
        })
        .collect();
    block.push(Slot::from(SettingsPorts {
        ranges: masquerade_ports(ephemeral_ports()),
        reserved: [0; 6],
    }));
    block
}

fn settings(config: &Config, family: IpFamily, host_cookie: u64) -> Settings {
    let node = &config.node;
    let mut flags = 0;
    let by_device = matches!(
        node.detector,
        LocalDetector::Bridge(_) | LocalDetector::InterfacePrefix(_)
    );
    let (pods_bits, pods) = node
        .detector
        .cidr(family)
        .as_ref()
        .map_or((0, Address::ANY), range);
    for (flag, is_set) in [
        (
            settings_flags::PODS_BY_CIDR,
            node.detector.cidr(family).is_some(),
        ),
        (settings_flags::PODS_BY_DEVICE, by_device),
        (settings_flags::MASQUERADE_ALL, node.masquerade_all),
        (
            settings_flags::LOCALHOST_NODE_PORTS,
            accepts_localhost(config, family),
        ),
        (
            settings_flags::HOST_NAMESPACE_ONLY,
            config.host_namespace_only,
        ),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    Settings {
        pods,
        pods_bits,
        flags,
        host_cookie,
    }
}

fn accepts_localhost(config: &Config, family: IpFamily) -> bool {
    let loopback: IpAddr = match family {
        IpFamily::V4 => [127, 0, 0, 1].into(),
        IpFamily::V6 => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    let node = &config.node;
    node.localhost_node_ports && node.node_port_addresses.accepts(loopback, &node.ips)
}

fn ephemeral_ports() -> (u16, u16) {
    let text = std::fs::read_to_string(EPHEMERAL).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        _ => EPHEMERAL_DEFAULT,
    }
}

/// The ports beside those that the node's own connections start from and its node ports.
fn masquerade_ports(ephemeral: (u16, u16)) -> [PortRange; 2] {
    let low_end = ephemeral.0.min(NODE_PORTS.0).saturating_sub(1);
    let high_start = ephemeral.1.max(NODE_PORTS.1).saturating_add(1);
    [
        PortRange {
            first: LOWEST,
            last: low_end.max(LOWEST - 1),
        },
        PortRange {
            first: high_start.max(LOWEST),
            last: if ephemeral.1 == u16::MAX { 0 } else { u16::MAX },
        },
    ]
}

/// The node's own addresses and what they are good for. Loopback is known without a table.
pub(super) fn addresses(config: &Config) -> HashMap<Address, u32> {
    let node = &config.node;
    let addresses = config.local_addresses.iter().map(|(address, _)| address);
    addresses
        .filter(|address| !address.is_loopback())
        .map(|address| {
            let mut flags = address_flags::LOCAL;
            if node.node_port_addresses.accepts(address, &node.ips) {
                flags |= address_flags::NODE_PORTS;
            }
            (Address::from(address), flags)
        })
        .collect()
}

/// The devices, and the node's address on each. `beside_rules`: rules of another mode translate as
/// well.
pub(super) fn devices(config: &Config, beside_rules: bool) -> HashMap<u32, Device> {
    let devices = config.devices.iter();
    devices
        .map(|device| {
            let address = |family| masquerade_address(config, device.index, family);
            let has_pods = match &config.node.detector {
                LocalDetector::Cidrs { .. } => false,
                LocalDetector::Bridge(name) => *device.name == **name,
                LocalDetector::InterfacePrefix(prefix) => device.name.starts_with(&**prefix),
            };
            let mut flags = 0;
            for (flag, is_set) in [
                (device_flags::PODS, has_pods),
                (device_flags::PEER, device.has_far_peer),
                (device_flags::BRIDGE, device.is_plain_bridge),
                (device_flags::RULES, beside_rules),
            ] {
                if is_set {
                    flags |= flag;
                }
            }
            let device_facts = Device {
                masquerade_v4: address(IpFamily::V4),
                masquerade_v6: address(IpFamily::V6),
                flags,
                reserved: 0,
            };
            (device.index, device_facts)
        })
        .collect()
}

/// Whoever is behind a port of a bridge through which packets can be handed to it, past the bridge.
pub(super) fn stations(config: &Config) -> HashMap<StationKey, u32> {
    if config.forwarding != Forwarding::Direct {
        return HashMap::new();
    }
    let is_plain = |bridge| {
        let device = config.devices.get(bridge);
        device.is_some_and(|device| device.is_plain_bridge)
    };
    let reachable = config.stations.iter().filter(|(station, port)| {
        let port = config.devices.port(*port);
        port.is_some_and(|port| port.bridge == station.bridge) && is_plain(station.bridge)
    });
    let room = usize::try_from(limits::STATION_ENTRIES_MAX).unwrap_or(usize::MAX);
    reachable
        .map(|(station, port)| {
            let key = StationKey {
                bridge: station.bridge,
                mac: station.mac,
                reserved: 0,
            };
            (key, port)
        })
        .take(room)
        .collect()
}

/// As the kernel's masquerading: an address of the device itself, the node's own first; where
/// it has none, the node's address elsewhere.
fn masquerade_address(config: &Config, device: u32, family: IpFamily) -> Address {
    let usable: Vec<(IpAddr, u32)> = config
        .local_addresses
        .iter()
        .filter(|(address, info)| {
            IpFamily::of(*address) == family
                && info.scope == Scope::Global
                && !address.is_loopback()
        })
        .map(|(address, info)| (address, info.interface_index))
        .collect();
    let is_node_ip = |address: &IpAddr| config.node.ips.contains(address);
    let on_device = |(_, index): &&(IpAddr, u32)| *index == device;
    let first = usable
        .iter()
        .filter(on_device)
        .find(|(address, _)| is_node_ip(address))
        .or_else(|| usable.iter().find(on_device))
        .or_else(|| usable.iter().find(|(address, _)| is_node_ip(address)))
        .or_else(|| usable.first());
    first.map_or(Address::ANY, |(address, _)| Address::from(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_to_masquerade_with_are_nobody_elses() {
        let ranges = |ephemeral| masquerade_ports(ephemeral).map(|r| (r.first, r.last, r.len()));
        assert_eq!(
            ranges((32_768, 60_999)),
            [(1024, 29_999, 28_976), (61_000, 65_535, 4536)]
        );
        // All ports are ephemeral: nothing is left.
        assert_eq!(ranges((1024, 65_535)).map(|(_, _, count)| count), [0, 0]);
        assert_eq!(
            ranges((15_000, 60_999)).map(|(_, _, count)| count),
            [13_976, 4536]
        );
        assert_eq!(
            ranges((20_000, 25_000)).map(|(_, _, count)| count),
            [18_976, 32_768]
        );
    }
}
