//! Which backend it is going to be.

use switchyard_cluster::object::{IpFamily, IpvsScheduler};

use super::error::StartError;
use super::facts::Facts;
use super::host;
use crate::backend::ebpf::{self, Ebpf, Missing, Paths};
use crate::backend::iptables::Rules;
use crate::backend::ipvs::{self, Ipvs, IpvsModeError};
use crate::backend::nftables::{self, Features, NftablesModeError, Tables};
use crate::backend::xtables::Tool;
use crate::backend::{Backend, Mode};
use crate::settings::{EbpfSettings, ProxyMode, Settings};

/// A backend that can be had, as far as can be told without touching anything.
#[derive(Debug)]
pub(super) enum Choice {
    Iptables(Vec<Tool>),
    Ipvs(Vec<Tool>, Vec<IpvsScheduler>),
    Nftables(Vec<(IpFamily, Features)>),
    Ebpf(Paths),
}

impl Choice {
    /// The mode it stands for.
    pub(super) const fn mode(&self) -> Mode {
        match self {
            Self::Iptables(_) => Mode::Iptables,
            Self::Ipvs(..) => Mode::Ipvs,
            Self::Nftables(_) => Mode::Nftables,
            Self::Ebpf(_) => Mode::Ebpf,
        }
    }

    /// Has the kernel load what the tools would load later, with more rights than they will have.
    pub(super) fn load_modules(&self) {
        if let Self::Iptables(tools) | Self::Ipvs(tools, _) = self {
            tools.iter().for_each(Tool::load_modules);
        }
    }
}

/// Finds out what the machine has of what the operator wants.
pub(super) fn choose(settings: &Settings) -> Result<Choice, StartError> {
    let ebpf = || find_ebpf(&settings.ebpf).map_err(|missing| in_words(&missing));
    match settings.proxy_mode {
        ProxyMode::Iptables => host::find_tools().map(Choice::Iptables),
        ProxyMode::Ipvs => find_ipvs(settings),
        ProxyMode::Nftables => find_nftables()
            .map(Choice::Nftables)
            .map_err(StartError::Nftables),
        ProxyMode::Ebpf => ebpf().map(Choice::Ebpf).map_err(StartError::NoEbpf),
        ProxyMode::Auto => match ebpf() {
            Ok(paths) => Ok(Choice::Ebpf(paths)),
            Err(why) => fall_back(why),
        },
    }
}

/// Gets the backend ready, and says what was chosen where there was a choice. Sets the
/// families it works in.
pub(super) fn open(choice: Choice, facts: &mut Facts) -> Result<Backend, StartError> {
    let is_free = facts.settings.proxy_mode == ProxyMode::Auto;
    let paths = match choice {
        Choice::Iptables(tools) => return Ok(rules(tools, facts)),
        Choice::Ipvs(tools, schedulers) => return open_ipvs(&tools, schedulers, facts),
        Choice::Nftables(families) => return tables(families, facts),
        Choice::Ebpf(paths) => paths,
    };
    facts.families = host::families();
    match Ebpf::open(paths, facts.ebpf()) {
        Ok(ebpf) => {
            if is_free {
                tracing::info!(mode = "ebpf", "chose the proxy mode: all it needs is there");
            }
            Ok(Backend::Ebpf(Box::new(ebpf)))
        }
        Err(error) if is_free => open(fall_back(error.to_string())?, facts),
        Err(error) => Err(StartError::Ebpf(error)),
    }
}

fn rules(tools: Vec<Tool>, facts: &mut Facts) -> Backend {
    facts.families = tools.iter().map(|tool| tool.family).collect();
    let rules = tools
        .into_iter()
        .map(|tool| Rules::new(facts.iptables(tool.family), tool));
    Backend::Iptables(rules.collect())
}

fn tables(families: Vec<(IpFamily, Features)>, facts: &mut Facts) -> Result<Backend, StartError> {
    facts.families = families.iter().map(|(family, _)| *family).collect();
    let families = families
        .into_iter()
        .map(|(family, features)| (facts.nftables(family), features));
    Tables::open(families)
        .map(|tables| Backend::Nftables(Box::new(tables)))
        .map_err(StartError::Nftables)
}

/// What the kernel has for nftables mode, in every family the node has. One without IPv6 is a
/// warning.
fn find_nftables() -> Result<Vec<(IpFamily, Features)>, NftablesModeError> {
    let mut found = Vec::new();
    for family in host::families() {
        match nftables::probe(family) {
            Ok(features) => found.push((family, features)),
            Err(error) if family == IpFamily::V4 => return Err(error),
            Err(error) => tracing::warn!(%error, "IPv4 only"),
        }
    }
    Ok(found)
}

