//! The forwarding databases of the node's bridges, by rtnetlink: which link-layer address is
//! behind which port, and when that changes.
//!
//! Source: `RTM_GETNEIGH` with the family `AF_BRIDGE` and the group `RTNLGRP_NEIGH` of
//! `linux/rtnetlink.h`; the attributes are those of `linux/neighbour.h`. Every supported kernel
//! has them, and no privilege is needed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use netlink_packet_core::{DecodeError, NlasIterator, parse_mac, parse_u16, parse_u32};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::rtnetlink::{self, Listed, RtnetlinkError, Watch};

/// How many stations are taken at most, over all bridges. A node has some hundred pods; more
/// is a bridge into a large network, or somebody who sends with many addresses.
pub const STATIONS_MAX: usize = 8192;

const RTNLGRP_NEIGH: u32 = 3;
const RTM_NEWNEIGH: u16 = 28;
const AF_BRIDGE: u8 = 7;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
/// The address is the bridge's own, or that of one of its ports.
const NUD_PERMANENT: u16 = 0x80;
/// An entry of the device's own list, not of a bridge's.
const NTF_SELF: u8 = 0x02;

/// Where `struct nlmsghdr` has the type of the message.
const MESSAGE_TYPE: std::ops::Range<usize> = 4..6;
/// Where the fields of `struct ndmsg` are, behind the message's header.
const FAMILY_AT: usize = 16;
const INDEX: std::ops::Range<usize> = 20..24;
const STATE: std::ops::Range<usize> = 24..26;
const FLAGS_AT: usize = 26;
const ATTRIBUTES_AT: usize = 28;
/// Bytes of an Ethernet address.
const MAC_BYTES: usize = 6;

/// One address at one bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station {
    /// The bridge's index.
    pub bridge: u32,
    /// The link-layer address.
    pub mac: [u8; MAC_BYTES],
}

/// All stations that the node's bridges know at one moment, and the port that each is behind:
/// learnt ones and ones that were entered as static, but neither the addresses of the bridges
/// and ports themselves nor entries of VLANs. At most [`STATIONS_MAX`] are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stations {
    ports: BTreeMap<Station, u32>,
    has_left_out: bool,
}

/// Follows what the node's bridges learn.
pub type StationWatch = Watch<Stations>;

impl Stations {
    /// Lists them now, for the network namespace of the calling thread. Blocks for the
    /// kernel's answer: with 250 ports about 100 KiB and a millisecond.
    ///
    /// # Errors
    /// [`RtnetlinkError`], if the kernel cannot be asked.
    pub fn list() -> Result<Self, RtnetlinkError> {
        rtnetlink::list()
    }

    /// The stations with the indices of their ports, by bridge.
    pub fn iter(&self) -> impl Iterator<Item = (Station, u32)> {
        self.ports.iter().map(|(station, port)| (*station, *port))
    }

    /// The index of the port that a station is behind.
    #[must_use]
    pub fn get(&self, station: Station) -> Option<u32> {
        self.ports.get(&station).copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// There were more than [`STATIONS_MAX`]: some are missing, no matter which.
    #[must_use]
    pub const fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    fn insert(&mut self, station: Station, port: u32) {
        let is_full = self.ports.len() >= STATIONS_MAX;
        match self.ports.entry(station) {
            Entry::Occupied(mut known) => *known.get_mut() = port,
            Entry::Vacant(_) if is_full => self.has_left_out = true,
            Entry::Vacant(new) => {
                new.insert(port);
            }
        }
    }
}

impl FromIterator<(Station, u32)> for Stations {
    fn from_iter<I: IntoIterator<Item = (Station, u32)>>(stations: I) -> Self {
        let mut all = Self::default();
        for (station, port) in stations {
            all.insert(station, port);
        }
        all
    }
}

impl Listed for Stations {
    const SUBJECT: &'static str = "the addresses behind the node's bridges";
    const GROUPS: &'static [u32] = &[RTNLGRP_NEIGH];

    fn request() -> RouteNetlinkMessage {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        RouteNetlinkMessage::GetNeighbour(request)
    }

