//! What modes leave in the kernel, and what is somebody else's there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::save_rules;
use switchyard_tests::testbed::{Family, Place, wait_for};

use super::Mode;
use super::stage::Stage;

const SOON: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(200);

/// What nobody may touch: a table of nftables, a chain of iptables.
const FOREIGN_TABLE: &str = "ip theirs";
const FOREIGN_RULE: &str = "theirs";

/// What must be gone, and what must be there.
#[derive(Clone, Copy)]
pub(super) struct Left {
    in_force: Mode,
}

impl Left {
    pub(super) const fn of_all_but(in_force: Mode) -> Self {
        Self { in_force }
    }

    /// Waits until the kernel holds the mode in force, what is somebody else's, and nothing else.
    pub(super) fn wait_gone(self, stage: &Stage) -> Result<()> {
        let mut wrong = Vec::new();
        wait_for("the end of the former mode", SOON, POLL, || {
            // iptables-save fails where a set goes between its rule and its name.
            wrong = self
                .wrong(stage)
                .unwrap_or_else(|error| vec![format!("{error:#}")]);
            Ok(wrong.is_empty())
        })
        .with_context(|| format!("{}\n{}", wrong.join("\n"), stage.log_tail()))?;
        let rules = stage.iptables_save(Family::IPv4)?;
        ensure!(rules.contains(FOREIGN_RULE), "theirs is gone: {rules}");
        let tables = stage.node("nft list tables")?;
        ensure!(tables.contains(FOREIGN_TABLE), "theirs is gone: {tables}");
        Ok(())
    }

    fn wrong(self, stage: &Stage) -> Result<Vec<String>> {
        let mut there = Vec::new();
        // Both modes have rules and sets under these names.
        let with_rules = match self.in_force {
            Mode::Ipvs => Mode::Ipvs,
            _ => Mode::Iptables,
        };
        for family in [Family::IPv4, Family::IPv6] {
            let rules = stage.iptables_save(family)?;
            // The kubelet makes this chain as well.
            let ours = |line: &&str| line.contains("KUBE-") && !line.contains("KUBE-FIREWALL");
            there.push((with_rules, rules.lines().find(ours).map(str::to_owned)));
        }
        for line in stage.node("nft list tables")?.lines() {
            let is_ours = line.contains("kube-proxy");
            there.push((Mode::Nftables, is_ours.then(|| line.to_owned())));
        }
        let sets = stage.node("ipset list -n")?;
        let set = sets.lines().find(|line| line.contains("KUBE-"));
        there.push((with_rules, set.map(str::to_owned)));
        let links = stage.node("ip -o link show")?;
        let device = links.lines().find(|line| line.contains("kube-ipvs0"));
        let of_ipvs = sets.lines().find(|line| line.contains("KUBE-LOOP-BACK"));
        there.push((Mode::Ipvs, device.or(of_ipvs).map(str::to_owned)));
        let pin = first_file(&stage.bed.ebpf_roots()?.bpf);
        there.push((Mode::Ebpf, pin));
        let mut wrong = Vec::new();
        let handover = stage.node("nft list tables")?;
        let handover = handover.lines().find(|line| line.contains("handover"));
        wrong.extend(handover.map(|line| format!("left {line}")));
        if self.in_force == Mode::Iptables
            && !stage
                .iptables_save(Family::IPv4)?
                .contains("--ctstate INVALID")
        {
            wrong
                .push("without the rule that is left out while flows of ebpf mode last".to_owned());
        }
        for mode in [Mode::Iptables, Mode::Nftables, Mode::Ipvs, Mode::Ebpf] {
            let found = there.iter().filter(|(of, _)| *of == mode);
            let mut found = found.filter_map(|(_, what)| what.clone());
            match found.next() {
                Some(what) if mode != self.in_force => wrong.push(format!("{mode:?} left {what}")),
                None if mode == self.in_force => wrong.push(format!("nothing of {mode:?}")),
                _ => {}
            }
        }
        Ok(wrong)
    }
}

fn first_file(dir: &Path) -> Option<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut entries = entries.map(|entry| entry.path());
    entries.next().map(|path| path.display().to_string())
}

/// Puts in place what is somebody else's.
pub(super) fn lay_down_foreign(stage: &Stage) -> Result<()> {
    stage.node(&format!("nft add table {FOREIGN_TABLE}"))?;
    let multi = stage.tool()?.multi();
    stage.node(&format!(
        "{multi} iptables -A FORWARD -m comment --comment {FOREIGN_RULE} -j ACCEPT"
    ))?;
    Ok(())
}

impl Stage {
    pub(super) fn iptables_save(&self, family: Family) -> Result<String> {
        save_rules(&self.bed, self.tool()?, family)
    }

    /// What a command prints in node1.
    pub(super) fn node(&self, command: &str) -> Result<String> {
        let words: Vec<&str> = command.split(' ').collect();
        self.bed.run(Place::Node1, &words, "")?.success(command)
    }
}
