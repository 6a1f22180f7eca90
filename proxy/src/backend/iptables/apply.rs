//! Writing what changed, and only that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Shared, nfacct_names};
use switchyard_netlink::nfacct::Acct;

use super::batch::{Batch, Script};
use super::cluster_ips::ClusterIps;
use super::compile::{Fragment, compile};
use super::config::Config;
use super::fixed::{self, Table};
use super::tampering::Tampering;
use super::tool::{Tool, ToolError, Variant};
use crate::plan::{PlanChange, PlanId, ServicePlan};

/// Chains in one commit. The nf_tables tools look chains up in a list, so a commit's time
/// grows with their square: 5,000 Services take 8 s in one commit and 1.1 s in commits of
/// this size.
const CHAINS_PER_COMMIT: usize = 400;
/// Deletions of single rules in one shared chain up to which they are done one by one; each
/// searches the chain. Beyond, the chain is written anew.
const SINGLE_DELETIONS: usize = 64;

/// The rules of one IP family: what was programmed, and how to program more.
#[derive(Debug)]
pub struct Rules {
    pub(super) config: Config,
    pub(super) tool: Tool,
    /// What the kernel holds, as far as we wrote it.
    pub(super) programmed: HashMap<PlanId, Arc<ServicePlan>>,
    /// What it should hold but refused.
    pub(super) refused: BTreeMap<PlanId, Refusal>,
    /// Rules of all programmed plans.
    pub(super) counts: RuleCounts,
    pub(super) needs_reconcile: bool,
    /// `None` where the kernel or the tools have no ipset.
    pub(super) cluster_ips: Option<ClusterIps>,
    pub(super) tampering: Tampering,
}

/// A plan the kernel or the tool did not take; what it had before stays as far as it can.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What was said about it.
    pub message: String,
}

/// What a sync did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rules written to the filter and to the nat table, in this sync.
    pub rules_written: (usize, usize),
    /// Chains that were not as they should be (only found by reconciling).
    pub chains_repaired: usize,
}

impl Report {
    pub(super) const fn wrote(&mut self, (filter, nat): (usize, usize)) {
        self.rules_written.0 += filter;
        self.rules_written.1 += nat;
    }
}

/// How many rules stand in each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RuleCounts {
    pub(super) nat: usize,
    pub(super) filter: usize,
}

/// One plan as the kernel has it and as it should be.
struct Step {
    id: PlanId,
    old: Option<Arc<ServicePlan>>,
    new: Option<Arc<ServicePlan>>,
}

impl Rules {
    /// Rules of a family. Finds out what the kernel and the tools can do (and with that
    /// creates the set of ClusterIPs), but touches no rule of anybody's.
    #[must_use]
    pub fn new(config: Config, tool: Tool) -> Self {
        let mut rules = Self {
            tampering: Tampering::new(&tool),
            cluster_ips: None,
            config,
            tool,
            programmed: HashMap::new(),
            refused: BTreeMap::new(),
            counts: RuleCounts::default(),
            needs_reconcile: true,
        };
        rules.find_features();
        rules
    }

    /// Looks whether rules may match ipsets and count in accounting objects.
    fn find_features(&mut self) {
        let family = self.config.family;
        let opened = ClusterIps::open(family).map_err(|error| error.to_string());
        let usable = opened.and_then(|set| {
            let rule = format!("-m set --match-set {} dst -j RETURN", set.name());
            self.tool
                .probe(&rule)
                .map(|()| set)
                .map_err(|error| error.to_string())
        });
        match usable {
            Ok(set) => self.cluster_ips = Some(set),
            Err(error) => tracing::warn!(
                %family, %error,
                "no ipset to be had: connections to unknown ports of ClusterIPs are not \
                 refused but lost, as with the reference"
            ),
        }
        self.config.nfacct &= match self.find_accounting() {
            Ok(()) => true,
            Err(error) => {
                tracing::info!(%family, %error, "dropped and localhost packets are not counted");
                false
            }
        };
        self.complete_config();
    }

