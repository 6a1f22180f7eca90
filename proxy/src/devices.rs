//! The node's network devices, by rtnetlink: what they are, and when they change.
//!
//! Source: `RTM_GETLINK` and the groups `RTNLGRP_LINK` and `RTNLGRP_TC` (queues) of
//! `linux/rtnetlink.h`; the attributes are those of `linux/if_link.h`. Every supported kernel has them, and no privilege is
//! needed.

mod attributes;

use std::collections::BTreeMap;

use netlink_packet_core::{DecodeError, parse_u16, parse_u32};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};

use self::attributes::Attributes;
use crate::rtnetlink::{self, Listed, RtnetlinkError, Watch};

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;
const RTM_NEWLINK: u16 = 16;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;

/// Where `struct nlmsghdr` has the type of the message.
const MESSAGE_TYPE: std::ops::Range<usize> = 4..6;
/// Where the fields of `struct ifinfomsg` are, behind the message's header.
const LINK_LAYER: std::ops::Range<usize> = 18..20;
const INDEX: std::ops::Range<usize> = 20..24;
const FLAGS: std::ops::Range<usize> = 24..28;
const ATTRIBUTES_AT: usize = 32;

/// One network device that has traffic of its own: neither loopback nor a port of a bridge,
/// bond, team or Open vSwitch, whose traffic is its master's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: Box<str>,
    /// What packets begin with.
    pub link_layer: LinkLayer,
    /// It was set up (IFF_UP); whether it has a carrier is another question.
    pub is_up: bool,
    /// Its other end is in another network namespace (veth), and no queue is before it, where somebody
    /// might limit what is sent there.
    pub has_far_peer: bool,
    /// It is a bridge that sends by addresses alone, and at once: one that does not look at VLANs,
    /// without a queue.
    pub is_plain_bridge: bool,
}

/// A port of a bridge through which packets get to a pod: a veth that is set up, without a queue,
/// whose other end is in another network namespace, and to which the bridge sends (it is not held back by
/// the spanning tree, and has a carrier).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index.
    pub index: u32,
    /// The bridge's index.
    pub bridge: u32,
}

/// What packets of a device begin with (`ARPHRD_*` of `linux/if_arp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// The IP header: tunnels, WireGuard, TUN, PPP.
    Ip,
    /// Something else, such as InfiniBand's header.
    Other(u16),
}

impl LinkLayer {
    /// From the number that the kernel gives the kind.
    #[must_use]
    pub const fn of(arphrd: u16) -> Self {
        match arphrd {
            1 => Self::Ethernet, // ARPHRD_ETHER
            512 // ARPHRD_PPP
            | 519 // ARPHRD_RAWIP
            | 768 // ARPHRD_TUNNEL
            | 769 // ARPHRD_TUNNEL6
            | 776 // ARPHRD_SIT
            | 778 // ARPHRD_IPGRE
            | 823 // ARPHRD_IP6GRE
            | 0xfffe // ARPHRD_NONE
            => Self::Ip,
            other => Self::Other(other),
        }
    }
}

/// All such devices at one moment; and, apart from them, ports of bridges that lead to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    devices: BTreeMap<u32, Device>,
    ports: BTreeMap<u32, Port>,
}

/// Follows the node's devices.
pub type DeviceWatch = Watch<Devices>;

impl Devices {
    /// Lists them now, for the network namespace of the calling thread. Blocks for the
    /// kernel's answer, normally less than a millisecond.
    ///
    /// # Errors
    /// [`RtnetlinkError`], if the kernel cannot be asked.
    pub fn list() -> Result<Self, RtnetlinkError> {
        rtnetlink::list()
    }

    /// The devices, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The device of an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Device> {
        self.devices.get(&index)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The ports, by index. None of them is among the devices.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        self.ports.values().copied()
    }

    /// The port of an index.
    #[must_use]
    pub fn port(&self, index: u32) -> Option<Port> {
        self.ports.get(&index).copied()
    }

    /// The same devices, and these ports beside those that there are.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = Port>) -> Self {
        self.ports
            .extend(ports.into_iter().map(|port| (port.index, port)));
        self
    }
}

impl FromIterator<Device> for Devices {
    fn from_iter<I: IntoIterator<Item = Device>>(devices: I) -> Self {
        Self {
            devices: devices
                .into_iter()
                .map(|device| (device.index, device))
                .collect(),
            ports: BTreeMap::new(),
        }
    }
}

impl Listed for Devices {
    const SUBJECT: &'static str = "the node's network devices";
    const GROUPS: &'static [u32] = &[RTNLGRP_LINK, RTNLGRP_TC];

