//! From each proxy mode to each other, and from kube-proxy and back: under steady traffic no new
//! connection fails, those that are open go on, and nothing of the former mode stays.

mod kept;
mod left;
mod stage;
mod twice;

use anyhow::{Context, Result};
use switchyard_tests::cases::Backend;
use switchyard_tests::testbed::Traffic;

use self::kept::Open;
use self::left::Left;
use self::stage::{Stage, Switch, kube_proxy};

/// Each way from one of three modes to another.
const ROUND: [Mode; 7] = {
    use Mode::{Ebpf, Iptables, Nftables};
    [Iptables, Nftables, Ebpf, Iptables, Ebpf, Nftables, Iptables]
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Iptables,
    Nftables,
    /// Few kernels have it: see the tests that are ignored.
    Ipvs,
    Ebpf,
}

/// The backends that stand for the modes in one round.
#[derive(Clone, Copy)]
struct Backends {
    iptables: Backend,
    ebpf: Backend,
}

const USUAL: Backends = Backends {
    iptables: Backend::IPTABLES_NFT,
    ebpf: Backend::EBPF,
};
const OTHERS: Backends = Backends {
    iptables: Backend::IPTABLES_LEGACY,
    ebpf: Backend::EBPF_DIRECT,
};

impl Backends {
    /// The backend of a mode. All find the tool of iptables, for the rules that must go.
    fn of(self, mode: Mode) -> Backend {
        let backend = match mode {
            Mode::Iptables => self.iptables,
            Mode::Nftables => Backend::NFTABLES,
            Mode::Ipvs => Backend::IPVS,
            Mode::Ebpf => self.ebpf,
        };
        Backend {
            tool: self.iptables.tool,
            ..backend
        }
    }
}

/// So many of a thousand new connections may fail where ipvs mode goes: IPVS remembers
/// connections for two minutes after they were closed, and takes answers for theirs whose ports are the
/// same; and the node's own are under an address that goes. See docs/modes.md.
const IPVS_MAY_FAIL_OF_1000: usize = 5;

/// After a switch: what was open goes on, packets meet what they must, the former mode is gone.
fn look_after(stage: &Stage, traffic: &Traffic, open: Open, from: Mode, to: Mode) -> Result<()> {
    traffic.wait_for_connections(100)?;
    stage.check_kept(&open, from, to)?;
    drop(open);
    stage.check_verdicts(to)?;
    Left::of_all_but(to).wait_gone(stage)
}

/// Goes a whole round, and looks after each switch.
fn go_round(round: &[Mode], backends: Backends, switch: Switch) -> Result<()> {
    let mut stage = Stage::new(backends)?;
    stage.begin(round[0], switch)?;
    let traffic = stage.traffic()?;
    for ways in round.windows(2) {
        let (from, to) = (ways[0], ways[1]);
        let way = format!("{from:?} to {to:?}, {switch:?}");
        let open = stage.open()?;
        stage.switch(to, switch).with_context(|| way.clone())?;
        look_after(&stage, &traffic, open, from, to).with_context(|| way.clone())?;
        println!("{way}: {} connections so far", traffic.connections());
    }
    let report = traffic.stop()?;
    let checked = if round.contains(&Mode::Ipvs) {
        println!("{} of {} failed", report.failed(), report.connections);
        report.check_but_for(IPVS_MAY_FAIL_OF_1000)
    } else {
        report.check()
    };
    checked.with_context(|| stage.log_tail())
}

#[test]
fn restarts_with_another_flag() -> Result<()> {
    go_round(&ROUND, USUAL, Switch::Restart)
}

#[test]
fn changes_of_the_configuration_file() -> Result<()> {
    go_round(&ROUND, OTHERS, Switch::Reload)
}

#[test]
fn a_client_s_ports_are_used_twice() -> Result<()> {
    twice::go(USUAL, Switch::Restart)
}

#[test]
fn a_client_s_ports_are_used_twice_past_the_stack() -> Result<()> {
    twice::go(OTHERS, Switch::Reload)
}

/// From ipvs mode to another and back, in a kernel that has IPVS.
fn ipvs_and(other: Mode) -> Result<()> {
    go_round(&[Mode::Ipvs, other, Mode::Ipvs], USUAL, Switch::Restart)
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn ipvs_and_iptables() -> Result<()> {
    ipvs_and(Mode::Iptables)
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn ipvs_and_nftables() -> Result<()> {
    ipvs_and(Mode::Nftables)
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn ipvs_and_ebpf() -> Result<()> {
    ipvs_and(Mode::Ebpf)
}

/// From the rules of a running kube-proxy to each mode, and back to it.
fn from_kube_proxy_and_back(reference: Mode) -> Result<()> {
    let mut stage = Stage::new(USUAL)?;
    kube_proxy::load(&stage.bed, reference)?;
    let traffic = stage.traffic()?;
    for to in [Mode::Iptables, Mode::Nftables, Mode::Ebpf] {
        let way = format!("kube-proxy's {reference:?} to {to:?}");
        let open = stage.open()?;
        stage
            .begin(to, Switch::Restart)
            .with_context(|| way.clone())?;
        look_after(&stage, &traffic, open, reference, to).with_context(|| way.clone())?;
        let way = format!("{to:?} back to kube-proxy's {reference:?}");
        let open = stage.open()?;
        // It knows nothing of our programs: what it takes over from is its own mode.
        if to != reference {
            stage.switch(reference, Switch::Restart)?;
            traffic.wait_for_connections(100)?;
            stage
                .check_kept(&open, to, reference)
                .with_context(|| way.clone())?;
        }
        // Its rules drop what connection tracking can't make sense of: flows of ebpf mode, maybe.
        drop(open);
        Left::of_all_but(reference)
            .wait_gone(&stage)
            .with_context(|| way.clone())?;
        let open = stage.open()?;
        stage.end()?;
        kube_proxy::start(&stage.bed, reference).with_context(|| way.clone())?;
        traffic.wait_for_connections(100)?;
        stage
            .check_kept(&open, reference, reference)
            .with_context(|| way.clone())?;
        println!("{way}: {} connections so far", traffic.connections());
    }
    traffic.stop()?.check().with_context(|| stage.log_tail())
}

#[test]
fn from_kube_proxy_s_rules_and_back() -> Result<()> {
    from_kube_proxy_and_back(Mode::Iptables)
}

#[test]
fn from_kube_proxy_s_tables_and_back() -> Result<()> {
    from_kube_proxy_and_back(Mode::Nftables)
}