    fn find_accounting(&self) -> Result<(), String> {
        let mut acct = Acct::open().map_err(|error| error.to_string())?;
        for name in nfacct_names::ALL {
            acct.ensure(name).map_err(|error| error.to_string())?;
        }
        let rule = format!(
            "-m nfacct --nfacct-name {} -j RETURN",
            nfacct_names::INVALID_DROPPED
        );
        self.tool.probe(&rule).map_err(|error| error.to_string())
    }

    /// Fills in what of the configuration is found out here.
    pub(super) fn complete_config(&mut self) {
        self.config.cluster_ip_set = self.cluster_ips.as_ref().map(|set| set.name().to_owned());
    }

    /// Whether somebody else may have changed rules since the last write: cheap, and where it
    /// says yes, [`Rules::reconcile`] finds out.
    pub fn disturbed(&mut self) -> bool {
        self.tampering.is_suspected()
    }

    /// What the kernel holds now is known to be ours: to be called once all families have
    /// written.
    pub fn settle(&mut self) {
        self.tampering.settle();
    }

    /// What the kernel holds now may not be ours.
    pub fn unsettle(&mut self) {
        self.tampering.unsettle();
    }

    /// What the rules depend on besides the plans.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The programs that write them.
    #[must_use]
    pub const fn tool(&self) -> &Tool {
        &self.tool
    }

    /// How many rules of ours stand in the filter and in the nat table.
    #[must_use]
    pub fn rule_totals(&self) -> (usize, usize) {
        let count = |table| {
            let own = fixed::chains(&self.config);
            let own = own.iter().filter(|chain| chain.table == table);
            let tails = Shared::ALL.iter().filter(|shared| shared.table() == table);
            own.map(|chain| chain.rules.len()).sum::<usize>()
                + tails
                    .map(|shared| fixed::tail(*shared, &self.config).len())
                    .sum::<usize>()
        };
        let guards = fixed::firewall_rules(&self.config).len();
        (
            self.counts.filter + count(Table::Filter) + guards,
            self.counts.nat + count(Table::Nat),
        )
    }

    /// The plans the kernel does not hold as they should be, and why.
    #[must_use]
    pub const fn refused(&self) -> &BTreeMap<PlanId, Refusal> {
        &self.refused
    }

    /// Whether the kernel may hold something else than what was written: then
    /// [`Rules::reconcile`] comes next.
    #[must_use]
    pub const fn needs_reconcile(&self) -> bool {
        self.needs_reconcile
    }

    /// Writes the changes as one batch.
    ///
    /// # Errors
    /// When the batch, or a section of it, could not be written. Reconcile then: that finds
    /// out which change is to blame, and writes all others.
    pub fn apply(&mut self, changes: &[PlanChange]) -> Result<Report, ToolError> {
        let steps: Vec<Step> = changes
            .iter()
            .filter(|change| change.id.family == self.config.family)
            .map(|change| Step {
                id: change.id.clone(),
                old: self.programmed.get(&change.id).cloned(),
                new: change.new.clone(),
            })
            .collect();
        if steps.is_empty() {
            return Ok(Report::default());
        }
        let script = self.render(&steps);
        if let Err(failed) = self.run(&script) {
            self.needs_reconcile = true;
            return Err(failed.error);
        }
        if let Some(set) = &mut self.cluster_ips {
            let followed = set.follow(
                steps
                    .iter()
                    .map(|step| (step.old.as_deref(), step.new.as_deref())),
            );
            if let Err(error) = followed {
                self.needs_reconcile = true;
                return Err(error.into());
            }
        }
        for step in &steps {
            self.note(step);
        }
        Ok(Report {
            rules_written: script.rules(),
            ..Report::default()
        })
    }

    /// Whether a change touches a plan that is refused: what the kernel holds of it is not
    /// known well enough to write only the difference.
    #[must_use]
    pub fn is_refused(&self, id: &PlanId) -> bool {
        self.refused.contains_key(id)
    }

