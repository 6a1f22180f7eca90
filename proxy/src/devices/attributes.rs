//! What is read of a device's attributes.
//!
//! Only what is asked for: a kind of device that nobody here knows must not keep the others
//! from being seen.

use netlink_packet_core::{DecodeError, NlasIterator, parse_string, parse_u8, parse_u32};

const IFLA_IFNAME: u16 = 3;
const IFLA_QDISC: u16 = 6;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
/// Says that the other end is elsewhere: the kernel gives it only then.
const IFLA_LINK_NETNSID: u16 = 37;
/// Of a bridge's data.
const IFLA_BR_VLAN_FILTERING: u16 = 7;
/// Of the data of a bridge's port.
const IFLA_BRPORT_STATE: u16 = 1;
const BR_STATE_FORWARDING: u8 = 3;
/// Queues that nothing waits in: a virtual device's own, and that of one that is down.
const NO_QUEUES: [&str; 2] = ["noqueue", "noop"];
const VETH: &str = "veth";
const BRIDGE: &str = "bridge";
/// The kind of master that leaves the devices below it their own traffic.
const VRF: &str = "vrf";

/// What the attributes of one device say.
#[derive(Default)]
pub(super) struct Attributes {
    /// Its name.
    pub(super) name: String,
    /// The index of its master, or 0.
    pub(super) master: u32,
    is_far: bool,
    /// What goes out waits in a queue, where somebody may limit it.
    is_queued: bool,
    info: Info,
}

impl Attributes {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut read = Self::default();
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            match attribute.kind() {
                IFLA_IFNAME => read.name = parse_string(attribute.value())?,
                IFLA_QDISC => {
                    let kind = parse_string(attribute.value())?;
                    read.is_queued = !NO_QUEUES.contains(&&*kind);
                }
                IFLA_MASTER => read.master = parse_u32(attribute.value())?,
                IFLA_LINK_NETNSID => read.is_far = true,
                IFLA_LINKINFO => read.info = Info::read(attribute.value())?,
                _ => {}
            }
        }
        Ok(read)
    }

    /// A master takes all that its ports receive, unless it is a VRF.
    pub(super) fn is_port(&self) -> bool {
        self.master != 0 && self.info.port_kind.as_deref() != Some(VRF)
    }

    /// It is a veth whose other end is in another network namespace, and gets at once what is sent.
    pub(super) fn has_far_peer(&self) -> bool {
        self.is_far && self.info.kind == VETH && !self.is_queued
    }

    /// It is a bridge that sends by addresses alone, and at once.
    pub(super) fn is_plain_bridge(&self) -> bool {
        self.info.kind == BRIDGE && self.info.vlan_filtering == Some(0) && !self.is_queued
    }

    /// It is a port to which its bridge sends.
    pub(super) fn is_forwarding_bridge_port(&self) -> bool {
        self.master != 0
            && self.info.port_kind.as_deref() == Some(BRIDGE)
            && self.info.port_state == Some(BR_STATE_FORWARDING)
    }
}

/// What is said of the kind of device. What the data's attributes mean depends on the kind, and
/// so is for those to judge that know it: read they are only with the kind that they belong to.
#[derive(Default)]
struct Info {
    kind: String,
    /// Of a bridge.
    vlan_filtering: Option<u8>,
    /// The kind of master, where the kernel says it.
    port_kind: Option<String>,
    /// Of a bridge's port.
    port_state: Option<u8>,
}

impl Info {
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut read = Self::default();
        let (mut data, mut port_data) = (None, None);
        for info in NlasIterator::new(bytes) {
            let info = info?;
            match info.kind() {
                IFLA_INFO_KIND => read.kind = parse_string(info.value())?,
                IFLA_INFO_DATA => data = Some(info),
                IFLA_INFO_SLAVE_KIND => read.port_kind = Some(parse_string(info.value())?),
                IFLA_INFO_SLAVE_DATA => port_data = Some(info),
                _ => {}
            }
        }
        if let Some(data) = data.filter(|_| read.kind == BRIDGE) {
            read.vlan_filtering = byte(data.value(), IFLA_BR_VLAN_FILTERING)?;
        }
        if let Some(data) = port_data.filter(|_| read.port_kind.as_deref() == Some(BRIDGE)) {
            read.port_state = byte(data.value(), IFLA_BRPORT_STATE)?;
        }
        Ok(read)
    }
}

/// The attribute of this kind among others, if it is there.
fn byte(bytes: &[u8], kind: u16) -> Result<Option<u8>, DecodeError> {
    for attribute in NlasIterator::new(bytes) {
        let attribute = attribute?;
        if attribute.kind() == kind {
            return parse_u8(attribute.value()).map(Some);
        }
    }
    Ok(None)
}
