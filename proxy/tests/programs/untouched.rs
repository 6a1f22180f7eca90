//! What is none of ours goes on as it is, to the byte.

use switchyard_datapath::layout::{Hook, SCTP, TCP, UDP};

use crate::packets::{ACK, Build, RST, SYN};
use crate::pair::{Link, Pair, frame_of};
use crate::whole::world;
use crate::world::{FAMILIES, Family};

#[test]
fn packets_to_and_from_others() {
    for family in FAMILIES {
        for protocol in [TCP, UDP, SCTP, 47, 50, 132, 89] {
            let mut pair = Pair::new(world(family, TCP), Link::Ethernet);
            for tcp_flags in [SYN, ACK, RST, 0, 0xff] {
                for (from, to) in [
                    // Past the node; to the node at a port of no Service; between pods; of pods.
                    ((family.outside(), 4000), (family.pod(), 80)),
                    ((family.outside(), 4000), (family.node(), 22)),
                    ((family.pod(), 4000), (family.endpoint(1), 8080)),
                    ((family.endpoint(1), 8080), (family.pod(), 4000)),
                ] {
                    let mut build = Build::new(from, to, protocol);
                    build.tcp_flags = tcp_flags;
                    pair.leaves_alone(&build.whole());
                }
            }
            pair.world.assert_no_flow();
            pair.assert_same_flows();
        }
    }
}

/// Frames of other kinds, whatever is in them; and IP under the other family's name.
#[test]
fn what_is_no_ip() {
    for family in FAMILIES {
        let mut pair = Pair::new(world(family, TCP), Link::Ethernet);
        let build = Build {
            tcp_flags: SYN,
            ..Build::new((family.outside(), 4000), (family.vip(), 80), TCP)
        };
        let other = match family {
            Family::V4 => 0x86dd,
            Family::V6 => 0x0800,
        };
        for kind in [0, 46, 0x0806, 0x8100, 0x88a8, 0x8847, 0x88cc, 0xffff, other] {
            let frame = frame_of(kind, &build.whole());
            for hook in [Hook::Ingress, Hook::Egress] {
                let out = pair.meet_frame(hook, &frame).unwrap();
                assert_eq!(out.as_deref(), Some(&frame[..]), "{kind:04x}");
            }
        }
        pair.assert_same_flows();
    }
}
