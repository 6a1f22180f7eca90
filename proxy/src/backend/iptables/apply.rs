//! Writing what changed, and only that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Shared, nfacct_names};
use switchyard_netlink::nfacct::Acct;

use super::batch::Script;
use super::cluster_ips::ClusterIps;
use super::compile::compile;
use super::config::Config;
use super::difference::Step;
use super::fixed::{self, Table};
use super::render::Renderer;
use super::tampering::Tampering;
use super::tool::{Tool, ToolError};
use crate::plan::{PlanChange, PlanId, ServicePlan};

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
        let renderer = Renderer {
            config: &self.config,
            variant: self.tool.variant,
            programmed: &self.programmed,
        };
        let script = renderer.render(&steps);
        if let Err(error) = self.write(&script, &steps) {
            self.needs_reconcile = true;
            return Err(error);
        }
        for step in &steps {
            self.note(step);
        }
        let mut report = Report::default();
        report.wrote(script.rules());
        Ok(report)
    }

    fn write(&mut self, script: &Script, steps: &[Step]) -> Result<(), ToolError> {
        let changes = steps
            .iter()
            .map(|step| (step.old.as_deref(), step.new.as_deref()));
        let added = match &mut self.cluster_ips {
            Some(set) => set.follow(changes)?,
            None => Vec::new(),
        };
        self.run(script).map_err(|failed| failed.error)?;
        match &mut self.cluster_ips {
            Some(set) => Ok(set.add(&added)?),
            None => Ok(()),
        }
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
