//! Writing what changed, and only that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Shared, nfacct_names};
use switchyard_netlink::nfacct::Acct;

use super::cluster_ips::ClusterIps;
use super::config::Config;
use super::difference::{Difference, Step};
use super::fixed;
use super::render::Renderer;
use crate::backend::xtables::{RuleCounts, Script, Table, Tampering, Tool, ToolError};
use crate::backend::{Refusal, Report, Written};
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
    /// `None` where the kernel or the tools have no ipset.
    pub(super) cluster_ips: Option<ClusterIps>,
    pub(super) tampering: Tampering,
}

/// What a sync has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) rules_written: RuleCounts,
    /// Chains that were not as they should be.
    pub(super) chains_repaired: usize,
}

impl Tally {
    pub(super) const fn report(self) -> Report {
        Report {
            written: Written::Rules(self.rules_written),
            repaired: self.chains_repaired,
        }
    }
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

    /// How many rules of ours there are.
    #[must_use]
    pub fn rule_totals(&self) -> RuleCounts {
        let mut totals = self.counts;
        for chain in fixed::chains(&self.config) {
            totals.add(chain.table, chain.chain.rules.len());
        }
        for shared in Shared::ALL {
            totals.add(shared.table(), fixed::tail(shared, &self.config).len());
        }
        totals.add(Table::Filter, fixed::firewall_rules(&self.config).len());
        totals
    }

    /// The plans the kernel does not hold as they should be, and why.
    #[must_use]
    pub const fn refused(&self) -> &BTreeMap<PlanId, Refusal> {
        &self.refused
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
            return Ok(Tally::default().report());
        }
        let renderer = Renderer {
            config: &self.config,
            variant: self.tool.variant,
            programmed: &self.programmed,
        };
        let differences: Vec<Difference> = steps
            .iter()
            .map(|step| Difference::of(step, &self.config))
            .collect();
        let script = renderer.render(&differences);
        self.write(&script, &steps)?;
        for (step, difference) in steps.into_iter().zip(&differences) {
            self.note(step, difference);
        }
        let done = Tally {
            rules_written: script.rules(),
            chains_repaired: 0,
        };
        Ok(done.report())
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
    fn note(&mut self, step: Step, difference: &Difference) {
        match step.new {
            Some(new) => drop(self.programmed.insert(step.id, new)),
            None => drop(self.programmed.remove(&step.id)),
        }
        self.counts += difference.new.rule_counts();
        self.counts -= difference.old_rules;
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
