//! The one who writes: owns the backend, runs off the agent's own thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use switchyard_cluster::object::IpFamily;

use super::facts::Facts;
use super::pending::Taken;
use crate::backend::ebpf::{Ebpf, Housekeeping};
use crate::backend::iptables::Rules;
use crate::backend::ipvs::Ipvs;
use crate::backend::nftables::Tables;
use crate::backend::xtables::RuleCounts;
use crate::backend::{Backend, BackendError, Refusal, Report};
use crate::devices::Devices;
use crate::plan::{PlanChange, PlanId};
use crate::stations::Stations;

/// Programs the kernel in all families.
#[derive(Debug)]
pub(super) struct Worker {
    backend: Backend,
    families: Vec<IpFamily>,
}

/// What became of a job.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The families it was done for.
    pub(super) families: Vec<IpFamily>,
    /// The kernel was read and compared; else only changes were written.
    pub(super) full: bool,
    pub(super) took: Duration,
    pub(super) result: Result<Report, BackendError>,
    /// Rules of ours that there are now, if rules it is.
    pub(super) rule_totals: Option<RuleCounts>,
    pub(super) refused: Vec<(PlanId, Refusal)>,
    /// Chains of nftables that are no longer needed and could not be deleted.
    pub(super) cleanup_failures: u64,
}

impl Worker {
    pub(super) const fn new(backend: Backend, families: Vec<IpFamily>) -> Self {
        Self { backend, families }
    }

    /// Writes what was taken: one job for each family with rules, one for all with maps.
    pub(super) fn work(&mut self, taken: &Taken, facts: &Facts) -> Vec<Outcome> {
        match &mut self.backend {
            Backend::Iptables(rules) => write_rules(rules, taken, facts),
            Backend::Ipvs(families) => write_services(families, taken, facts),
            Backend::Nftables(tables) => write_tables(tables, taken, facts),
            Backend::Ebpf(ebpf) => vec![write_maps(ebpf, &self.families, taken, facts)],
        }
    }

    /// The families in which the kernel no longer has what was written there.
    pub(super) fn disturbed(&mut self) -> Vec<IpFamily> {
        match &mut self.backend {
            Backend::Iptables(rules) => disturbed_rules(rules),
            // Nothing tells of changes: all is compared every sync period.
            Backend::Ipvs(_) => self.families.clone(),
            Backend::Nftables(tables) => tables.disturbed(),
            Backend::Ebpf(ebpf) => {
                let disturbed = ebpf.disturbed();
                let families = self.families.iter().copied();
                families.filter(|_| disturbed).collect()
            }
        }
    }

    /// Attaches to devices that are new; rules and services need no such thing.
    pub(super) fn set_devices(
        &mut self,
        devices: Arc<Devices>,
        stations: Arc<Stations>,
    ) -> Result<(), BackendError> {
        match &mut self.backend {
            Backend::Iptables(_) | Backend::Ipvs(_) | Backend::Nftables(_) => Ok(()),
            Backend::Ebpf(ebpf) => Ok(ebpf.set_devices(devices, stations)?),
        }
    }

    /// What maps need now and then; rules need none.
    pub(super) fn housekeep(&mut self) -> Option<Housekeeping> {
        match &mut self.backend {
            Backend::Iptables(_) | Backend::Ipvs(_) | Backend::Nftables(_) => None,
            Backend::Ebpf(ebpf) => Some(ebpf.housekeep(Instant::now())),
        }
    }
}

fn write_rules(families: &mut [Rules], taken: &Taken, facts: &Facts) -> Vec<Outcome> {
    // Asked before anything is written: what tells of changes by others is the same for
    // both families, and our own writes would hide them.
    let disturbed = disturbed_rules(families);
    let mut outcomes = Vec::new();
    for rules in families.iter_mut() {
        let family = rules.config().family;
        let full = taken.reconcile.contains(&family);
        let start = Instant::now();
        let result = if full {
            rules.reconcile(facts.iptables(family), &taken.plans)
        } else {
            rules.apply(&of_family(&taken.changes, family))
        };
        outcomes.push(Outcome {
            families: vec![family],
            full,
            took: start.elapsed(),
            result: result.map_err(Into::into),
            rule_totals: Some(rules.rule_totals()),
            refused: in_a_list(rules.refused()),
            cleanup_failures: 0,
        });
    }
    for (rules, outcome) in families.iter_mut().zip(&outcomes) {
        let known = outcome.full || !disturbed.contains(&rules.config().family);
        if known && outcome.result.is_ok() {
            rules.settle();
        } else {
            rules.unsettle();
        }
    }
    outcomes
}

fn write_services(families: &mut [Ipvs], taken: &Taken, facts: &Facts) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for ipvs in families {
        let family = ipvs.config().family;
        let full = taken.reconcile.contains(&family);
        let start = Instant::now();
        let result = if full {
            ipvs.reconcile(facts.ipvs(family), &taken.plans)
        } else {
            ipvs.apply(&taken.changes)
        };
        outcomes.push(Outcome {
            families: vec![family],
            full,
            took: start.elapsed(),
            result: result.map_err(Into::into),
            rule_totals: None,
            refused: in_a_list(ipvs.refused()),
            cleanup_failures: 0,
        });
    }
    outcomes
}

fn write_tables(tables: &mut Tables, taken: &Taken, facts: &Facts) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for family in tables.families() {
        let full = taken.reconcile.contains(&family);
        let start = Instant::now();
        let result = if full {
            tables.reconcile(&facts.nftables(family), &taken.plans)
        } else {
            tables.apply(family, &taken.changes)
        };
        outcomes.push(Outcome {
            families: vec![family],
            full,
            took: start.elapsed(),
            result: result.map_err(Into::into),
            rule_totals: None,
            refused: in_a_list(&tables.refused(family)),
            cleanup_failures: tables.take_cleanup_failures(),
        });
    }
    outcomes
}

fn write_maps(ebpf: &mut Ebpf, families: &[IpFamily], taken: &Taken, facts: &Facts) -> Outcome {
    let full = !taken.reconcile.is_empty();
    let start = Instant::now();
    let result = if full {
        ebpf.reconcile(facts.ebpf(), &taken.plans)
    } else {
        ebpf.apply(&taken.changes)
    };
    Outcome {
        families: families.to_vec(),
        full,
        took: start.elapsed(),
        result: result.map_err(Into::into),
        rule_totals: None,
        refused: in_a_list(ebpf.refused()),
        cleanup_failures: 0,
    }
}

fn disturbed_rules(families: &mut [Rules]) -> Vec<IpFamily> {
    let disturbed = families.iter_mut().filter_map(|rules| {
        let family = rules.config().family;
        rules.disturbed().then_some(family)
    });
    disturbed.collect()
}

fn in_a_list<'a>(
    refused: impl IntoIterator<Item = (&'a PlanId, &'a Refusal)>,
) -> Vec<(PlanId, Refusal)> {
    let refused = refused.into_iter();
    refused.map(|(id, why)| (id.clone(), why.clone())).collect()
}

fn of_family(changes: &[PlanChange], family: IpFamily) -> Vec<PlanChange> {
    changes
        .iter()
        .filter(|change| change.id.family == family)
        .cloned()
        .collect()
}
