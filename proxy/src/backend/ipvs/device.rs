//! The dummy device that has all VIPs, so that the kernel takes packets to them for its own.
//!
//! It stays down and answers no ARP: only its addresses count, for which the kernel has local
//! routes all the same. Needs the module `dummy` (Linux 2.6), which the kernel loads when it is
//! asked for the device.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use nix::net::if_::if_nametoindex;
use switchyard_cluster::object::IpFamily;

use super::error::IpvsModeError;
use crate::rtnetlink::{self, Listed};

/// The reference's name of it.
pub(super) const NAME: &str = "kube-ipvs0";

/// The device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    index: u32,
}

/// Addresses of one family.
#[derive(Debug, Default)]
pub(super) struct HeldAddresses {
    /// On our device.
    pub(super) ours: BTreeSet<IpAddr>,
    /// On others. An address may be here as well.
    pub(super) elsewhere: HashSet<IpAddr>,
}

/// The index of the device, if it is there.
#[must_use]
pub fn device_index() -> Option<u32> {
    if_nametoindex(NAME).ok()
}

impl Device {
    /// The device, if it is there.
    ///
    /// # Errors
    /// One of that name is no dummy device.
    pub(super) fn find() -> Result<Option<Self>, IpvsModeError> {
        let Some(index) = device_index() else {
            return Ok(None);
        };
        let links: Links = rtnetlink::list()?;
        match links.0.into_iter().find(|(of, _)| *of == index) {
            None => Ok(None),
            Some((_, true)) => Ok(Some(Self { index })),
            Some((_, false)) => Err(IpvsModeError::OtherDevice),
        }
    }

    /// The device, made if it is not there; true if it was.
    ///
    /// # Errors
    /// As [`Self::find`]; the kernel has no dummy devices.
    pub(super) fn ensure() -> Result<(Self, bool), IpvsModeError> {
        if let Some(device) = Self::find()? {
            return Ok((device, false));
        }
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Noarp;
        link.header.change_mask = LinkFlags::Noarp;
        link.attributes = vec![
            LinkAttribute::IfName(NAME.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]),
        ];
        let requests = [RouteNetlinkMessage::NewLink(link)];
        let refused = rtnetlink::change(NAME, &requests, NLM_F_CREATE | NLM_F_EXCL)?;
        let refused = refused
            .into_iter()
            .map(|refused| refused.error)
            .find(|error| error.kind() != io::ErrorKind::AlreadyExists);
        if let Some(error) = refused {
            return Err(IpvsModeError::NoDevice(error));
        }
        let gone = || IpvsModeError::NoDevice(io::Error::from_raw_os_error(libc::ENODEV));
        let index = device_index().ok_or_else(gone)?;
        Ok((Self { index }, true))
    }

    /// The addresses of one family on it, and those on other devices. What the kernel gives by
    /// itself (fe80::) is not ours.
    pub(super) fn addresses(self, family: IpFamily) -> Result<HeldAddresses, IpvsModeError> {
        let all: Addresses = rtnetlink::list()?;
        let mut held = HeldAddresses::default();
        for (index, address, scope) in all.0 {
            if IpFamily::of(address) != family {
                continue;
            }
            if index != self.index {
                held.elsewhere.insert(address);
            } else if scope != AddressScope::Link {
                held.ours.insert(address);
            }
        }
        Ok(held)
    }

    /// Adds addresses; those that are there are fine.
    pub(super) fn add(self, addresses: &[IpAddr]) -> Result<(), IpvsModeError> {
        let messages: Vec<_> = addresses
            .iter()
            .map(|address| RouteNetlinkMessage::NewAddress(self.message(*address)))
            .collect();
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change(addresses, &messages, flags, libc::EEXIST)
    }

    /// Removes addresses; those that are not there are fine.
    pub(super) fn remove(self, addresses: &[IpAddr]) -> Result<(), IpvsModeError> {
        let messages: Vec<_> = addresses
            .iter()
            .map(|address| RouteNetlinkMessage::DelAddress(self.message(*address)))
            .collect();
        self.change(addresses, &messages, 0, libc::EADDRNOTAVAIL)
    }

    /// Removes the device with its addresses.
    pub(super) fn delete(self) -> Result<(), IpvsModeError> {
        let mut link = LinkMessage::default();
        link.header.index = self.index;
        let refused = rtnetlink::change(NAME, &[RouteNetlinkMessage::DelLink(link)], 0)?;
        match refused.into_iter().next() {
            None => Ok(()),
            Some(refused) => Err(IpvsModeError::NoDevice(refused.error)),
        }
    }

    fn change(
        self,
        addresses: &[IpAddr],
        messages: &[RouteNetlinkMessage],
        flags: u16,
        fine: i32,
    ) -> Result<(), IpvsModeError> {
        let refused = rtnetlink::change("the addresses of kube-ipvs0", messages, flags)?;
        let refused = refused
            .into_iter()
            .find(|refused| refused.error.raw_os_error() != Some(fine));
        let Some(refused) = refused else {
            return Ok(());
        };
        Err(IpvsModeError::Address {
            address: addresses.get(refused.index).copied(),
            source: refused.error,
        })
    }

    fn message(self, address: IpAddr) -> AddressMessage {
        let mut message = AddressMessage::default();
        let (family, prefix_len) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.family = family;
        message.header.prefix_len = prefix_len;
        message.header.scope = AddressScope::Universe;
        message.header.index = self.index;
        if address.is_ipv6() {
            // It is on every node: asking whether somebody has it would find all of them.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
        ];
        message
    }
}

/// All addresses, each with its interface and scope.
#[derive(Debug, Default, PartialEq)]
struct Addresses(Vec<(u32, IpAddr, AddressScope)>);

impl Listed for Addresses {
    const SUBJECT: &'static str = "the addresses of kube-ipvs0";
    const GROUPS: &'static [u32] = &[];

    fn request() -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetAddress(AddressMessage::default())
    }

    fn take(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) =
            message.payload
        else {
            return Ok(());
        };
        let address = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
        if let Some(address) = address {
            let header = &message.header;
            self.0.push((header.index, address, header.scope));
        }
        Ok(())
    }
}

/// All links: index, and whether it is a dummy device.
#[derive(Debug, Default, PartialEq)]
struct Links(Vec<(u32, bool)>);

impl Listed for Links {
    const SUBJECT: &'static str = "the device kube-ipvs0";
    const GROUPS: &'static [u32] = &[];

    fn request() -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetLink(LinkMessage::default())
    }

    fn take(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) = message.payload
        else {
            return Ok(());
        };
        let is_dummy = message.attributes.iter().any(|attribute| {
            matches!(attribute, LinkAttribute::LinkInfo(infos)
                if infos.contains(&LinkInfo::Kind(InfoKind::Dummy)))
        });
        self.0.push((message.header.index, is_dummy));
        Ok(())
    }
}
