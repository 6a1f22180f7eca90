//! The kernel's programs and the data path in memory, side by side.

use std::sync::MutexGuard;

use switchyard_datapath::layout::{FlowKey, FlowValue, Hook};
use switchyard_datapath::parse::{IPV4, IPV6};
use switchyard_datapath::table::Bytes;

use crate::kernel::Kernel;
use crate::packets::{Read, verify_ip};
use crate::world::{Tuple, UPLINK, World};

/// What a program returns for "the next program, or the stack".
const NEXT: i32 = -1;
/// What it returns for "lost".
const SHOT: i32 = 2;
/// Two addresses; the kind of packet follows.
const LINK_ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
/// The length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// Which programs packets are given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Those for devices with an Ethernet header.
    Ethernet,
    /// Those for devices without. The kernel takes the kind of a test's packet from where an
    /// Ethernet header has it, so the source address must say it too.
    Plain,
}

/// A world, and the kernel with the same Services.
pub(crate) struct Pair {
    pub(crate) world: World,
    kernel: MutexGuard<'static, Kernel>,
    link: Link,
}

impl Pair {
    pub(crate) fn new(world: World, link: Link) -> Self {
        Self::of(Kernel::take(), world, link)
    }

    pub(crate) fn of(mut kernel: MutexGuard<'static, Kernel>, world: World, link: Link) -> Self {
        kernel.fill(&world.table);
        Self {
            world,
            kernel,
            link,
        }
    }

    /// A packet from its IP header on; what comes out, `None` if it is lost.
    pub(crate) fn meet(&mut self, hook: Hook, packet: &[u8]) -> Option<Vec<u8>> {
        if self.link == Link::Plain {
            return self.run(hook, packet).unwrap();
        }
        let mut out = self.meet_frame(hook, &frame(packet)).unwrap()?;
        let header: Vec<u8> = out.drain(..ETHERNET).collect();
        assert_eq!(header, frame(packet)[..ETHERNET]);
        Some(out)
    }

    /// The same with its Ethernet header. An error: the kernel takes no such packet.
    pub(crate) fn meet_frame(
        &mut self,
        hook: Hook,
        frame: &[u8],
    ) -> std::io::Result<Option<Vec<u8>>> {
        assert_eq!(self.link, Link::Ethernet);
        self.run(hook, frame)
    }

    fn run(&mut self, hook: Hook, packet: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        let (name, mut bytes) = match (self.link, hook) {
            (Link::Ethernet, Hook::Ingress) => ("in_ethernet", Bytes::ethernet(packet.to_vec())),
            (Link::Ethernet, Hook::Egress) => ("out_ethernet", Bytes::ethernet(packet.to_vec())),
            (Link::Plain, Hook::Ingress) => ("in_plain", Bytes::plain(packet.to_vec())),
            (Link::Plain, Hook::Egress) => ("out_plain", Bytes::plain(packet.to_vec())),
        };
        let (verdict, out) = self.kernel.run(name, packet)?;
        let goes_on = match verdict {
            NEXT => true,
            SHOT => false,
            other => panic!("{name} returned {other}"),
        };
        let should = self.world.table.meet(&mut bytes, hook, UPLINK);
        assert_eq!(goes_on, should, "{name}: {packet:02x?}");
        if goes_on {
            assert_eq!(out, bytes.bytes, "{name}: {packet:02x?}");
        }
        Ok(goes_on.then_some(out))
    }

    /// A packet through the node: in by one device, out by another.
    pub(crate) fn through(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let routed = self.meet(Hook::Ingress, packet)?;
        verify_ip(&routed);
        self.meet(Hook::Egress, &routed)
    }

    /// It goes on as it is, whichever way it goes.
    pub(crate) fn leaves_alone(&mut self, packet: &[u8]) {
        for hook in [Hook::Ingress, Hook::Egress] {
            assert_eq!(self.meet(hook, packet).as_deref(), Some(packet), "{hook:?}");
        }
    }

    /// The kernel has as many entries of flows, and the same ones but for times and ids.
    pub(crate) fn assert_same_flows(&mut self) {
        let plain = |(key, value): (FlowKey, FlowValue)| {
            let value = FlowValue {
                seen_ns: 0,
                id: 0,
                ..value
            };
            (key, value)
        };
        let mut here: Vec<_> = self.kernel.flows().into_iter().map(plain).collect();
        here.sort_by_key(|(key, _)| *key);
        let there: Vec<_> = self.world.table.flows().into_iter().map(plain).collect();
        assert_eq!(here, there);
    }
}

/// A packet under an Ethernet header.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    frame_of(if is_v4 { IPV4 } else { IPV6 }, packet)
}

/// Any bytes under an Ethernet header that says what they are.
pub(crate) fn frame_of(kind: u16, bytes: &[u8]) -> Vec<u8> {
    [&LINK_ADDRESSES[..], &kind.to_be_bytes(), bytes].concat()
}

/// The addresses and ports of a packet.
pub(crate) fn tuple(packet: &[u8]) -> Tuple {
    let read = Read::of(packet);
    Tuple::new(read.source, read.destination)
}
