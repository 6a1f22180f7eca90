//! Datagrams in parts.

use switchyard_datapath::layout::{Hook, UDP};

use crate::packets::{Build, join, verify, verify_ip};
use crate::pair::{Link, Pair, tuple};
use crate::whole::world;
use crate::world::{FAMILIES, Family, Tuple};

/// A port that is in the ranges of masquerading: it is kept.
const PORT: u16 = 20_010;

fn datagram(tuple: Tuple) -> Build {
    let mut build = Build::new(tuple.source, tuple.destination, UDP);
    build.payload = (0..200).collect();
    build
}

/// Each part through the node; they are what the whole would have been.
fn go(pair: &mut Pair, sent: Tuple, id: u16, extensions: &[(u8, u8)], expected: Tuple) {
    let mut build = datagram(sent);
    build.extensions = extensions.to_vec();
    let out = build.parts(id).map(|part| {
        let out = pair.through(&part).unwrap();
        verify_ip(&out);
        assert_eq!(out.len(), part.len());
        out
    });
    let whole = join(&out);
    verify(&whole);
    assert_eq!(whole, datagram(expected).whole());
}

#[test]
fn go_where_the_first_goes_both_ways() {
    for family in FAMILIES {
        let mut pair = Pair::new(world(family, UDP), Link::Ethernet);
        let sent = Tuple::new((family.outside(), PORT), (family.vip(), 80));
        let out = Tuple::new((family.node(), PORT), (family.endpoint(1), 8080));
        let chains: &[&[(u8, u8)]] = match family {
            Family::V4 => &[&[]],
            Family::V6 => &[&[], &[(0, 1)], &[(0, 2), (60, 1), (43, 1)]],
        };
        for (id, chain) in (1..).step_by(10).zip(chains) {
            go(&mut pair, sent, id, chain, out);
            go(&mut pair, out.reversed(), id + 1, chain, sent.reversed());
            go(&mut pair, sent, id + 2, chain, out);
        }
        pair.assert_same_flows();
    }
}

/// A later part whose first one was not seen: lost where it would go astray, left alone elsewhere.
#[test]
fn a_later_part_alone() {
    for family in FAMILIES {
        let mut pair = Pair::new(world(family, UDP), Link::Ethernet);
        let from = (family.outside(), PORT);
        let [_, to_vip] = datagram(Tuple::new(from, (family.vip(), 80))).parts(40);
        assert_eq!(pair.meet(Hook::Ingress, &to_vip), None);
        let [first, to_node] = datagram(Tuple::new(from, (family.node(), 30_080))).parts(41);
        pair.leaves_alone(&to_node);
        // Once the first is seen, it follows.
        let first = pair.meet(Hook::Ingress, &first).unwrap();
        assert_eq!(tuple(&first).destination, (family.endpoint(1), 8080));
        let later = pair.meet(Hook::Ingress, &to_node).unwrap();
        assert_eq!(tuple(&later).destination.0, family.endpoint(1));
    }
}
