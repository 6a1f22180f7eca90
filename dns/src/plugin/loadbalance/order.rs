//! The order of decoded records.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::wire::{Record, Rtype};

/// The address of an A or AAAA record.
pub(super) fn address(record: &Record) -> Option<IpAddr> {
    let data = record.data.as_slice();
    match record.rtype {
        Rtype::A => <[u8; 4]>::try_from(data)
            .ok()
            .map(Ipv4Addr::from)
            .map(IpAddr::V4),
        Rtype::AAAA => <[u8; 16]>::try_from(data)
            .ok()
            .map(Ipv6Addr::from)
            .map(IpAddr::V6),
        _ => None,
    }
}

const fn rank(rtype: Rtype) -> u8 {
    match rtype {
        Rtype::CNAME => 0,
        Rtype::A | Rtype::AAAA => 2,
        Rtype::MX => 3,
        _ => 1,
    }
}

/// Puts CNAMEs first, then others, then addresses, then MX; then has `addresses` and
/// `exchangers` order theirs.
pub(super) fn arrange(
    records: &mut [Record],
    addresses: impl FnOnce(&mut [Record]),
    exchangers: impl FnOnce(&mut [Record]),
) {
    records.sort_by_key(|record| rank(record.rtype));
    let first = |least| {
        let found = records
            .iter()
            .position(|record| rank(record.rtype) >= least);
        found.unwrap_or(records.len())
    };
    let (from, to) = (first(2), first(3));
    let (head, tail) = records.split_at_mut(to);
    addresses(head.get_mut(from..).unwrap_or_default());
    exchangers(tail);
}

/// Addresses in `networks` first, each part in the order it had; everything else stays.
pub(super) fn prefer(records: &mut [Record], networks: &[IpNet]) {
    arrange(
        records,
        |addresses| {
            addresses.sort_by_key(|record| {
                let address = address(record);
                let within = |network: &IpNet| address.is_some_and(|it| network.contains(&it));
                !networks.iter().any(within)
            });
        },
        |_| {},
    );
}
