//! Other people's hands on what ipvs mode uses, and other machines on the same wire.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use switchyard_tests::cases::{Backend, IngressSpec, ServiceSpec, save_rules};
use switchyard_tests::testbed::{
    Family, IptablesTool, Outcome, Place, Probe, Protocol, Proxy, wait_for,
};

use super::stage::{EACH_SECOND, ENDPOINTS, POLL, SOON, Stage, VIP, service};

#[test]
#[ignore = "needs a kernel with IPVS"]
fn what_exclude_cidrs_name_is_left_alone_and_works() -> Result<()> {
    let stage = Stage::new()?;
    // Both look like an earlier run's: their addresses are on our device.
    stage.run("ip link add kube-ipvs0 type dummy")?;
    for address in ["10.96.7.9", "10.96.6.66"] {
        stage.run(&format!("ip address add {address}/32 dev kube-ipvs0"))?;
        stage.run(&format!("ipvsadm -A -t {address}:80 -s wlc"))?;
        let endpoint = format!("{}:8080", ENDPOINTS[0]);
        stage.run(&format!("ipvsadm -a -t {address}:80 -r {endpoint} -m -w 3"))?;
    }
    stage.put(&[service(&ENDPOINTS[1..])?])?;
    let flags = [EACH_SECOND, "--ipvs-exclude-cidrs=10.96.7.0/24"];
    let _proxy = stage.start(Backend::IPVS, &flags)?;
    stage.wait_answered(Place::Pod12, VIP, ENDPOINTS[1])?;
    let theirs = "-a -t 10.96.7.9:80 -r 10.244.1.31:8080 -m -w 3";
    let like_ours = "-A -t 10.96.6.66:80 -s wlc";
    stage.wait_listed("ipvsadm -Sn", like_ours, false, SOON)?;
    std::thread::sleep(3 * std::time::Duration::from_secs(1)); // some sync periods
    for line in ["-A -t 10.96.7.9:80 -s wlc", theirs] {
        stage.wait_listed("ipvsadm -Sn", line, true, SOON)?;
    }
    stage.wait_answered(Place::Pod12, "10.96.7.9:80", ENDPOINTS[0])
}

/// An address of the nodes' own network, as MetalLB gives them: the others ask for it by ARP.
#[test]
#[ignore = "needs a kernel with IPVS"]
fn with_strict_arp_no_other_interface_answers_for_a_vip() -> Result<()> {
    const LB: &str = "192.168.100.77";
    let stage = Stage::new()?;
    let with_lb = ServiceSpec {
        kind: Some("LoadBalancer".to_owned()),
        ports: vec!["p80 80->8080/TCP node=30600".parse()?],
        load_balancer: vec![IngressSpec::Address(LB.parse()?)],
        ..service(&ENDPOINTS[..1])?
    };
    stage.put(&[with_lb])?;
    let to = format!("{LB}:80");
    let known = |stage: &Stage| -> Result<bool> {
        let command = ["ip", "neigh", "show", LB, "dev", "eth0"];
        let shown = stage.bed.run(Place::Node2, &command, "")?.success("ip")?;
        Ok(shown.contains("lladdr"))
    };
    let mut proxy = stage.start(Backend::IPVS, &[])?;
    stage.wait_answered(Place::Node2, &to, ENDPOINTS[0])?;
    ensure!(known(&stage)?, "answered by whom?");
    ensure!(proxy.terminate()?.success());
    let flush = ["ip", "neigh", "flush", "dev", "eth0"];
    stage
        .bed
        .run(Place::Node2, &flush, "")?
        .success("ip neigh flush")?;
    let _proxy = stage.start(Backend::IPVS, &["--ipvs-strict-arp"])?;
    let probe = Probe::new(Place::Node2, Protocol::Tcp, to.parse()?);
    let outcome = stage.bed.probe(&probe)?;
    ensure!(!matches!(outcome, Outcome::Answered(_)), "{outcome}");
    ensure!(!known(&stage)?, "somebody answered for {LB}");
    // Who is routed there still gets there, and the node's own address is still answered for.
    stage.wait_answered(Place::Pod12, &to, ENDPOINTS[0])?;
    stage.wait_answered(Place::Node2, "192.168.100.11:30600", ENDPOINTS[0])?;
    let set = stage.run("sysctl -n net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce")?;
    ensure!(set == "1\n2\n", "{set}");
    Ok(())
}