    /// The kernel now holds this step.
    fn note(&mut self, step: &Step) {
        let old = match &step.new {
            Some(new) => self.programmed.insert(step.id.clone(), Arc::clone(new)),
            None => self.programmed.remove(&step.id),
        };
        if let Some(old) = old {
            let (nat, filter) = compile(&old, &self.config).rule_counts();
            self.counts.nat -= nat;
            self.counts.filter -= filter;
        }
        if let Some(new) = &step.new {
            let (nat, filter) = compile(new, &self.config).rule_counts();
            self.counts.nat += nat;
            self.counts.filter += filter;
        }
    }

    pub(super) fn run(&self, script: &Script) -> Result<(), Box<RunError>> {
        if script.is_empty() {
            return Ok(());
        }
        self.tool.restore(script.text()).map_err(|error| {
            let number = match &error {
                ToolError::Failed { line, .. } => *line,
                _ => None,
            };
            let line = number
                .and_then(|number| script.line(number))
                .map(str::to_owned);
            let culprit = number.and_then(|number| script.owner(number)).cloned();
            Box::new(RunError {
                error,
                culprit,
                line,
            })
        })
    }

    pub(super) const fn chains_per_commit(&self) -> usize {
        match self.tool.variant {
            Variant::Nft => CHAINS_PER_COMMIT,
            // Every commit replaces the table: one is the cheapest.
            Variant::Legacy => usize::MAX,
        }
    }

    /// New refusals, then the nat table, then refusals that are over.
    fn render(&self, steps: &[Step]) -> Script {
        let changes: Vec<Difference> = steps
            .iter()
            .map(|step| Difference::of(step, &self.config))
            .collect();
        let rewrite = self.chains_to_rewrite(&changes);
        let mut batch = Batch::default();
        shared_additions(&mut batch, &changes, Table::Filter, &rewrite);
        let mut chains = 0;
        for change in &changes {
            batch.owner(Some(&change.id));
            let writes_nat = change.touches_nat(&rewrite);
            if writes_nat {
                batch.section(Table::Nat);
            }
            change.write_own_chains(&mut batch);
            change.write_shared(&mut batch, Table::Nat, &rewrite);
            change.delete_own_chains(&mut batch);
            chains += change.written.len() + change.deleted.len();
            if chains > self.chains_per_commit() {
                batch.commit();
                chains = 0;
            }
        }
        batch.owner(None);
        for shared in &rewrite {
            self.rewrite_shared(&mut batch, *shared, &changes);
        }
        shared_deletions(&mut batch, &changes, Table::Filter, &rewrite);
        batch.finish()
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
            for (_, rule) in rules_in(&compile(plan, &self.config), shared) {
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
        for rule in fixed::tail(shared, &self.config) {
            batch.append(shared.chain(), &rule);
        }
    }
}

/// A failed run and what is known about whose fault it is.
pub(super) struct RunError {
    pub(super) error: ToolError,
    pub(super) culprit: Option<PlanId>,
    pub(super) line: Option<String>,
}

impl RunError {
    /// What to say of the plan that is to blame.
    pub(super) fn refusal(&self) -> Refusal {
        let message = match &self.line {
            Some(line) => format!("{} (offending line: {line})", self.error),
            None => self.error.to_string(),
        };
        Refusal { message }
    }
}

/// What one step changes in the rules.
struct Difference {
    id: PlanId,
    new: Fragment,
    /// Indexes into `new.chains`: those to write.
    written: Vec<usize>,
    /// Names of chains that are no longer there.
    deleted: Vec<String>,
    shared_added: Vec<(Shared, String)>,
    shared_removed: Vec<(Shared, String)>,
}

impl Difference {
    fn of(step: &Step, config: &Config) -> Self {
        let compiled = |plan: &Option<Arc<ServicePlan>>| match plan {
            Some(plan) => compile(plan, config),
            None => Fragment::default(),
        };
        let (old, new) = (compiled(&step.old), compiled(&step.new));
        let written = new.chains.iter().enumerate();
        let written = written.filter(|(_, chain)| !old.chains.contains(chain));
        let written = written.map(|(index, _)| index).collect();
        let gone = |name: &String| !new.chains.iter().any(|chain| chain.name == *name);
        let deleted = old
            .chains
            .iter()
            .map(|chain| chain.name.clone())
            .filter(gone)
            .collect();
        let missing_in = |fragment: &Fragment, rules: &[(Shared, String)]| -> Vec<_> {
            rules
                .iter()
                .filter(|rule| !fragment.shared.contains(rule))
                .cloned()
                .collect()
        };
        Self {
            id: step.id.clone(),
            written,
            deleted,
            shared_added: missing_in(&old, &new.shared),
            shared_removed: missing_in(&new, &old.shared),
            new,
        }
    }

