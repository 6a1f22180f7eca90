//! The programs' own code, over maps that are filled from compiled plans, compared with the
//! oracle on random clusters: every sender, every destination, both ways in.
//!
//! - [`world`]: the maps in memory, and what becomes of a packet or of a socket's call.
//! - [`packet`]: packets as bytes.
//! - [`differences`]: where the design departs from the oracle, each with its reason.

mod differences;
mod packet;
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};
use switchyard_cluster::object::Protocol;

use self::differences::{Difference, Left};
use self::world::{Fate, Source, World};
use crate::plan::generated::{self, cluster, node, table};
use crate::plan::{Packet, Verdict, verdict};

/// A sender: its address, and the device it is behind. The node itself is behind none.
const SENDERS: [(&str, Option<&str>); 12] = [
    ("10.244.1.1", Some("veth1")),
    ("10.244.1.9", Some("cbr0")),
    ("192.168.0.2", None),
    ("203.0.113.2", Some("eth0")),
    ("203.0.113.130", Some("eth0")),
    ("192.168.0.77", Some("eth0")),
    ("127.0.0.1", None),
    ("fd00:244:1::1", Some("veth1")),
    ("fd00:244:1::9", Some("cbr0")),
    ("2001:db8::2", None),
    ("2001:db8:1::2", Some("eth0")),
    ("::1", None),
];

/// Where they send to: VIPs, the node, and addresses that are nobody's.
const DESTINATIONS: [&str; 15] = [
    "10.96.0.1",
    "10.96.0.2",
    "10.96.0.9",
    "203.0.113.200",
    "203.0.113.201",
    "203.0.113.210",
    "192.168.0.2",
    "127.0.0.1",
    "fd00:96::2",
    "fd00:96::3",
    "2001:db8:9::1",
    "2001:db8:9::2",
    "2001:db8::2",
    "::1",
    "fd00:96::9",
];

/// More tries than it takes to reach each of up to six endpoints: that one of them stays away
/// by chance happens once in 10³⁰.
const TRIES: u16 = 400;

fn packets() -> Vec<Packet> {
    generated::packets(&SENDERS, &DESTINATIONS)
}

/// Judges one fate; says which difference it takes, if any.
fn judge(
    world: &World,
    packet: &Packet,
    wanted: &Verdict,
    fate: Fate,
) -> Result<Option<Difference>, String> {
    match (wanted, fate) {
        (Verdict::To(targets), Fate::To(endpoint, source)) => {
            let Some((_, masquerade)) = targets.iter().find(|(to, _)| to.socket() == endpoint)
            else {
                return Err(format!("{endpoint} is none of {targets:?}"));
            };
            match source {
                Source::Node if *masquerade => Ok(None),
                Source::Own | Source::Socket if !masquerade => Ok(None),
                Source::Socket => Ok(Some(Difference::SourceAtTheSocket)),
                _ => Err(format!("masqueraded: {source:?}, expected {masquerade}")),
            }
        }
        (Verdict::Reject, Fate::Reject)
        | (Verdict::Drop, Fate::Drop)
        | (Verdict::NotOurs, Fate::Untouched) => Ok(None),
        (Verdict::NotOurs, Fate::Reject) if differences::would_loop(world, packet) => {
            Ok(Some(Difference::UnknownPortOutside))
        }
        (wanted, fate) => Err(format!("{fate:?}, expected {wanted:?}")),
    }
}

/// What is reached, over as many tries as it takes to reach all there is.
struct Tries<'a> {
    world: &'a World,
    packet: &'a Packet,
    wanted: &'a Verdict,
    seen: BTreeSet<SocketAddr>,
    took: BTreeSet<Difference>,
}

impl Tries<'_> {
    /// Tries until every target was reached. With affinity the first one stays.
    fn run(&mut self, mut one: impl FnMut(u16) -> Fate) -> Result<(), String> {
        let affinity = differences::plan_of(self.world, self.packet)
            .is_some_and(|(plan, _)| plan.affinity_timeout_s.is_some());
        let targets: BTreeSet<SocketAddr> = match self.wanted {
            Verdict::To(targets) => targets.iter().map(|(to, _)| to.socket()).collect(),
            _ => BTreeSet::new(),
        };
        for attempt in 0..TRIES {
            let fate = one(attempt);
            let difference = judge(self.world, self.packet, self.wanted, fate)?;
            self.took.extend(difference);
            if let Fate::To(endpoint, _) = fate {
                self.seen.insert(endpoint);
            }
            if affinity && self.seen.len() > 1 {
                return Err(format!("affinity led to {:?}", self.seen));
            }
            if self.seen == targets || (affinity && attempt >= 3) {
                return Ok(());
            }
        }
        Err(format!("of {targets:?} only {:?} were reached", self.seen))
    }
}

