//! The node's own addresses, by rtnetlink: what they are, and when they change.
//!
//! Source: `RTM_GETADDR` and the groups `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR` of
//! `linux/rtnetlink.h`; every supported kernel has them, and no privilege is needed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::{DecodeError, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};

use crate::rtnetlink::{self, Listed, RtnetlinkError, Watch};

const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// What is known of one local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressInfo {
    /// Index of an interface that has it (the lowest, where several do).
    pub interface_index: u32,
    /// How far it is valid.
    pub scope: Scope,
}

/// How far an address is valid (`rt_scope_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere, or within the site.
    Global,
    /// On its link (169.254.0.0/16, fe80::/10).
    Link,
    /// On this machine only (127.0.0.1, ::1).
    Host,
}

/// All local addresses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses(BTreeMap<IpAddr, AddressInfo>);

impl LocalAddresses {
    /// Lists them now, for the network namespace of the calling thread. Blocks for the
    /// kernel's answer, normally less than a millisecond.
    ///
    /// # Errors
    /// [`RtnetlinkError`], if the kernel cannot be asked.
    pub fn list() -> Result<Self, RtnetlinkError> {
        rtnetlink::list()
    }

    /// Whether packets to this address are delivered on this machine: it is one of the
    /// addresses, or within 127.0.0.0/8, all of which is local.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.contains_key(&address)
    }

    /// The addresses, sorted, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &AddressInfo)> {
        self.0.iter().map(|(address, info)| (*address, info))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none, not even loopback.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, address: IpAddr, info: AddressInfo) {
        let known = self.0.entry(address).or_insert(info);
        if info.interface_index < known.interface_index {
            *known = info;
        }
    }
}

impl FromIterator<(IpAddr, AddressInfo)> for LocalAddresses {
    fn from_iter<I: IntoIterator<Item = (IpAddr, AddressInfo)>>(addresses: I) -> Self {
        let mut all = Self::default();
        for (address, info) in addresses {
            all.insert(address, info);
        }
        all
    }
}

/// Follows the node's addresses.
pub type AddressWatch = Watch<LocalAddresses>;

impl Listed for LocalAddresses {
    const SUBJECT: &'static str = "the node's addresses";
    const GROUPS: &'static [u32] = &[RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR];

    fn request() -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetAddress(AddressMessage::default())
    }

    fn take(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)?;
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) =
            message.payload
            && let Some((address, info)) = read_address(&message)
        {
            self.insert(address, info);
        }
        Ok(())
    }
}

fn read_address(message: &AddressMessage) -> Option<(IpAddr, AddressInfo)> {
    let (mut own, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    // On a point-to-point link "address" is the other end's; without a "local" it is ours.
    let address = own.or(other)?;
    let info = AddressInfo {
        interface_index: message.header.index,
        scope: match message.header.scope {
            AddressScope::Host => Scope::Host,
            AddressScope::Link => Scope::Link,
            _ => Scope::Global,
        },
    };
    Some((address, info))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtnetlink::read_datagram;

    fn message(attributes: Vec<AddressAttribute>, scope: AddressScope, index: u32) -> Vec<u8> {
        let mut address = AddressMessage::default();
        address.header.scope = scope;
        address.header.index = index;
        address.attributes = attributes;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewAddress(address));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_ipv4_ipv6_and_point_to_point_addresses() {
        use AddressAttribute::{Address, Local};
        let mut bytes = message(
            vec![Address(ip("10.0.0.2")), Local(ip("10.0.0.1"))],
            AddressScope::Universe,
            3,
        );
        bytes.extend(message(vec![Address(ip("fe80::1"))], AddressScope::Link, 4));
        bytes.extend(message(vec![Address(ip("fe80::1"))], AddressScope::Link, 2));
        bytes.extend(message(vec![Local(ip("127.0.0.1"))], AddressScope::Host, 1));
        let (mut addresses, mut interrupted) = (LocalAddresses::default(), false);
        assert!(!read_datagram(&bytes, &mut addresses, &mut interrupted).unwrap());
        assert!(!interrupted);
        let read: Vec<_> = addresses
            .iter()
            .map(|(address, info)| (address, *info))
            .collect();
        let info = |interface_index, scope| AddressInfo {
            interface_index,
            scope,
        };
        assert_eq!(
            read,
            [
                (ip("10.0.0.1"), info(3, Scope::Global)),
                (ip("127.0.0.1"), info(1, Scope::Host)),
                (ip("fe80::1"), info(2, Scope::Link)),
            ]
        );
    }

    #[test]
    fn all_of_127_is_local() {
        let addresses: LocalAddresses = [(
            ip("10.0.0.1"),
            AddressInfo {
                interface_index: 2,
                scope: Scope::Global,
            },
        )]
        .into_iter()
        .collect();
        assert!(addresses.contains(ip("127.9.9.9")) && addresses.contains(ip("10.0.0.1")));
        assert!(!addresses.contains(ip("10.0.0.2")));
    }

    #[test]
    fn a_cut_off_answer_is_an_error() {
        let bytes = message(vec![], AddressScope::Universe, 3);
        let result = read_datagram(&bytes[..18], &mut LocalAddresses::default(), &mut false);
        assert!(matches!(result, Err(RtnetlinkError::Malformed { .. })));
    }
}
