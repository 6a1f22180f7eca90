//! Changes, restarts and growth against a kernel: whatever happened before, the maps hold what
//! the plans say now, and nothing else. Needs root; nothing is attached but to a cgroup of the
//! test's own, in which nobody is.

mod cases;
mod place;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use switchyard_cluster::object::{ObjectName, Service};
use switchyard_datapath::layout::{Address, address_flags};

use self::place::{Place, config};
use super::Ebpf;
use super::compile::compile;
use super::node;
use super::slot::Slot;
use super::tables::dump::{BlockWords, Dump};
use crate::plan::generated::{Generated, cluster, node as any_node};
use crate::plan::{NodeContext, PlanId, PlanTable, PlannedService, ServicePlan, plan_service};

/// Scripts that are played; each takes one to three loads of all programs.
const SCRIPTS: u32 = 6;

fn words(block: &[Slot]) -> BlockWords {
    block.iter().flat_map(|slot| slot.0).collect()
}

/// Checks that the maps hold these plans, to the byte, but for where blocks stand and which
/// numbers Services and sets have. Addresses that are only draining may be there too.
fn holds(ebpf: &Ebpf, plans: &PlanTable) -> Result<(), String> {
    let (Some(live), Some(shared)) = (&ebpf.live, &ebpf.shared) else {
        return Err("nothing is loaded".to_owned());
    };
    let dump = live.tables.dump();
    let mut addresses: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for (address, flags) in node::addresses(&ebpf.config) {
        *addresses.entry(address.into()).or_default() |= flags;
    }
    let mut frontends = BTreeMap::new();
    let mut indexes = BTreeSet::from([0]);
    let (mut sets, mut slots) = (BTreeSet::new(), live.settings_slots());
    for plan in plans.plans() {
        let compiled = compile(plan).map_err(|error| error.to_string())?;
        let programmed = live.programmed.get(&plan.id);
        let programmed = programmed.ok_or_else(|| format!("{}: not programmed", plan.id))?;
        let index = programmed.index;
        if !indexes.insert(index) || shared.identities.name(index) != Some(&plan.id) {
            return Err(format!("{}: its index {index} is another's", plan.id));
        }
        for (key, kind) in &compiled.frontends {
            frontends.insert(*key, (index, kind.number()));
        }
        for (address, flags) in &compiled.addresses {
            *addresses.entry((*address).into()).or_default() |= flags;
        }
        let base = dump.words.get(&index).copied().unwrap_or(0);
        let found = live.tables.words_at(base, compiled.slots());
        // The second word of the header: affinity, then the set of ranges.
        let set = u32::from_ne_bytes(found[1].to_ne_bytes()[4..].try_into().unwrap());
        if found != words(&compiled.block(index, set)) {
            return Err(format!("{}: another block at {base}", plan.id));
        }
        slots += compiled.slots();
        ranges_hold(plan, compiled.ranges.as_deref(), set, &dump)?;
        if set != 0 && !sets.insert(set) {
            return Err(format!("{}: its ranges {set} are another's", plan.id));
        }
    }
    if dump.frontends != frontends {
        return Err(format!("{:?}, expected {frontends:?}", dump.frontends));
    }
    let mut there = dump.addresses;
    there.retain(|address, flags| {
        *flags != address_flags::DRAINING || addresses.contains_key(address)
    });
    if there != addresses {
        return Err(format!("{there:?}, expected {addresses:?}"));
    }
    let left: Vec<_> = dump
        .ranges
        .keys()
        .filter(|set| !sets.contains(*set))
        .collect();
    let named: BTreeSet<u32> = dump.words.keys().copied().collect();
    let counts = (live.programmed.len(), shared.identities.len() + 1);
    if !left.is_empty() || named != indexes || counts != (indexes.len() - 1, indexes.len()) {
        return Err(format!(
            "left: sets {left:?}, words {named:?} of {indexes:?}, {counts:?} of them known"
        ));
    }
    if live.tables.slots_taken() != slots {
        return Err(format!(
            "{} slots taken of {slots}",
            live.tables.slots_taken()
        ));
    }
    Ok(())
}

/// Checks that a set of source ranges is what a plan says.
fn ranges_hold(
    plan: &ServicePlan,
    ranges: Option<&[(u32, Address)]>,
    set: u32,
    dump: &Dump,
) -> Result<(), String> {
    let Some(ranges) = ranges else {
        return match set {
            0 => Ok(()),
            _ => Err(format!("{}: ranges it has not", plan.id)),
        };
    };
    let wanted: BTreeSet<_> = ranges.iter().map(|(b, at)| (*b, (*at).into())).collect();
    let found = dump.ranges.get(&set).cloned().unwrap_or_default();
    if set == 0 || found != wanted {
        return Err(format!("{}: ranges {found:?} in {set}", plan.id));
    }
    Ok(())
}