fn device(
    world: &World,
    packet: &Packet,
    wanted: &Verdict,
) -> Result<BTreeSet<Difference>, String> {
    let mut tries = Tries {
        world,
        packet,
        wanted,
        seen: BTreeSet::new(),
        took: BTreeSet::new(),
    };
    tries.run(|attempt| world.device(packet, 40_000 + attempt))?;
    Ok(tries.took)
}

/// What a socket's call comes to: at the socket, and where that leaves it alone, at the device
/// behind which the socket's pod is.
fn socket(
    world: &World,
    packet: &Packet,
    wanted: &Verdict,
    is_send: bool,
) -> Result<(BTreeSet<Difference>, Option<Left>), String> {
    let is_left = Left::of(world, packet);
    let first = world.socket(packet, is_send);
    let is_untouched = first == Fate::Untouched && *wanted != Verdict::NotOurs;
    if is_untouched != (is_left.is_some() && *wanted != Verdict::NotOurs) {
        return Err(format!(
            "the socket said {first:?}, left to the device: {is_left:?}"
        ));
    }
    let mut tries = Tries {
        world,
        packet,
        wanted,
        seen: BTreeSet::new(),
        took: BTreeSet::new(),
    };
    tries.run(|attempt| match world.socket(packet, is_send) {
        Fate::Untouched if packet.in_interface.is_some() => world.device(packet, 40_000 + attempt),
        fate => fate,
    })?;
    Ok((tries.took, is_left))
}

/// All that was seen to differ, so that no entry of the list is there for nothing.
#[derive(Default)]
struct Seen {
    differences: BTreeSet<Difference>,
    left: BTreeSet<Left>,
}

fn compare(world: &World, seen: &mut Seen) -> Result<(), TestCaseError> {
    for packet in packets() {
        let wanted = verdict(world.plans.plans(), &world.node, &world.local, &packet);
        let failed = |way: &str, error: String| {
            TestCaseError::fail(format!("{packet:?} {way}: {error} ({:?})", world.node))
        };
        if packet.in_interface.is_some() {
            let took = device(world, &packet, &wanted);
            seen.differences
                .extend(took.map_err(|error| failed("at the device", error))?);
        }
        // A socket of somebody else's machine is none that programs of this node see.
        if packet.in_interface.as_deref() == Some("eth0") {
            continue;
        }
        for is_send in [false, true] {
            if is_send && packet.protocol != Protocol::Udp {
                continue;
            }
            let took = socket(world, &packet, &wanted, is_send);
            let (took, left) = took.map_err(|error| failed("at the socket", error))?;
            seen.differences.extend(took);
            seen.left.extend(left);
        }
    }
    Ok(())
}

/// Compares as many random clusters as the runner is set to.
fn run(mut runner: TestRunner) -> Seen {
    let seen = RefCell::new(Seen::default());
    let input = (cluster(), node(), any::<bool>(), any::<u64>());
    let result = runner.run(&input, |(cluster, node, host_only, seed)| {
        let plans = table(&cluster, &node);
        let world = World::new(plans, node, host_only, seed);
        compare(&world, &mut seen.borrow_mut())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    seen.into_inner()
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Packets at devices and calls at sockets do what the oracle says, but for what is listed in
/// [`differences`].
#[test]
fn the_programs_do_what_the_oracle_says() {
    run(TestRunner::new(cases(96)));
}

/// All that is listed there happens: clusters that are the same in every run are enough.
#[test]
fn no_difference_is_listed_for_nothing() {
    let same = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let seen = run(TestRunner::new_with_rng(cases(192), same));
    assert_eq!(seen.differences, Difference::ALL.into_iter().collect());
    assert_eq!(seen.left, Left::ALL.into_iter().collect());
}