    fn touches_nat(&self, rewrite: &HashSet<Shared>) -> bool {
        let in_nat = |rules: &[(Shared, String)]| {
            rules
                .iter()
                .any(|(shared, _)| shared.table() == Table::Nat && !rewrite.contains(shared))
        };
        !self.written.is_empty()
            || !self.deleted.is_empty()
            || in_nat(&self.shared_added)
            || in_nat(&self.shared_removed)
    }

    fn write_own_chains(&self, batch: &mut Batch) {
        let chains = || {
            self.written
                .iter()
                .filter_map(|index| self.new.chains.get(*index))
        };
        for chain in chains() {
            batch.chain(&chain.name);
        }
        for chain in chains() {
            for rule in &chain.rules {
                batch.append(&chain.name, rule);
            }
        }
    }

    fn delete_own_chains(&self, batch: &mut Batch) {
        for chain in &self.deleted {
            batch.chain(chain);
        }
        for chain in &self.deleted {
            batch.delete_chain(chain);
        }
    }

    fn write_shared(&self, batch: &mut Batch, table: Table, rewrite: &HashSet<Shared>) {
        self.add_shared(batch, table, rewrite);
        self.remove_shared(batch, table, rewrite);
    }

    /// At the head of the chain, in reverse, so that they come to stand in order.
    fn add_shared(&self, batch: &mut Batch, table: Table, rewrite: &HashSet<Shared>) {
        for (shared, rule) in self.shared_added.iter().rev() {
            if shared.table() == table && !rewrite.contains(shared) {
                batch.insert(shared.chain(), rule);
            }
        }
    }

    fn remove_shared(&self, batch: &mut Batch, table: Table, rewrite: &HashSet<Shared>) {
        for (shared, rule) in &self.shared_removed {
            if shared.table() == table && !rewrite.contains(shared) {
                batch.delete(shared.chain(), rule);
            }
        }
    }
}

/// The rules of a fragment that stand in one shared chain.
pub(super) fn rules_in(
    fragment: &Fragment,
    shared: Shared,
) -> impl Iterator<Item = &(Shared, String)> {
    fragment
        .shared
        .iter()
        .filter(move |(chain, _)| *chain == shared)
}

fn shared_additions(
    batch: &mut Batch,
    changes: &[Difference],
    table: Table,
    rewrite: &HashSet<Shared>,
) {
    let adds = |change: &&Difference| {
        change
            .shared_added
            .iter()
            .any(|(shared, _)| shared.table() == table)
    };
    for change in changes.iter().filter(adds) {
        batch.owner(Some(&change.id));
        batch.section(table);
        change.add_shared(batch, table, rewrite);
    }
    batch.commit();
}

fn shared_deletions(
    batch: &mut Batch,
    changes: &[Difference],
    table: Table,
    rewrite: &HashSet<Shared>,
) {
    let removes = |change: &&Difference| {
        change
            .shared_removed
            .iter()
            .any(|(shared, _)| shared.table() == table && !rewrite.contains(shared))
    };
    for change in changes.iter().filter(removes) {
        batch.owner(Some(&change.id));
        batch.section(table);
        change.remove_shared(batch, table, rewrite);
    }
}