/// What happens to a node.
#[derive(Clone, Debug)]
enum Event {
    /// A Service becomes this, or goes.
    Change(Generated, bool),
    /// The agent compares all.
    Reconcile,
    /// The node looks at its addresses and settings anew: masquerade-all or not.
    Settings(bool),
    Housekeep,
    /// The agent is killed, and another starts.
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let change = (cluster(), any::<bool>(), any::<prop::sample::Index>())
        .prop_map(|(all, goes, at)| Event::Change(at.get(&all).clone(), goes));
    let event = prop_oneof![
        12 => change,
        3 => Just(Event::Reconcile),
        2 => any::<bool>().prop_map(Event::Settings),
        3 => Just(Event::Housekeep),
        1 => Just(Event::Restart),
    ];
    proptest::collection::vec(event, 10..40)
}

fn all(plans: &PlanTable) -> Vec<Arc<ServicePlan>> {
    plans.plans().cloned().collect()
}

fn planned(generated: &Generated, node: &NodeContext) -> PlannedService {
    plan_service(&generated.service, generated.slices.iter(), node)
}

fn play(node: &NodeContext, events: &[Event]) -> Result<(), String> {
    let place = Place::new();
    let mut config = config(node);
    let mut plans = PlanTable::default();
    let mut ebpf = place.open(&config);
    let said = |error: super::EbpfError| error.to_string();
    ebpf.reconcile(config.clone(), &[]).map_err(said)?;
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Change(generated, goes) => {
                let new = if *goes {
                    PlannedService::default()
                } else {
                    planned(generated, node)
                };
                let Service {
                    name,
                    created_unix_s,
                    ..
                } = &generated.service;
                let changes = plans.update(name, *created_unix_s, new);
                ebpf.apply(&changes).map_err(said)?;
            }
            Event::Reconcile => {
                let report = ebpf.reconcile(config.clone(), &all(&plans)).map_err(said)?;
                if report.repaired != 0 {
                    return Err(format!("{number}: repaired what nobody broke: {report:?}"));
                }
            }
            Event::Settings(masquerade_all) => {
                config.node.masquerade_all = *masquerade_all;
                let plans = all(&plans);
                let _ = ebpf.reconcile(config.clone(), &plans).map_err(said)?;
            }
            Event::Housekeep => {
                ebpf.housekeep(Instant::now());
                let live = ebpf.live.as_ref().unwrap();
                if live.tables.has_draining() {
                    return Err(format!("{number}: addresses drain without a flow"));
                }
            }
            Event::Restart => {
                let before = indexes(&ebpf);
                drop(ebpf);
                ebpf = place.open(&config);
                ebpf.reconcile(config.clone(), &all(&plans)).map_err(said)?;
                if indexes(&ebpf) != before {
                    return Err(format!("{number}: other indexes after a restart"));
                }
            }
        }
        holds(&ebpf, &plans).map_err(|error| format!("{number}: {event:?}: {error}"))?;
    }
    is_emptied(&mut ebpf, &mut plans)
}

fn indexes(ebpf: &Ebpf) -> HashMap<PlanId, u32> {
    let programmed = ebpf.live.iter().flat_map(|live| &live.programmed);
    programmed
        .map(|at| (at.plan.id.clone(), at.index))
        .collect()
}

/// Removes all Services: nothing is left but what is the node's own.
fn is_emptied(ebpf: &mut Ebpf, plans: &mut PlanTable) -> Result<(), String> {
    let names: Vec<ObjectName> = plans.services().cloned().collect();
    for name in names {
        let changes = plans.update(&name, 0, PlannedService::default());
        ebpf.apply(&changes).map_err(|error| error.to_string())?;
    }
    ebpf.housekeep(Instant::now());
    holds(ebpf, plans)?;
    let dump = ebpf.live.as_ref().unwrap().tables.dump();
    let own = node::addresses(&ebpf.config).len();
    let left = (dump.addresses.len(), dump.frontends.len(), dump.words.len());
    if left != (own, 0, 1) || !dump.ranges.is_empty() {
        return Err(format!("left of nothing: {dump:?}"));
    }
    Ok(())
}

#[test]
fn whatever_happened_before_the_maps_hold_the_plans() {
    if !place::is_possible() {
        return;
    }
    let mut runner = TestRunner::new(ProptestConfig {
        cases: SCRIPTS,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..ProptestConfig::default()
    });
    let result = runner.run(&(any_node(), events()), |(node, events)| {
        play(&node, &events).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
