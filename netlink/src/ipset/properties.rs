//! What is written is read as it was, and what a kernel never says does no harm.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

use super::any_bytes::{TYPES, read_everything};
use super::codec;
use super::entry::{Entry, IpPort};
use super::set_type::SetType;
use crate::messages::{any_attributes, damaged};
use crate::protocol::Protocol;
use crate::writer::Writer;

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn any_entry() -> impl Strategy<Value = (SetType, Entry)> {
    let parts = (
        (any_ip(), select(&Protocol::ALL[..]), any::<u16>()),
        any_ip(),
        0_u8..=128,
    );
    (select(&TYPES[..]), parts).prop_map(
        |(set_type, ((address, protocol, port), second, prefix))| {
            let ip_port = IpPort {
                address,
                protocol,
                port,
            };
            let longest = IpNet::from(second).prefix_len();
            let net = IpNet::new(second, prefix.min(longest)).unwrap();
            let entry = match set_type {
                SetType::HashIp => Entry::Ip(address),
                SetType::HashIpPort => Entry::IpPort(ip_port),
                SetType::HashIpPortIp => Entry::IpPortIp(ip_port, second),
                SetType::HashIpPortNet => Entry::IpPortNet(ip_port, net),
                SetType::BitmapPort { .. } => Entry::Port(port),
            };
            (set_type, entry)
        },
    )
}

fn written(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new();
    codec::write_change(&mut writer, "S", entries, 0);
    writer.bytes().unwrap().to_vec()
}

proptest! {
    #[test]
    fn an_element_is_read_as_it_was_written((set_type, entry) in any_entry()) {
        let mut entries = Vec::new();
        let read = codec::read_entries(&written(&[entry, entry]), set_type, &mut entries);
        prop_assert_eq!((read, entries), (Ok(()), vec![entry, entry]));
    }

    #[test]
    fn whatever_comes_is_read_or_refused(bytes in any_attributes()) {
        read_everything(&bytes);
    }

    #[test]
    fn a_damaged_listing_is_read_or_refused(
        bytes in any_entry().prop_flat_map(|(_, entry)| damaged(written(&[entry, entry])))
    ) {
        read_everything(&bytes);
    }
}
