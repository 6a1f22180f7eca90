//! The packet in memory itself: its checksums change as the kernel's helpers change them.

use proptest::prelude::*;
use switchyard_datapath::rewrite::difference;
use switchyard_datapath::table::Bytes;
use switchyard_datapath::{Packet, Summed};

/// One's complement sum of 16-bit words, folded.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Bytes whose checksum at 0 is right.
fn summed(mut bytes: Vec<u8>) -> Bytes {
    bytes[..2].fill(0);
    let checksum = !sum(&bytes);
    bytes[..2].copy_from_slice(&checksum.to_be_bytes());
    Bytes::plain(bytes)
}

proptest! {
    #[test]
    fn replaced_values_keep_the_sum_whole(
        bytes in prop::collection::vec(any::<u8>(), 20),
        new: u32,
        words: [u32; 4],
        is_ip: bool,
    ) {
        let mut packet = summed(bytes);
        let [old] = packet.load_words::<1>(4).unwrap();
        let changed = if is_ip {
            packet.adjust_ip_checksum(0, difference(&[old], &[new]))
        } else {
            packet.adjust_checksum(0, difference(&[old], &[new]), Summed::AddressesV4, false)
        };
        prop_assert!(changed && packet.store_words(4, &[new]));
        prop_assert_eq!(sum(&packet.bytes), 0xffff);

        let old = u16::from_ne_bytes(packet.load(2).unwrap());
        let short = u16::from_ne_bytes(new.to_ne_bytes()[..2].try_into().unwrap());
        let change = difference(&[old.into()], &[short.into()]);
        prop_assert!(packet.adjust_checksum(0, change, Summed::Payload, false));
        prop_assert!(packet.store(2, &short.to_ne_bytes()));
        prop_assert_eq!(sum(&packet.bytes), 0xffff);

        let old = packet.load_words(4).unwrap();
        let change = difference(&old, &words);
        prop_assert!(packet.adjust_checksum(0, change, Summed::AddressesV6, false));
        prop_assert!(packet.store_words(4, &words));
        prop_assert_eq!(sum(&packet.bytes), 0xffff);
    }
}

#[test]
fn a_udp_checksum_of_zero_means_none() {
    let mut packet = Bytes::plain(vec![0; 20]);
    assert!(packet.adjust_checksum(0, difference(&[1], &[2]), Summed::Payload, true));
    assert!(packet.adjust_checksum(0, difference(&[1; 4], &[2; 4]), Summed::AddressesV6, true));
    assert_eq!(packet.bytes, [0; 20]);
    // One that comes out as zero is written as its other form; in TCP it may be zero.
    for (udp, expected) in [(true, [0xff, 0xff]), (false, [0, 0])] {
        let mut packet = Bytes::plain(vec![0xff, 0xfe, 0, 0]);
        let (old, new) = (0_u16.to_be(), 0xfffe_u16.to_be());
        let change = difference(&[u32::from(old)], &[u32::from(new)]);
        assert!(packet.adjust_checksum(0, change, Summed::Payload, udp));
        assert_eq!(packet.bytes[..2], expected);
    }
}

#[test]
fn while_the_device_is_to_sum_up_only_the_pseudo_header_counts() {
    let mut packet = summed((0..20).collect());
    packet.is_partial = true;
    let before = packet.clone();
    assert!(packet.adjust_checksum(0, difference(&[1], &[2]), Summed::Payload, false));
    assert_eq!(packet, before);
    let (old, new) = (u32::from(3_u16.to_be()), u32::from(5_u16.to_be()));
    let change = difference(&[old], &[new]);
    assert!(packet.adjust_checksum(0, change, Summed::AddressesV4, false));
    let [high, low] = packet.load(0).unwrap();
    let [old_high, old_low] = before.load(0).unwrap();
    let (new, old) = (
        u16::from_be_bytes([high, low]),
        u16::from_be_bytes([old_high, old_low]),
    );
    assert_eq!(new, old + 2);
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let mut packet = Bytes::plain(vec![1; 20]);
    let before = packet.clone();
    assert_eq!(packet.load::<4>(17), None);
    assert_eq!(packet.load::<4>(u32::MAX), None);
    assert_eq!(packet.load_words::<5>(4), None);
    assert_eq!(packet.load_words::<2>(u32::MAX - 3), None);
    assert!(!packet.store(17, &[0; 4]));
    assert!(!packet.store_words(8, &[0; 4]));
    for (at, why) in [
        (19, "odd"),
        (20, "behind the end"),
        (0x1_0000, "beyond the helpers"),
    ] {
        assert!(
            !packet.adjust_checksum(at, 1, Summed::Payload, false),
            "{why}"
        );
        assert!(!packet.adjust_ip_checksum(at, 1), "{why}");
    }
    assert_eq!(packet, before);
    assert_eq!((packet.len(), packet.is_empty()), (20, false));
}
