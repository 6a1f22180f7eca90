//! What the process may do after its start: what the running mode needs, and nothing else.
//!
//! Capabilities belong to threads, and a new one has those of its maker: this must be done before
//! there are any that stay.

use std::io;

use nix::unistd::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::backend::Mode;
use crate::settings::{ProxyMode, Settings};

/// What the start of any mode takes, beside what it needs later: kernel modules that iptables
/// loads itself, and the sign that others are to be killed for memory first.
const START: CapabilitySet = CapabilitySet::SYS_MODULE.union(CapabilitySet::SYS_RESOURCE);
/// Capabilities have numbers below this, for as long as a set has 64 bits.
const NUMBERS: u32 = 64;

/// What a mode needs all the time.
pub(super) const fn needed(mode: Mode) -> CapabilitySet {
    let rules = CapabilitySet::NET_ADMIN;
    match mode {
        Mode::Nftables => rules,
        // The tools of the older kind ask the kernel through a raw socket.
        Mode::Iptables | Mode::Ipvs => rules.union(CapabilitySet::NET_RAW),
        // Loading programs and making maps; SYS_ADMIN to enter the network namespaces of pods,
        // where sockets of endpoints that are gone are closed, and SYS_PTRACE to find those of
        // other users' processes.
        Mode::Ebpf => rules
            .union(CapabilitySet::BPF)
            .union(CapabilitySet::PERFMON)
            .union(CapabilitySet::SYS_ADMIN)
            .union(CapabilitySet::SYS_PTRACE),
    }
}

/// What it takes until it is known which mode runs.
pub(super) fn at_first(settings: &Settings, chosen: Mode) -> CapabilitySet {
    match settings.proxy_mode {
        ProxyMode::Auto => needed(chosen).union(needed(Mode::Iptables)),
        _ => needed(chosen),
    }
}

/// What a restart in place may take: the start of any mode.
const fn for_restarts() -> CapabilitySet {
    START
        .union(needed(Mode::Iptables))
        .union(needed(Mode::Ebpf))
}

/// Gives up for good what is not needed. Where a configuration file may ask for another
/// mode later, what its start would take stays permitted, but is not in effect until then.
///
/// What can't be given up is said, and the agent goes on: it is no worse than before.
pub(super) fn keep(effective: CapabilitySet, may_restart: bool) {
    let permitted = if may_restart {
        for_restarts().union(effective)
    } else {
        effective
    };
    match limit(effective, permitted) {
        Ok(kept) => tracing::info!(
            in_effect = names(kept.effective),
            permitted = names(kept.permitted),
            "kept these capabilities, and gave up all others"
        ),
        Err(error) => tracing::warn!(%error, "capabilities can't be given up"),
    }
}

fn limit(effective: CapabilitySet, permitted: CapabilitySet) -> io::Result<CapabilitySets> {
    set_no_new_privs(true)?;
    let now = capabilities(None)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set(permitted);
    }
    let permitted = now.permitted.intersection(permitted);
    // Programs that root starts have what is permitted; others need it handed on.
    let is_root = geteuid().is_root();
    let inheritable = if is_root {
        CapabilitySet::empty()
    } else {
        permitted
    };
    let kept = CapabilitySets {
        effective: permitted.intersection(effective),
        permitted,
        inheritable,
    };
    set_capabilities(None, kept)?;
    clear_ambient_capability_set()?;
    if !is_root {
        for capability in permitted.iter() {
            configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(kept)
}

/// What is no longer in there can't come back, whatever program is started.
fn empty_bounding_set(but: CapabilitySet) {
    let all = (0..NUMBERS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    // The first number that the kernel does not know is an error.
    let known = all.take_while(|capability| capability_is_in_bounding_set(*capability).is_ok());
    for capability in known.filter(|capability| !but.contains(*capability)) {
        if let Err(error) = remove_capability_from_bounding_set(capability) {
            tracing::debug!(%error, ?capability, "stays in the bounding set");
        }
    }
}

/// `NET_ADMIN, NET_RAW`.
fn names(set: CapabilitySet) -> String {
    let names: Vec<&str> = set.iter_names().map(|(name, _)| name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_may_become_any_mode() {
        for mode in Mode::ALL {
            assert!(for_restarts().contains(needed(mode)), "{mode}");
        }
        assert_eq!(names(needed(Mode::Nftables)), "NET_ADMIN");
        assert_eq!(names(needed(Mode::Iptables)), "NET_ADMIN, NET_RAW");
    }

    /// In a thread of its own, which is all that it changes.
    #[test]
    fn what_is_given_up_stays_given_up() {
        let given_up = std::thread::spawn(|| {
            let kept = CapabilitySet::NET_ADMIN;
            limit(kept, kept).unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let more = CapabilitySets {
                effective: CapabilitySet::SYS_ADMIN,
                permitted: CapabilitySet::SYS_ADMIN,
                inheritable: CapabilitySet::empty(),
            };
            (status, set_capabilities(None, more).is_err())
        });
        let (status, is_final) = given_up.join().unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        assert!(is_final);
        assert_eq!(field("NoNewPrivs:"), "1");
        let beyond = !CapabilitySet::NET_ADMIN.bits();
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            let bits = u64::from_str_radix(&field(set), 16).unwrap();
            assert_eq!(bits & beyond, 0, "{set}");
        }
    }
}