    fn request() -> RouteNetlinkMessage {
        let mut request = LinkMessage::default();
        let mask = vec![LinkExtentMask::SkipStats];
        request.attributes.push(LinkAttribute::ExtMask(mask));
        RouteNetlinkMessage::GetLink(request)
    }

    fn take(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let field = |range| message.get(range).unwrap_or_default();
        if parse_u16(field(MESSAGE_TYPE))? != RTM_NEWLINK {
            return Ok(());
        }
        let flags = parse_u32(field(FLAGS))?;
        let link_layer = LinkLayer::of(parse_u16(field(LINK_LAYER))?);
        let index = parse_u32(field(INDEX))?;
        let attributes = Attributes::read(message.get(ATTRIBUTES_AT..).unwrap_or_default())?;
        let is_up = flags & IFF_UP != 0;
        if flags & IFF_LOOPBACK != 0 {
            return Ok(());
        }
        if attributes.is_port() {
            if is_up && attributes.has_far_peer() && attributes.is_forwarding_bridge_port() {
                let bridge = attributes.master;
                self.ports.insert(index, Port { index, bridge });
            }
            return Ok(());
        }
        let device = Device {
            index,
            link_layer,
            is_up,
            has_far_peer: attributes.has_far_peer(),
            is_plain_bridge: attributes.is_plain_bridge(),
            name: attributes.name.into(),
        };
        self.devices.insert(index, device);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkMessage;
    use netlink_packet_route::link::{
        BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData,
        InfoPortKind, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    };

    use super::*;
    use crate::rtnetlink::read_datagram;

    fn message(index: u32, kind: u16, flags: u32, attributes: Vec<LinkAttribute>) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.link_layer_type = LinkLayerType::from(kind);
        link.header.flags = LinkFlags::from_bits_retain(flags);
        link.attributes = attributes;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn name(text: &str) -> LinkAttribute {
        LinkAttribute::IfName(text.to_owned())
    }

    fn below(kind: InfoPortKind) -> Vec<LinkAttribute> {
        let kind = LinkInfo::PortKind(kind);
        vec![
            LinkAttribute::Controller(9),
            LinkAttribute::LinkInfo(vec![kind]),
        ]
    }

    #[test]
    fn loopback_and_ports_are_left_out() {
        let mut bytes = message(1, 772, IFF_UP | IFF_LOOPBACK, vec![name("lo")]);
        bytes.extend(message(2, 1, IFF_UP, vec![name("eth0")]));
        bytes.extend(message(3, 0xfffe, 0, vec![name("wg0")]));
        bytes.extend(message(4, 1, IFF_UP, below(InfoPortKind::Bridge)));
        bytes.extend(message(5, 1, IFF_UP, below(InfoPortKind::Bond)));
        bytes.extend(message(6, 32, IFF_UP, below(InfoPortKind::Vrf)));
        let unknown = InfoPortKind::Other("openvswitch".to_owned());
        bytes.extend(message(7, 1, IFF_UP, below(unknown)));
        bytes.extend(message(8, 1, IFF_UP, vec![LinkAttribute::Controller(9)]));
        let (mut devices, mut interrupted) = (Devices::default(), false);
        assert!(!read_datagram(&bytes, &mut devices, &mut interrupted).unwrap());
        let device = |index, name: &str, link_layer, is_up| Device {
            index,
            name: name.into(),
            link_layer,
            is_up,
            has_far_peer: false,
            is_plain_bridge: false,
        };
        let expected: Devices = [
            device(2, "eth0", LinkLayer::Ethernet, true),
            device(3, "wg0", LinkLayer::Ip, false),
            device(6, "", LinkLayer::Other(32), true),
        ]
        .into_iter()
        .collect();
        assert_eq!(devices, expected);
        assert_eq!(devices.get(3).map(|device| &*device.name), Some("wg0"));
    }

    fn read(bytes: &[u8]) -> Devices {
        let mut devices = Devices::default();
        assert!(!read_datagram(bytes, &mut devices, &mut false).unwrap());
        devices
    }

    #[test]
    fn only_a_bridge_without_vlans_is_a_plain_one() {
        let is_plain = |kind, data: Option<InfoData>| {
            let mut info = vec![LinkInfo::Kind(kind)];
            info.extend(data.map(LinkInfo::Data));
            let bytes = message(5, 1, IFF_UP, vec![LinkAttribute::LinkInfo(info)]);
            read(&bytes).get(5).unwrap().is_plain_bridge
        };
        let vlans = |filtering| {
            let others = [InfoBridge::AgeingTime(30_000), InfoBridge::Priority(0)];
            let data = others
                .into_iter()
                .chain([InfoBridge::VlanFiltering(filtering)]);
            Some(InfoData::Bridge(data.collect()))
        };
        assert!(is_plain(InfoKind::Bridge, vlans(false)));
        assert!(!is_plain(InfoKind::Bridge, vlans(true)));
        assert!(!is_plain(InfoKind::Bridge, None));
        // What attribute 7 is of another kind of device is that kind's business.
        assert!(!is_plain(InfoKind::Vxlan, vlans(false)));
    }

    /// A port as the kernel tells of one that leads to a pod.
    fn port() -> Vec<LinkAttribute> {
        let state = InfoBridgePort::State(BridgePortState::Forwarding);
        let data = vec![InfoBridgePort::Priority(32), state];
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(data)),
        ];
        vec![
            name("veth0"),
            LinkAttribute::Controller(9),
            LinkAttribute::LinkNetNsId(0),
            LinkAttribute::LinkInfo(info),
        ]
    }

    #[test]
    fn a_port_to_a_pod_is_known_but_no_device() {
        let mut bytes = message(2, 1, IFF_UP, vec![name("eth0")]);
        bytes.extend(message(6, 1, IFF_UP, port()));
        let devices = read(&bytes);
        let port = Port {
            index: 6,
            bridge: 9,
        };
        assert_eq!(devices.ports().collect::<Vec<_>>(), [port]);
        assert_eq!((devices.port(6), devices.port(2)), (Some(port), None));
        assert_eq!(devices.len(), 1);
        assert!(devices.get(6).is_none());
        // Its coming is news.
        let without = read(&message(2, 1, IFF_UP, vec![name("eth0")]));
        assert_ne!(devices, without);
        assert_eq!(devices, without.with_ports([port]));
    }

    #[test]
    fn ports_that_lead_to_no_pod_are_left_out() {
        let ports = |flags, attributes| read(&message(6, 1, flags, attributes)).ports().count();
        assert_eq!(ports(IFF_UP, port()), 1);
        assert_eq!(ports(0, port()), 0, "not set up");
        let without = |skipped: usize| {
            let mut attributes = port();
            attributes.remove(skipped);
            attributes
        };
        assert_eq!(ports(IFF_UP, without(1)), 0, "no port any more");
        assert_eq!(ports(IFF_UP, without(2)), 0, "the other end is here");
        let with = |place: usize, changed: LinkInfo| {
            let mut attributes = port();
            if let Some(LinkAttribute::LinkInfo(info)) = attributes.last_mut() {
                info[place] = changed;
            }
            attributes
        };
        let tun = with(0, LinkInfo::Kind(InfoKind::Tun));
        assert_eq!(ports(IFF_UP, tun), 0, "no veth");
        let bond = with(1, LinkInfo::PortKind(InfoPortKind::Bond));
        assert_eq!(
            ports(IFF_UP, bond),
            0,
            "attribute 1 of a bond's port is no state"
        );
        for state in [BridgePortState::Blocking, BridgePortState::Disabled] {
            let data = InfoPortData::BridgePort(vec![InfoBridgePort::State(state)]);
            let held_back = with(2, LinkInfo::PortData(data));
            assert_eq!(ports(IFF_UP, held_back), 0, "{state:?}");
        }
        let silent = with(2, LinkInfo::PortData(InfoPortData::BridgePort(Vec::new())));
        assert_eq!(ports(IFF_UP, silent), 0, "state not said");
        let queued = |kind: &str| {
            let mut attributes = port();
            attributes.insert(0, LinkAttribute::Qdisc(kind.to_owned()));
            attributes
        };
        assert_eq!(ports(IFF_UP, queued("noqueue")), 1);
        assert_eq!(ports(IFF_UP, queued("tbf")), 0, "somebody's limit");
    }

    #[test]
    fn a_cut_off_answer_is_an_error() {
        let mut bytes = message(2, 1, IFF_UP, vec![name("eth0")]);
        bytes[32] = 200; // the length of the first attribute
        let result = read_datagram(&bytes, &mut Devices::default(), &mut false);
        assert!(matches!(result, Err(RtnetlinkError::Malformed { .. })));
        let result = read_datagram(&bytes[..18], &mut Devices::default(), &mut false);
        assert!(matches!(result, Err(RtnetlinkError::Malformed { .. })));
    }
}
