//! The script that takes the kernel from what it has to what it should have.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Shared;
use super::compile::compile;
use super::config::Config;
use super::difference::{Difference, rules_in};
use super::fixed;
use crate::backend::xtables::{Batch, Script, Table, Variant};
use crate::plan::{PlanId, ServicePlan};

/// Chains in one commit. The nf_tables tools look chains up in a list, so a commit's time
/// grows with their square: 5,000 Services take 8 s in one commit and 1.1 s in commits of
/// this size.
const CHAINS_PER_COMMIT: usize = 400;
/// Deletions of single rules in one shared chain up to which they are done one by one; each
/// searches the chain. Beyond, the chain is written anew. (Few in tests, so that small
/// clusters go both ways.)
const SINGLE_DELETIONS: usize = if cfg!(test) { 2 } else { 64 };

/// What a script is made from. Pure: the same in, the same out.
pub(super) struct Renderer<'a> {
    pub(super) config: &'a Config,
    pub(super) variant: Variant,
    /// What the kernel has.
    pub(super) programmed: &'a HashMap<PlanId, Arc<ServicePlan>>,
}

/// How many chains a commit may hold.
pub(super) const fn chains_per_commit(variant: Variant) -> usize {
    match variant {
        Variant::Nft => CHAINS_PER_COMMIT,
        // Every commit replaces the table: one is the cheapest.
        Variant::Legacy => usize::MAX,
    }
}