/// The kernel destroys no set that a rule uses.
#[test]
#[ignore = "needs a kernel with IPVS"]
fn a_used_set_of_another_kind_is_made_anew_unless_others_use_it() -> Result<()> {
    let stage = Stage::new()?;
    stage.put(&[service(&ENDPOINTS[..1])?])?;
    let proxy = stage.start(Backend::IPVS, &[EACH_SECOND])?;
    stage.wait_answered(Place::Client, VIP, ENDPOINTS[0])?;
    let rules = |stage: &Stage| -> Result<Vec<String>> {
        let saved = save_rules(&stage.bed, IptablesTool::Nft, Family::IPv4)?;
        let ours = saved.lines().filter(|line| line.starts_with("-A KUBE-"));
        Ok(ours.map(str::to_owned).collect())
    };
    let right = rules(&stage)?;
    // In use by our own rules alone.
    change_kind(&stage, &proxy, "")?;
    wait_right(&stage)?;
    ensure!(rules(&stage)? == right, "{:#?}", rules(&stage)?);
    ensure!(
        proxy
            .log()
            .contains("a set of ours is of another kind: made anew"),
        "{}",
        proxy.log_tail(10)
    );
    // By somebody else's as well: all stays, and is told.
    let theirs = "-A OUTPUT -m set --match-set KUBE-CLUSTER-IP dst";
    change_kind(&stage, &proxy, theirs)?;
    let said = "is a hash:net of IPv4, where a hash:ip,port of IPv4 is needed; remove or rename it: \
                it is not made anew, as 1 rules or sets of others use it";
    wait_for("the refusal", SOON, POLL, || Ok(proxy.log().contains(said)))
        .with_context(|| proxy.log_tail(10))?;
    ensure!(rules(&stage)? == right, "{:#?}", rules(&stage)?);
    // Until they let go.
    let remove = theirs.replace("-A", "-D");
    stage.run(&format!("xtables-nft-multi iptables {remove}"))?;
    wait_right(&stage)?;
    ensure!(rules(&stage)? == right, "{:#?}", rules(&stage)?);
    Ok(())
}

/// The kernel counts the services of all network namespaces where it goes on with a list.
#[test]
#[ignore = "needs a kernel with IPVS; run by hand"]
fn what_other_namespaces_change_refuses_nothing() -> Result<()> {
    const SERVICES: usize = 250;
    const ROUNDS: usize = 40;
    let stage = Stage::new()?;
    let mut services = Vec::new();
    for number in 0..SERVICES {
        let mut filler = service(&ENDPOINTS[..1])?;
        filler.cluster_ip = Some(format!("10.96.{}.{}", 1 + number / 90, 1 + number % 90));
        services.push(filler);
    }
    services.retain(|filler| filler.cluster_ip.as_deref() != Some("10.96.6.1"));
    services.push(service(&ENDPOINTS)?);
    stage.put(&services)?;
    let proxy = stage.start(Backend::IPVS, &[EACH_SECOND, "-v=4"])?;
    let mut lines = String::new();
    for verb in ["-A", "-D"] {
        for number in 1..200 {
            lines += &format!("{verb} -t 10.99.0.{number}:80\n");
        }
    }
    let restore = ["ipvsadm", "--restore"];
    for _ in 0..ROUNDS {
        stage
            .bed
            .run(Place::Pod22, &restore, &lines)?
            .success("ipvsadm")?;
    }
    let log = proxy.log();
    let times = log.matches("looked at by themselves").count();
    println!("services were not as they had been listed {times} times");
    ensure!(
        !log.contains("already") && !log.contains("there is no virtual"),
        "{log}"
    );
    stage.wait_answered(Place::Pod12, VIP, ENDPOINTS[0])
}

/// Puts a set of another kind under the name of one of ours, with all rules that use it, and
/// another one that does.
fn change_kind(stage: &Stage, proxy: &Proxy, another: &str) -> Result<()> {
    let feed = |command: &[&str], text: &str| -> Result<String> {
        stage
            .bed
            .run(Place::Node1, command, text)?
            .success(&command.join(" "))
    };
    proxy.signal(Signal::SIGSTOP)?;
    let saved = feed(&["xtables-nft-multi", "iptables-save"], "")?;
    let without: Vec<&str> = saved
        .lines()
        .filter(|line| !line.contains("KUBE-CLUSTER-IP "))
        .collect();
    let without = without.join("\n") + "\n";
    let restore = ["xtables-nft-multi", "iptables-restore"];
    feed(&restore, &without)?;
    // A deleted rule lets go of its set a moment later.
    wait_for("the set to be let go", SOON, POLL, || {
        let destroy = ["ipset", "destroy", "KUBE-CLUSTER-IP"];
        let destroyed = stage.bed.run(Place::Node1, &destroy, "")?;
        Ok(destroyed.success("ipset destroy").is_ok())
    })?;
    stage.run("ipset create KUBE-CLUSTER-IP hash:net")?;
    feed(&restore, &saved)?;
    if !another.is_empty() {
        stage.run(&format!("xtables-nft-multi iptables {another}"))?;
    }
    proxy.signal(Signal::SIGCONT)
}

fn wait_right(stage: &Stage) -> Result<()> {
    let member = "add KUBE-CLUSTER-IP 10.96.6.1,tcp:80";
    stage.wait_listed("ipset save KUBE-CLUSTER-IP", member, true, SOON)?;
    stage.wait_answered(Place::Client, VIP, ENDPOINTS[0])
}
