//! The node's network devices, by rtnetlink: what they are, and when they change.
//!
//! Source: `RTM_GETLINK` and the group `RTNLGRP_LINK` of `linux/rtnetlink.h`; the attributes
//! are those of `linux/if_link.h`. Every supported kernel has them, and no privilege is
//! needed.

use std::collections::BTreeMap;

use netlink_packet_core::{DecodeError, NlasIterator, parse_string, parse_u16, parse_u32};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};

use crate::rtnetlink::{self, Listed, RtnetlinkError, Watch};

const RTNLGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
/// Says that the other end is elsewhere: the kernel gives it only then.
const IFLA_LINK_NETNSID: u16 = 37;
const VETH: &str = "veth";
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
/// The kind of master that leaves the devices below it their own traffic.
const VRF: &str = "vrf";

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
    /// Its other end is in another network namespace (veth).
    pub has_far_peer: bool,
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

/// All such devices at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices(BTreeMap<u32, Device>);

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
        self.0.values()
    }

    /// The device of an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Device> {
        self.0.get(&index)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Device> for Devices {
    fn from_iter<I: IntoIterator<Item = Device>>(devices: I) -> Self {
        Self(
            devices
                .into_iter()
                .map(|device| (device.index, device))
                .collect(),
        )
    }
}

impl Listed for Devices {
    const SUBJECT: &'static str = "the node's network devices";
    const GROUPS: &'static [u32] = &[RTNLGRP_LINK];

    fn request() -> RouteNetlinkMessage {
        let mut request = LinkMessage::default();
        let mask = vec![LinkExtentMask::SkipStats];
        request.attributes.push(LinkAttribute::ExtMask(mask));
        RouteNetlinkMessage::GetLink(request)
    }

    /// Reads the few attributes that are asked for and passes all others over: a kind of
    /// device that nobody here knows must not keep the others from being seen.
    fn take(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let field = |range| message.get(range).unwrap_or_default();
        if parse_u16(field(MESSAGE_TYPE))? != RTM_NEWLINK {
            return Ok(());
        }
        let flags = parse_u32(field(FLAGS))?;
        let link_layer = LinkLayer::of(parse_u16(field(LINK_LAYER))?);
        let index = parse_u32(field(INDEX))?;
        let attributes = Attributes::read(message.get(ATTRIBUTES_AT..).unwrap_or_default())?;
        if flags & IFF_LOOPBACK != 0 || attributes.is_port() {
            return Ok(());
        }
        let device = Device {
            index,
            name: attributes.name.into(),
            link_layer,
            is_up: flags & IFF_UP != 0,
            has_far_peer: attributes.is_veth && attributes.is_far,
        };
        self.0.insert(index, device);
        Ok(())
    }
}

/// What is read of a device's attributes.
#[derive(Default)]
struct Attributes {
    name: String,
    has_master: bool,
    /// The kind of master, where the kernel says it.
    port_kind: Option<String>,
    is_veth: bool,
    is_far: bool,
}

impl Attributes {
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut read = Self::default();
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            match attribute.kind() {
                IFLA_IFNAME => read.name = parse_string(attribute.value())?,
                IFLA_MASTER => read.has_master = parse_u32(attribute.value())? != 0,
                IFLA_LINK_NETNSID => read.is_far = true,
                IFLA_LINKINFO => {
                    for info in NlasIterator::new(attribute.value()) {
                        let info = info?;
                        match info.kind() {
                            IFLA_INFO_KIND => read.is_veth = parse_string(info.value())? == VETH,
                            IFLA_INFO_SLAVE_KIND => {
                                read.port_kind = Some(parse_string(info.value())?);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// A master takes all that its ports receive, unless it is a VRF.
    fn is_port(&self) -> bool {
        self.has_master && self.port_kind.as_deref() != Some(VRF)
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkMessage;
    use netlink_packet_route::link::{
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