impl Renderer<'_> {
    /// New refusals, then the nat table, then refusals that are over.
    pub(super) fn render(&self, changes: &[Difference]) -> Script {
        let rewrite = self.chains_to_rewrite(changes);
        let mut batch = Batch::default();
        for change in changes {
            batch.owner(Some(&change.id));
            change.add_shared(&mut batch, Table::Filter, &HashSet::new());
        }
        batch.commit();
        self.render_nat(&mut batch, changes, &rewrite);
        for shared in rewrite
            .iter()
            .filter(|shared| shared.table() == Table::Filter)
        {
            self.rewrite_shared(&mut batch, *shared, changes);
        }
        for change in changes {
            batch.owner(Some(&change.id));
            change.remove_shared(&mut batch, Table::Filter, &rewrite);
        }
        batch.finish()
    }

    /// Chains before the rules that jump to them; rules that jump to chains that go before
    /// those.
    fn render_nat(&self, batch: &mut Batch, changes: &[Difference], rewrite: &HashSet<Shared>) {
        let rewritten = rewrite.iter().filter(|shared| shared.table() == Table::Nat);
        let rewritten: Vec<Shared> = rewritten.copied().collect();
        let mut chains = 0;
        for change in changes {
            batch.owner(Some(&change.id));
            change.write_own_chains(batch);
            change.add_shared(batch, Table::Nat, rewrite);
            change.remove_shared(batch, Table::Nat, rewrite);
            if rewritten.is_empty() {
                change.delete_own_chains(batch);
            }
            chains += change.own_chains();
            if chains > chains_per_commit(self.variant) {
                batch.commit();
                chains = 0;
            }
        }
        batch.owner(None);
        for shared in &rewritten {
            self.rewrite_shared(batch, *shared, changes);
        }
        if rewritten.is_empty() {
            return;
        }
        batch.commit();
        for change in changes {
            batch.owner(Some(&change.id));
            change.delete_own_chains(batch);
            chains += change.own_chains();
            if chains > chains_per_commit(self.variant) {
                batch.commit();
                chains = 0;
            }
        }
    }

    fn chains_to_rewrite(&self, changes: &[Difference]) -> HashSet<Shared> {
        let mut deletions: HashMap<Shared, usize> = HashMap::new();
        for (shared, _) in changes.iter().flat_map(|change| &change.shared_removed) {
            *deletions.entry(*shared).or_default() += 1;
        }
        deletions.retain(|_, count| *count > SINGLE_DELETIONS);
        deletions.into_keys().collect()
    }

    /// Writes a shared chain as it will be once `changes` are made.
    fn rewrite_shared(&self, batch: &mut Batch, shared: Shared, changes: &[Difference]) {
        let changing: HashSet<&PlanId> = changes.iter().map(|change| &change.id).collect();
        batch.section(shared.table());
        batch.chain(shared.chain());
        let unchanged = self
            .programmed
            .iter()
            .filter(|(id, _)| !changing.contains(id));
        for (_, plan) in unchanged {
            for (_, rule) in rules_in(&compile(plan, self.config), shared) {
                batch.append(shared.chain(), rule);
            }
        }
        for change in changes {
            batch.owner(Some(&change.id));
            for (_, rule) in rules_in(&change.new, shared) {
                batch.append(shared.chain(), rule);
            }
        }
        batch.owner(None);
        for rule in fixed::tail(shared, self.config) {
            batch.append(shared.chain(), &rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use switchyard_cluster::object::IpFamily;

    use super::super::difference::Step;
    use super::super::names;
    use super::*;
    use crate::plan::generated::{cluster, node, table};
    use crate::plan::{LocalDetector, PlanTable};

    /// The tables as a kernel would hold them, filled by restore scripts alone.
    #[derive(Debug, Default, PartialEq)]
    struct Kernel {
        chains: BTreeMap<(String, String), Vec<String>>,
    }

    impl Kernel {
        /// Does what `iptables-restore --noflush` does, and refuses what it refuses.
        fn restore(&mut self, script: &str) {
            let mut table = String::new();
            for line in script.lines() {
                let key = |chain: &str| (table.clone(), chain.to_owned());
                if let Some(name) = line.strip_prefix('*') {
                    table = name.to_owned();
                } else if let Some(rest) = line.strip_prefix(':') {
                    let chain = rest.split(' ').next().unwrap();
                    self.chains.insert(key(chain), Vec::new());
                } else if let Some(rest) = line.strip_prefix("-A ") {
                    let (chain, rule) = rest.split_once(' ').unwrap();
                    self.check_jump(&table, rule);
                    self.chains
                        .get_mut(&key(chain))
                        .expect(line)
                        .push(rule.to_owned());
                } else if let Some(rest) = line.strip_prefix("-I ") {
                    let (chain, rule) = rest.split_once(" 1 ").unwrap();
                    self.check_jump(&table, rule);
                    self.chains
                        .get_mut(&key(chain))
                        .expect(line)
                        .insert(0, rule.to_owned());
                } else if let Some(rest) = line.strip_prefix("-D ") {
                    let (chain, rule) = rest.split_once(' ').unwrap();
                    let rules = self.chains.get_mut(&key(chain)).expect(line);
                    let at = rules.iter().position(|there| there == rule).expect(line);
                    rules.remove(at);
                } else if let Some(chain) = line.strip_prefix("-X ") {
                    let jump = format!("-j {chain}");
                    let users = self.chains.iter().filter(|(key, _)| key.0 == table);
                    for (user, rules) in users {
                        assert!(
                            !rules.iter().any(|rule| rule.ends_with(&jump)),
                            "{user:?}: {line}"
                        );
                    }
                    assert_eq!(self.chains.remove(&key(chain)), Some(Vec::new()), "{line}");
                } else {
                    assert_eq!(line, "COMMIT");
                }
            }
        }

        fn check_jump(&self, table: &str, rule: &str) {
            let target = rule.rsplit_once("-j ").map_or("", |(_, target)| target);
            let known = self
                .chains
                .contains_key(&(table.to_owned(), target.to_owned()));
            assert!(!target.starts_with("KUBE-") || known, "{rule}");
        }

        /// Shared chains in any order but for their tails, single chains as they are.
        fn sorted(&self, config: &Config) -> BTreeMap<(String, String), Vec<String>> {
            let mut chains = self.chains.clone();
            for shared in Shared::ALL {
                let key = (
                    shared.table().as_str().to_owned(),
                    shared.chain().to_owned(),
                );
                let tail = fixed::tail(shared, config);
                let rules = chains.get_mut(&key).unwrap();
                assert!(rules.ends_with(&tail), "{rules:?}");
                rules.truncate(rules.len() - tail.len());
                rules.sort();
            }
            chains
        }

        fn fresh(config: &Config) -> Self {
            let mut kernel = Self::default();
            for shared in Shared::ALL {
                let key = (
                    shared.table().as_str().to_owned(),
                    shared.chain().to_owned(),
                );
                kernel.chains.insert(key, fixed::tail(shared, config));
            }
            let mark = ("nat".to_owned(), names::MARK_MASQ.to_owned());
            kernel.chains.insert(mark, Vec::new());
            kernel
        }
    }

    fn steps(from: &PlanTable, to: &PlanTable) -> Vec<Step> {
        let ids = from.plans().chain(to.plans()).map(|plan| plan.id.clone());
        let ids: std::collections::BTreeSet<PlanId> =
            ids.filter(|id| id.family == IpFamily::V4).collect();
        ids.into_iter()
            .map(|id| Step {
                old: from.plan(&id).cloned(),
                new: to.plan(&id).cloned(),
                id,
            })
            .filter(|step| step.old != step.new)
            .collect()
    }

    fn programmed(table: &PlanTable) -> HashMap<PlanId, Arc<ServicePlan>> {
        let plans = table.plans().filter(|plan| plan.id.family == IpFamily::V4);
        plans
            .map(|plan| (plan.id.clone(), Arc::clone(plan)))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However one cluster becomes another, the incremental script is one the tools take
        /// at every line, and it ends where writing everything afresh would.
        #[test]
        fn changes_end_where_a_fresh_start_would(
            before in cluster(), after in cluster(), node in node(), nft in any::<bool>(),
        ) {
            let config = Config {
                family: IpFamily::V4,
                masquerade_mark: 0x4000,
                masquerade_all: false,
                detector: LocalDetector::Bridge("cbr0".to_owned()),
                localhost_node_ports: true,
                node_port_addresses: None,
                drop_invalid: true,
                nfacct: nft,
                endpoint_comments: nft,
                cluster_ip_set: Some("KUBE-CLUSTER-IPS".to_owned()),
            };
            let variant = if nft { Variant::Nft } else { Variant::Legacy };
            let (none, before, after) =
                (PlanTable::default(), table(&before, &node), table(&after, &node));
            let render = |from: &PlanTable, to: &PlanTable| {
                let programmed = programmed(from);
                let renderer = Renderer { config: &config, variant, programmed: &programmed };
                let steps = steps(from, to);
                let changes: Vec<Difference> =
                    steps.iter().map(|step| Difference::of(step, &config)).collect();
                renderer.render(&changes)
            };
            let mut kernel = Kernel::fresh(&config);
            kernel.restore(render(&none, &before).text());
            kernel.restore(render(&before, &after).text());
            let mut fresh = Kernel::fresh(&config);
            fresh.restore(render(&none, &after).text());
            prop_assert_eq!(kernel.sorted(&config), fresh.sorted(&config));
            kernel.restore(render(&after, &none).text());
            prop_assert_eq!(kernel, Kernel::fresh(&config));
        }
    }
}
