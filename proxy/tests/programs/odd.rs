//! Packets that are cut short, and packets with wrong bytes.

use std::io;

use switchyard_datapath::layout::{Hook, TCP, UDP};

use crate::packets::{ACK, Build, Read, SYN, icmp_error};
use crate::pair::{ETHERNET, Link, Pair, frame};
use crate::whole::world;
use crate::world::{FAMILIES, Family, World};

/// A port that is in the ranges of masquerading: it is kept.
const PORT: u16 = 20_030;
/// Changed packets of each family.
const CHANGED: usize = 3_000;
/// Bytes that are changed in one packet, at most.
const CHANGES_MAX: usize = 4;

/// Where the kernel may say that there is no such packet: before the end of the IP header.
fn may_be_refused(family: Family, length: usize) -> bool {
    length < if family == Family::V4 { 20 } else { 40 }
}

/// The kernel's answer to a frame; `None` if it does not take it.
fn meet(pair: &mut Pair, hook: Hook, frame: &[u8]) -> Option<Option<Vec<u8>>> {
    match pair.meet_frame(hook, frame) {
        Ok(out) => Some(out),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
            let family = pair.world.family;
            assert!(
                may_be_refused(family, frame.len() - ETHERNET),
                "{frame:02x?}"
            );
            None
        }
    }
}

fn forms(family: Family, protocol: u8) -> Vec<Build> {
    let plain = Build {
        tcp_flags: SYN,
        ..Build::new((family.outside(), PORT), (family.vip(), 80), protocol)
    };
    let long = Build {
        options: 2,
        extensions: vec![(0, 1), (60, 2)],
        ..plain.clone()
    };
    vec![plain, long]
}

/// Cut before what must be read, a packet is left alone; before its checksum, it is lost; in its
/// payload, it is translated as any other.
#[test]
fn cut_short() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            for build in forms(family, protocol) {
                let mut pair = Pair::new(world(family, protocol), Link::Ethernet);
                let whole = build.whole();
                let transport = Read::of(&whole).transport;
                let (read, checksum) = if protocol == TCP { (14, 18) } else { (4, 8) };
                let mut refused = 0;
                for length in 0..whole.len() {
                    let cut = frame(&whole)[..ETHERNET + length].to_vec();
                    let Some(out) = meet(&mut pair, Hook::Ingress, &cut) else {
                        refused += 1;
                        continue;
                    };
                    if length < transport + read {
                        assert_eq!(out.as_deref(), Some(&cut[..]), "{length} bytes");
                    } else if length < transport + checksum {
                        assert_eq!(out, None, "{length} bytes");
                    } else {
                        let out = out.unwrap();
                        let read = Read::of(&out[ETHERNET..]);
                        assert_eq!(read.destination, (family.endpoint(1), 8080));
                        assert_eq!(
                            out[ETHERNET + transport + checksum..],
                            cut[ETHERNET + transport + checksum..]
                        );
                    }
                    // Nothing that goes out meets an entry, but the endpoint's answers.
                    let out = meet(&mut pair, Hook::Egress, &cut).unwrap();
                    assert_eq!(out.as_deref(), Some(&cut[..]), "{length} bytes");
                }
                println!("{family:?}: the kernel itself refused {refused} lengths");
                pair.assert_same_flows();
            }
        }
    }
}

/// Errors cut anywhere: what the data path in memory makes of them is what the kernel makes.
#[test]
fn errors_cut_short() {
    for family in FAMILIES {
        let mut pair = Pair::new(world(family, UDP), Link::Ethernet);
        let build = forms(family, UDP).remove(0);
        let out = pair.through(&build.whole()).unwrap();
        let kind = if family == Family::V4 { 3 } else { 1 };
        let error = frame(&icmp_error(family.endpoint(1), family.node(), kind, &out));
        for length in ETHERNET..error.len() {
            for hook in [Hook::Ingress, Hook::Egress] {
                drop(meet(&mut pair, hook, &error[..length]));
            }
        }
    }
}

/// Bytes changed at random places of packets of all kinds. The seed of a failure is shown.
#[test]
fn with_wrong_bytes() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for family in FAMILIES {
        let mut pair = Pair::new(one_port(family), Link::Ethernet);
        let samples = samples(family);
        for _ in 0..CHANGED {
            let Some(sample) = random.choice(&samples) else {
                continue;
            };
            let mut packet = sample.clone();
            for _ in 0..random.usize(0..=CHANGES_MAX) {
                let at = random.usize(..packet.len());
                packet[at] = match random.u8(0..4) {
                    0 => 0,
                    1 => 0xff,
                    2 => packet[at] ^ (1 << random.u8(0..8)),
                    _ => random.u8(..),
                };
            }
            let length = match random.u8(0..4) {
                0 => random.usize(ETHERNET..=packet.len()),
                _ => packet.len(),
            };
            let hook = random
                .choice([Hook::Ingress, Hook::Egress])
                .unwrap_or(Hook::Ingress);
            // The comparison is in the pair.
            drop(meet(&mut pair, hook, &packet[..length]));
        }
        pair.assert_same_flows();
    }
}

/// One port to masquerade with: nothing is left to chance.
fn one_port(family: Family) -> World {
    let mut world = world(family, TCP);
    world.set_ports([(PORT, PORT), (1, 0)]);
    world
}

fn samples(family: Family) -> Vec<Vec<u8>> {
    let (vip, endpoint) = ((family.vip(), 80), (family.endpoint(1), 8080));
    let (client, node) = ((family.outside(), PORT), (family.node(), PORT));
    let mut samples = Vec::new();
    for protocol in [TCP, UDP] {
        for (from, to) in [
            (client, vip),
            ((family.pod(), PORT), vip),
            (client, (family.node(), 30_080)),
            (client, (family.external(), 80)),
            (client, endpoint),
            (endpoint, node),
            (endpoint, client),
        ] {
            for (options, extensions) in [(0, vec![]), (5, vec![(0, 1), (43, 1), (60, 2)])] {
                for tcp_flags in [SYN, ACK] {
                    let build = Build {
                        options,
                        extensions: extensions.clone(),
                        tcp_flags,
                        ..Build::new(from, to, protocol)
                    };
                    let whole = build.whole();
                    samples.extend(build.parts(9));
                    for kind in [1, 3, 11] {
                        let router = family.other_vip();
                        samples.push(icmp_error(router, from.0, kind, &whole));
                    }
                    samples.push(whole);
                }
            }
        }
    }
    samples.iter().map(|packet| frame(packet)).collect()
}
