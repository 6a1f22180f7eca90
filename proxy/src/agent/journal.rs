//! What changed, in operators' words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::plan::{Frontend, PlanChange, ServicePlan, Target};

/// Changes that one sync spells out in the log at level info; the rest are counted.
const SPELLED_OUT: usize = 20;
/// Endpoints named in one line; the rest are counted.
const ENDPOINTS_NAMED: usize = 8;

/// Says what is about to be programmed.
pub(super) fn announce(changes: &[PlanChange]) {
    for change in changes.iter().take(SPELLED_OUT) {
        let (id, family) = (&change.id, change.id.family);
        tracing::info!(service_port = %id, protocol = %id.protocol, %family, "{}", describe(change));
    }
    if let Some(more) = changes
        .len()
        .checked_sub(SPELLED_OUT)
        .filter(|more| *more > 0)
    {
        tracing::info!("and {more} more Service ports changed");
    }
}

fn describe(change: &PlanChange) -> String {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => difference(old, new),
        (None, Some(new)) => format!("added: {}", summary(new)),
        (Some(_), None) => "removed".to_owned(),
        (None, None) => String::new(),
    }
}

fn summary(plan: &ServicePlan) -> String {
    let mut text = String::new();
    for frontend in &plan.frontends {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{}", place(*frontend, plan.port));
    }
    match targets(plan).len() {
        0 => text.push_str("; no endpoints"),
        1 => text.push_str("; 1 endpoint"),
        count => drop(write!(text, "; {count} endpoints")),
    }
    text
}

fn place(frontend: Frontend, port: u16) -> String {
    match frontend {
        Frontend::ClusterIp(address) => format!("ClusterIP {address} port {port}"),
        Frontend::ExternalIp(address) => format!("external IP {address} port {port}"),
        Frontend::LoadBalancerIp(address) => format!("LoadBalancer IP {address} port {port}"),
        Frontend::NodePort(node_port) => format!("node port {node_port}"),
    }
}

fn targets(plan: &ServicePlan) -> BTreeSet<Target> {
    plan.cluster.iter().chain(&plan.local).copied().collect()
}

fn difference(old: &ServicePlan, new: &ServicePlan) -> String {
    let mut parts = Vec::new();
    for (verb, from, to) in [("lost", old, new), ("gained", new, old)] {
        let frontends = from
            .frontends
            .iter()
            .filter(|place| !to.frontends.contains(place));
        parts.extend(frontends.map(|frontend| format!("{verb} {}", place(*frontend, from.port))));
    }
    if old.port != new.port {
        parts.push(format!("port {} became {}", old.port, new.port));
    }
    let (before, after) = (targets(old), targets(new));
    for (word, targets) in [
        ("gone", before.difference(&after).collect::<Vec<_>>()),
        ("new", after.difference(&before).collect()),
    ] {
        if !targets.is_empty() {
            parts.push(format!("endpoints {word}: {}", named(&targets)));
        }
    }
    if old.affinity_timeout_s != new.affinity_timeout_s {
        parts.push(match new.affinity_timeout_s {
            Some(seconds) => format!("ClientIP affinity for {seconds} s"),
            None => "no affinity any more".to_owned(),
        });
    }
    if old.source_ranges != new.source_ranges {
        parts.push("source ranges changed".to_owned());
    }
    for (name, before, after) in [
        (
            "internalTrafficPolicy",
            old.internal_policy,
            new.internal_policy,
        ),
        (
            "externalTrafficPolicy",
            old.external_policy,
            new.external_policy,
        ),
    ] {
        if before != after {
            parts.push(format!("{name} {after:?}"));
        }
    }
    if parts.is_empty() {
        parts.push("which endpoints are local or serving changed".to_owned());
    }
    if after.is_empty() {
        parts.push("no endpoints left".to_owned());
    }
    parts.join("; ")
}

fn named(targets: &[&Target]) -> String {
    let mut names: Vec<String> = targets
        .iter()
        .take(ENDPOINTS_NAMED)
        .map(|target| target.socket().to_string())
        .collect();
    if let Some(more) = targets
        .len()
        .checked_sub(ENDPOINTS_NAMED)
        .filter(|more| *more > 0)
    {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}