    fn take(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let field = |range| message.get(range).unwrap_or_default();
        let is_new = parse_u16(field(MESSAGE_TYPE))? == RTM_NEWNEIGH;
        if !is_new || message.get(FAMILY_AT) != Some(&AF_BRIDGE) {
            return Ok(());
        }
        let port = parse_u32(field(INDEX))?;
        let state = parse_u16(field(STATE))?;
        let attributes = message.get(ATTRIBUTES_AT..);
        let (Some(flags), Some(attributes)) = (message.get(FLAGS_AT), attributes) else {
            return Err(DecodeError::buffer_too_small(message.len(), ATTRIBUTES_AT));
        };
        if state & NUD_PERMANENT != 0 || flags & NTF_SELF != 0 {
            return Ok(());
        }
        if let Some(station) = read_station(attributes)? {
            self.insert(station, port);
        }
        Ok(())
    }

    /// The group tells of every step of ARP and neighbour discovery as well: several in a
    /// minute for each pod, of which a bridge learns nothing.
    fn concerns(notice: &[u8]) -> bool {
        notice
            .get(FAMILY_AT)
            .is_none_or(|family| *family == AF_BRIDGE)
    }
}

/// The station of an entry, if it has an Ethernet address at a bridge and no VLAN.
fn read_station(attributes: &[u8]) -> Result<Option<Station>, DecodeError> {
    let (mut mac, mut bridge) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NDA_LLADDR if value.len() == MAC_BYTES => mac = Some(parse_mac(value)?),
            NDA_MASTER => bridge = Some(parse_u32(value)?),
            NDA_VLAN if parse_u16(value)? != 0 => return Ok(None),
            _ => {}
        }
    }
    Ok(mac.zip(bridge).map(|(mac, bridge)| Station { bridge, mac }))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkMessage;
    use netlink_packet_route::neighbour::{
        NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourState,
    };

    use super::*;
    use crate::rtnetlink::read_datagram;

    const BRIDGE: u32 = 9;

    fn station(last: u8) -> Station {
        let mac = [2, 0, 0, 0, 0, last];
        Station {
            bridge: BRIDGE,
            mac,
        }
    }

    fn attributes(last: u8) -> Vec<NeighbourAttribute> {
        vec![
            NeighbourAttribute::LinkLayerAddress(station(last).mac.to_vec()),
            NeighbourAttribute::Controller(BRIDGE),
        ]
    }

    /// As the kernel tells of an address that was learnt.
    fn learnt(port: u32, last: u8) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header = NeighbourHeader {
            family: AddressFamily::Bridge,
            ifindex: port,
            state: NeighbourState::Reachable,
            ..NeighbourHeader::default()
        };
        message.attributes = attributes(last);
        message
    }

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn read(messages: impl IntoIterator<Item = NeighbourMessage>) -> Stations {
        let mut stations = Stations::default();
        for message in messages {
            let bytes = bytes(RouteNetlinkMessage::NewNeighbour(message));
            assert!(!read_datagram(&bytes, &mut stations, &mut false).unwrap());
        }
        stations
    }

    #[test]
    fn asks_for_the_bridges_entries() {
        let bytes = bytes(Stations::request());
        assert_eq!(bytes.len(), ATTRIBUTES_AT); // what is longer the kernel takes for a filter
        assert_eq!(bytes[MESSAGE_TYPE], 30_u16.to_ne_bytes()); // RTM_GETNEIGH
        assert_eq!(bytes[FAMILY_AT], AF_BRIDGE);
    }

    #[test]
    fn learnt_aged_and_static_entries_are_taken() {
        let with_state = |port, last, state| {
            let mut message = learnt(port, last);
            message.header.state = state;
            message
        };
        let mut vlan_0 = learnt(6, 4);
        vlan_0.attributes.push(NeighbourAttribute::Vlan(0));
        let stations = read([
            learnt(3, 1),
            with_state(4, 2, NeighbourState::Stale),
            with_state(5, 3, NeighbourState::Noarp), // static
            vlan_0,
        ]);
        let expected = [(1, 3), (2, 4), (3, 5), (4, 6)].map(|(last, port)| (station(last), port));
        assert_eq!(stations.iter().collect::<Vec<_>>(), expected);
        assert_eq!(stations, expected.into_iter().collect());
        assert_eq!(stations.get(station(2)), Some(4));
        assert_eq!((stations.len(), stations.has_left_out()), (4, false));
        let elsewhere = Station {
            bridge: BRIDGE + 1,
            ..station(2)
        };
        assert_eq!(stations.get(elsewhere), None);
    }

    #[test]
    fn entries_of_others_are_left_out() {
        let changed = |change: fn(&mut NeighbourMessage)| {
            let mut message = learnt(3, 1);
            change(&mut message);
            read([message]).len()
        };
        assert_eq!(changed(|_| {}), 1);
        assert_eq!(
            changed(|message| message.header.state = NeighbourState::Permanent),
            0
        );
        assert_eq!(
            changed(|message| message.header.flags = NeighbourFlags::Own),
            0
        );
        assert_eq!(
            changed(|message| message.header.flags = NeighbourFlags::Controller),
            1
        );
        let vlan = |message: &mut NeighbourMessage| {
            message.attributes.push(NeighbourAttribute::Vlan(10));
        };
        assert_eq!(changed(vlan), 0);
        let ipv4 = |message: &mut NeighbourMessage| message.header.family = AddressFamily::Inet;
        assert_eq!(changed(ipv4), 0);
        let long = |message: &mut NeighbourMessage| {
            message.attributes[0] = NeighbourAttribute::LinkLayerAddress(vec![2; 20]);
        };
        assert_eq!(changed(long), 0);
        assert_eq!(changed(|message| message.attributes.truncate(1)), 0);
        let mut stations = Stations::default();
        let gone = bytes(RouteNetlinkMessage::DelNeighbour(learnt(3, 1)));
        read_datagram(&gone, &mut stations, &mut false).unwrap();
        assert!(stations.is_empty());
    }

    #[test]
    fn what_is_beyond_the_limit_is_left_out_and_said() {
        let many = |count: usize| {
            (0..count).map(|n| {
                let [a, b, c, d] = u32::try_from(n).unwrap().to_be_bytes();
                let mac = [2, 0, a, b, c, d];
                (Station { bridge: 1, mac }, 7)
            })
        };
        let all: Stations = many(STATIONS_MAX).collect();
        assert_eq!((all.len(), all.has_left_out()), (STATIONS_MAX, false));
        // One that is known already takes no room.
        let again: Stations = many(STATIONS_MAX).chain(many(1)).collect();
        assert!(again == all);
        let some: Stations = many(STATIONS_MAX + 1).collect();
        assert_eq!((some.len(), some.has_left_out()), (STATIONS_MAX, true));
    }

    #[test]
    fn only_notices_of_bridges_are_a_reason_to_list() {
        let notice = |family| {
            let mut message = learnt(3, 1);
            message.header.family = family;
            bytes(RouteNetlinkMessage::DelNeighbour(message))
        };
        assert!(Stations::concerns(&notice(AddressFamily::Bridge)));
        assert!(!Stations::concerns(&notice(AddressFamily::Inet)));
        assert!(!Stations::concerns(&notice(AddressFamily::Inet6)));
        assert!(Stations::concerns(
            &notice(AddressFamily::Inet)[..FAMILY_AT]
        ));
    }

    #[test]
    fn a_cut_off_answer_is_an_error() {
        let mut bytes = bytes(RouteNetlinkMessage::NewNeighbour(learnt(3, 1)));
        bytes[ATTRIBUTES_AT] = 200; // the length of the first attribute
        let result = read_datagram(&bytes, &mut Stations::default(), &mut false);
        assert!(matches!(result, Err(RtnetlinkError::Malformed { .. })));
        for length in [FAMILY_AT + 1, STATE.end, FLAGS_AT + 1] {
            let mut short = bytes[..length].to_vec();
            short[0] = u8::try_from(length).unwrap();
            let result = read_datagram(&short, &mut Stations::default(), &mut false);
            assert!(
                matches!(result, Err(RtnetlinkError::Malformed { .. })),
                "{length}"
            );
        }
    }
}