/// IPVS, or nftables or iptables where the machine lacks something for it.
///
/// # Errors
/// IPVS without the scheduler that is wanted; none of the three.
fn find_ipvs(settings: &Settings) -> Result<Choice, StartError> {
    let tools = match host::find_tools() {
        Ok(tools) => tools,
        Err(error) => return instead_of_ipvs(&error),
    };
    let Some(tool) = tools.first() else {
        return Ok(Choice::Iptables(tools)); // there is one of IPv4, else it is an error above
    };
    match ipvs::probe(settings.ipvs.scheduler, tool) {
        Ok(schedulers) => Ok(Choice::Ipvs(tools, schedulers)),
        Err(error @ IpvsModeError::NoScheduler { .. }) => Err(StartError::Ipvs(error)),
        Err(error) => instead_of_ipvs(&error),
    }
}

/// The backend, or another where sets, the device or the match of sets can't be had.
fn open_ipvs(
    tools: &[Tool],
    schedulers: Vec<IpvsScheduler>,
    facts: &mut Facts,
) -> Result<Backend, StartError> {
    facts.families = tools.iter().map(|tool| tool.family).collect();
    facts.schedulers = schedulers.into();
    let opened = tools
        .iter()
        .map(|tool| Ipvs::open(facts.ipvs(tool.family), tool.clone()));
    match opened.collect() {
        Ok(families) => Ok(Backend::Ipvs(families)),
        Err(error) => open(instead_of_ipvs(&error)?, facts),
    }
}

/// nftables, else iptables, where IPVS is wanted and can't be had.
fn instead_of_ipvs(error: &dyn std::fmt::Display) -> Result<Choice, StartError> {
    match find_nftables() {
        Ok(families) => {
            tracing::warn!(
                mode = "nftables",
                %error,
                "--proxy-mode=ipvs can't be had on this machine: nftables in its place"
            );
            Ok(Choice::Nftables(families))
        }
        Err(not_nftables) => {
            let tools = host::find_tools()?;
            tracing::warn!(
                mode = "iptables", %error, %not_nftables,
                "--proxy-mode=ipvs can't be had on this machine: iptables in its place"
            );
            Ok(Choice::Iptables(tools))
        }
    }
}

/// nftables, else iptables, in `auto` where eBPF can't be had.
fn fall_back(not_ebpf: String) -> Result<Choice, StartError> {
    let not_nftables = match find_nftables() {
        Ok(families) => {
            tracing::info!(mode = "nftables", %not_ebpf, "chose the proxy mode");
            return Ok(Choice::Nftables(families));
        }
        Err(error) => error.to_string(),
    };
    match host::find_tools() {
        Ok(tools) => {
            tracing::info!(
                mode = "iptables", %not_ebpf, %not_nftables,
                "chose the proxy mode"
            );
            Ok(Choice::Iptables(tools))
        }
        Err(error) => Err(StartError::NoMode {
            ebpf: not_ebpf,
            nftables: not_nftables,
            iptables: Box::new(error),
        }),
    }
}

fn find_ebpf(settings: &EbpfSettings) -> Result<Paths, Vec<Missing>> {
    let cgroup_root = settings.cgroup_root.clone().or_else(host::cgroup2_mount);
    let Some(cgroup_root) = cgroup_root else {
        return Err(vec![Missing {
            feature: "cgroup2 file system",
            needs: "one mounted, or --cgroup-root".to_owned(),
            said: "/proc/mounts has none".to_owned(),
        }]);
    };
    let paths = Paths {
        cgroup_root,
        bpf_root: settings.bpf_root.clone(),
    };
    ebpf::probe(&paths).map(|features| {
        tracing::debug!(?features, "the machine has what ebpf mode needs");
        paths
    })
}

fn in_words(missing: &[Missing]) -> String {
    let each: Vec<String> = missing.iter().map(Missing::to_string).collect();
    each.join("; ")
}

/// The names of families, for a line of the log.
pub(super) fn names(families: &[IpFamily]) -> String {
    let names: Vec<&str> = families.iter().map(|family| family.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_named() {
        let missing = |feature, needs: &str| Missing {
            feature,
            needs: needs.to_owned(),
            said: "Invalid argument".to_owned(),
        };
        let both = [
            missing("cgroup socket programs", "Linux 5.8"),
            missing("tcx or clsact", "CONFIG_NET_CLS_ACT"),
        ];
        assert_eq!(
            StartError::NoEbpf(in_words(&both)).to_string(),
            "--proxy-mode=ebpf needs what this machine lacks: \
             no cgroup socket programs (needs Linux 5.8; the system said: Invalid argument); \
             no tcx or clsact (needs CONFIG_NET_CLS_ACT; the system said: Invalid argument): \
             use --proxy-mode=iptables, or auto, which takes what works"
        );
    }
}
