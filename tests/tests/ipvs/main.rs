//! What only ipvs mode does, and what it leaves alone. Needs a kernel with IPVS and dummy devices,
//! such as those of `cargo xtask vm`: ignored elsewhere, and run there by `cargo xtask test`.

mod killed;
mod others;
mod stage;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{Backend, IngressSpec, ServiceSpec, per_service_chains, save_rules};
use switchyard_tests::testbed::{
    Family, IptablesTool, Outcome, Place, Probe, Protocol, Proxy, Traffic, wait_for,
};

use self::stage::{EACH_SECOND, ENDPOINTS, FAMILIES, POLL, SOON, Stage, VIP, service};

/// A connection that was reset is forgotten by IPVS after 10 s; a sync period later its endpoint
/// goes.
const DRAINED: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs a kernel with IPVS"]
fn what_others_have_is_left_alone_and_ours_goes_at_cleanup() -> Result<()> {
    let stage = Stage::new()?;
    let foreign = [
        "-A -t 192.0.2.77:8080 -s wlc",
        "-A -t 192.168.100.11:9999 -s rr",
        "-A -f 7 -s rr",
    ];
    for service in foreign {
        stage.run(&format!("ipvsadm {service}"))?;
    }
    stage.run("ipset create FOREIGN hash:ip")?;
    stage
        .bed
        .add_node_address(Place::Node1, "203.0.113.60".parse()?)?;
    // An earlier run's: its address is on our device.
    stage.run("ip link add kube-ipvs0 type dummy")?;
    stage.run("ip address add 10.96.6.66/32 dev kube-ipvs0")?;
    stage.run("ipvsadm -A -t 10.96.6.66:80 -s rr")?;
    let with_lb = ServiceSpec {
        kind: Some("LoadBalancer".to_owned()),
        ports: vec!["p80 80->8080/TCP node=30600".parse()?],
        load_balancer: vec![IngressSpec::Address("203.0.113.60".parse()?)],
        ..service(&ENDPOINTS)?
    };
    stage.put(&[with_lb])?;
    let mut proxy = stage.start(Backend::IPVS, &[EACH_SECOND])?;
    stage.wait_answered(Place::Pod12, VIP, ENDPOINTS[0])?;
    stage.wait_answered(Place::Client, "203.0.113.60:80", ENDPOINTS[1])?;
    let listed = stage.run("ipvsadm -Sn")?;
    let lines: Vec<&str> = listed.lines().map(str::trim).collect();
    for service in foreign {
        ensure!(lines.contains(&service), "{service} is gone:\n{listed}");
    }
    ensure!(!listed.contains("10.96.6.66"), "still there:\n{listed}");
    let addresses = stage.run("ip -o address show dev kube-ipvs0")?;
    ensure!(
        !addresses.contains("203.0.113.60") && !addresses.contains("10.96.6.66"),
        "{addresses}"
    );
    ensure!(addresses.contains("10.96.6.1/32"), "{addresses}");
    ensure!(
        proxy.log().contains("203.0.113.60"),
        "nothing is said of it"
    );
    ensure!(proxy.terminate()?.success());
    let mut options = Backend::IPVS.options(&stage.bed, stage.manifests.dir())?;
    options.flags = vec!["--cleanup".to_owned()];
    let ended = Proxy::spawn(&stage.bed, options)?.wait_exit(SOON)?;
    ensure!(ended.success(), "--cleanup ended with {ended}");
    let listed = stage.run("ipvsadm -Sn")?;
    let left: Vec<&str> = listed.lines().map(str::trim).collect();
    ensure!(left.len() == foreign.len(), "left:\n{listed}");
    ensure!(
        foreign.iter().all(|service| left.contains(service)),
        "left:\n{listed}"
    );
    let sets = stage.run("ipset list -n")?;
    ensure!(sets.trim() == "FOREIGN", "left:\n{sets}");
    let links = stage.run("ip -o link")?;
    ensure!(!links.contains("kube-ipvs0"), "left:\n{links}");
    for family in FAMILIES {
        let rules = save_rules(&stage.bed, IptablesTool::Nft, family)?;
        let left = rules
            .lines()
            .any(|line| line.contains("KUBE-") && !line.contains("KUBE-FIREWALL"));
        ensure!(!left, "left:\n{rules}");
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn an_endpoint_that_goes_keeps_its_connections_until_they_end() -> Result<()> {
    let stage = Stage::new()?;
    stage.put(&[service(&ENDPOINTS[..1])?])?;
    let mut proxy = stage.start(Backend::IPVS, &[EACH_SECOND])?;
    let probe = Probe::new(Place::Pod12, Protocol::Tcp, VIP.parse()?);
    let connection = stage.bed.connect(&probe)?;
    stage.put(&[service(&ENDPOINTS[1..])?])?;
    let drained = "-a -t 10.96.6.1:80 -r 10.244.1.31:8080 -m -w 0";
    stage.wait_listed("ipvsadm -Sn", drained, true, SOON)?;
    stage.wait_answered(Place::Pod12, VIP, ENDPOINTS[1])?;
    ensure!(proxy.terminate()?.success());
    proxy = stage.start(Backend::IPVS, &[EACH_SECOND])?;
    std::thread::sleep(Duration::from_secs(3)); // some sync periods
    stage.wait_listed("ipvsadm -Sn", drained, true, SOON)?;
    let outcome = connection.ask(&stage.bed, SOON)?;
    let still =
        matches!(&outcome, Outcome::Answered(answer) if answer.by.ip().to_string() == ENDPOINTS[0]);
    ensure!(still, "{outcome}; {}", proxy.log_tail(20));
    let kill = ["ss", "-K", "dst", "10.96.6.1"];
    stage.bed.run(Place::Pod12, &kill, "")?.success("ss -K")?;
    stage.wait_listed("ipvsadm -Sn", drained, false, DRAINED)
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn every_scheduler_can_be_had_and_one_change_is_one_message() -> Result<()> {
    let stage = Stage::new()?;
    let names = [
        "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
    ];
    let with = |number: usize, scheduler: Option<&str>| -> Result<ServiceSpec> {
        let mut spec = service(&ENDPOINTS[..1])?;
        spec.cluster_ip = Some(format!("10.96.6.{number}"));
        let annotation = "switchyard.dev/ipvs-scheduler".to_owned();
        spec.annotations
            .extend(scheduler.map(|name| (annotation, name.to_owned())));
        Ok(spec)
    };
    let mut services = vec![with(50, None)?, with(51, Some("fair"))?];
    for (number, name) in names.into_iter().enumerate() {
        services.push(with(number + 1, Some(name))?);
    }
    stage.put(&services)?;
    let proxy = stage.start(
        Backend::IPVS,
        &["--ipvs-scheduler=wrr", "--ipvs-sync-period=1h"],
    )?;
    stage.wait_answered(Place::Pod12, VIP, ENDPOINTS[0])?;
    let listed = stage.run("ipvsadm -Sn")?;
    let scheduler_of = |number: usize| -> Option<&str> {
        let start = format!("-A -t 10.96.6.{number}:80 -s ");
        let line = listed.lines().find_map(|line| line.strip_prefix(&start))?;
        line.split(' ').next()
    };
    for (number, name) in names.into_iter().enumerate() {
        let found = scheduler_of(number + 1);
        ensure!(found == Some(name), "{name}: {found:?}\n{listed}");
    }
    ensure!(
        scheduler_of(50) == Some("wrr") && scheduler_of(51) == Some("wrr"),
        "{listed}"
    );
    ensure!(
        proxy.log().contains("ipvs-scheduler"),
        "nothing is said of \"fair\""
    );
    // The addresses that came are looked at by the agent, too; a change that meets that is part of
    // a comparison of everything.
    let mut said = 0;
    wait_for("the agent to rest", SOON, Duration::from_secs(3), || {
        let before = std::mem::replace(&mut said, proxy.log().len());
        Ok(before == said)
    })?;
    services[2] = service(&ENDPOINTS)?;
    services[2].annotations = with(1, Some("rr"))?.annotations;
    stage.put(&services)?;
    let added = "-a -t 10.96.6.1:80 -r 10.244.2.51:8080 -m -w 1";
    stage.wait_listed("ipvsadm -Sn", added, true, SOON)?;
    let mut wrote = None;
    wait_for("the log to say what was written", SOON, POLL, || {
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains("wrote the changes"));
        wrote = line.map(str::to_owned);
        Ok(wrote.is_some())
    })?;
    let wrote = wrote.unwrap_or_default();
    ensure!(wrote.trim().ends_with("changes=1"), "{wrote}");
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn time_outs_that_are_given_are_set_and_others_stay() -> Result<()> {
    let stage = Stage::new()?;
    stage.put(&[service(&ENDPOINTS)?])?;
    let list = "ipvsadm -L --timeout";
    let mut expected = [900, 120, 300]; // the kernel's own
    let runs: [&[(&str, usize, u32)]; 3] = [
        &[],
        &[("tcp", 0, 700), ("udp", 2, 200)],
        &[("tcpfin", 1, 45)],
    ];
    for run in runs {
        let mut flags = Vec::new();
        for (name, place, seconds) in run {
            flags.push(format!("--ipvs-{name}-timeout={seconds}s"));
            expected[*place] = *seconds;
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut proxy = stage.start(Backend::IPVS, &flags)?;
        let [tcp, fin, udp] = expected;
        let line = format!("Timeout (tcp tcpfin udp): {tcp} {fin} {udp}");
        stage.wait_listed(list, &line, true, SOON)?;
        ensure!(proxy.terminate()?.success());
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn what_others_change_is_put_right() -> Result<()> {
    let stage = Stage::new()?;
    stage.run("ipset create KUBE-CLUSTER-IP hash:net")?; // of another kind
    stage.put(&[service(&ENDPOINTS[..1])?])?;
    let proxy = stage.start(Backend::IPVS, &[EACH_SECOND])?;
    stage.wait_answered(Place::Pod12, VIP, ENDPOINTS[0])?;
    for damage in [
        "ipvsadm -D -t 10.96.6.1:80",
        "ipvsadm -d -t 10.96.6.1:80 -r 10.244.1.31:8080",
        "ipvsadm -e -t 10.96.6.1:80 -r 10.244.1.31:8080 -m -w 0",
        "ipset del KUBE-CLUSTER-IP 10.96.6.1,tcp:80",
        "ipset del KUBE-IPVS-IPS 10.96.6.1",
        "ip address del 10.96.6.1/32 dev kube-ipvs0",
        "ip link del kube-ipvs0",
        "xtables-nft-multi iptables -t nat -F KUBE-SERVICES",
    ] {
        stage.run(damage)?;
        let service = "-a -t 10.96.6.1:80 -r 10.244.1.31:8080 -m -w 1";
        stage.wait_listed("ipvsadm -Sn", service, true, SOON)?;
        let member = "add KUBE-CLUSTER-IP 10.96.6.1,tcp:80";
        stage.wait_listed("ipset save", member, true, SOON)?;
        stage.wait_listed("ipset save", "add KUBE-IPVS-IPS 10.96.6.1", true, SOON)?;
        stage
            .wait_answered(Place::Pod12, VIP, ENDPOINTS[0])
            .context(damage)?;
    }
    let jump = "-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT";
    let list = "xtables-nft-multi iptables -t nat -S KUBE-SERVICES";
    stage.wait_listed(list, jump, true, SOON)?;
    let repairs = "switchyard_reconcile_repairs_total{ip_family=\"IPv4\"}";
    ensure!(
        proxy.metric(&stage.bed, repairs)? >= 6.0,
        "{}",
        proxy.log_tail(20)
    );
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn from_iptables_and_back_no_connection_fails() -> Result<()> {
    let stage = Stage::new()?;
    stage.put(&[service(&ENDPOINTS)?])?;
    let mut proxy = stage.start(Backend::IPTABLES_NFT, &[])?;
    stage.wait_answered(Place::Pod12, VIP, ENDPOINTS[0])?;
    let from = [Place::Pod12, Place::Client];
    let traffic = Traffic::start(&stage.bed, &from, VIP.parse()?)?;
    // On the way back the node's own connections end: their source is the VIP, which goes.
    let mut of_node = Some(Traffic::start(&stage.bed, &[Place::Node1], VIP.parse()?)?);
    traffic.wait_for_connections(20)?;
    let removed = "removed what another proxy mode had left";
    for backend in [Backend::IPVS, Backend::IPTABLES_NFT] {
        ensure!(proxy.terminate()?.success());
        let before = proxy.log().len();
        proxy = stage.start(backend, &[EACH_SECOND])?;
        wait_for("the end of the other mode", SOON, POLL, || {
            Ok(proxy
                .log()
                .get(before..)
                .unwrap_or_default()
                .contains(removed))
        })?;
        traffic.wait_for_connections(20)?;
        if let Some(of_node) = of_node.take() {
            of_node.stop()?.check().context("from the node")?;
        }
        let rules = save_rules(&stage.bed, IptablesTool::Nft, Family::IPv4)?;
        let has_chains = !per_service_chains(&rules).is_empty();
        let services = stage.run("ipvsadm -Sn")?;
        let sets = stage.run("ipset list -n")?;
        let is_ipvs = backend == Backend::IPVS;
        ensure!(has_chains != is_ipvs, "{}:\n{rules}", backend.name);
        ensure!(
            services.trim().is_empty() != is_ipvs,
            "{}:\n{services}",
            backend.name
        );
        ensure!(
            sets.contains("KUBE-IPVS-IPS") == is_ipvs,
            "{}:\n{sets}",
            backend.name
        );
        ensure!(
            sets.contains("KUBE-CLUSTER-IPS") != is_ipvs,
            "{}:\n{sets}",
            backend.name
        );
    }
    traffic
        .stop()?
        .check()
        .with_context(|| format!("the log ends:\n{}", proxy.log_tail(20)))
}

/// On a kernel without IPVS; one that has it has nothing to fall back from.
#[test]
fn without_ipvs_nftables_takes_its_place() -> Result<()> {
    let stage = Stage::new()?;
    let has_ipvs = stage.bed.run(Place::Node1, &["ipvsadm", "-Sn"], "")?;
    if has_ipvs.success("ipvsadm").is_ok() {
        return Ok(());
    }
    stage.put(&[service(&ENDPOINTS)?])?;
    let proxy = stage.start(Backend::IPVS, &[EACH_SECOND])?;
    stage.wait_answered(Place::Pod12, VIP, ENDPOINTS[0])?;
    let said = "--proxy-mode=ipvs can't be had on this machine: nftables in its place";
    let lines = proxy.log();
    ensure!(
        lines.lines().filter(|line| line.contains(said)).count() == 1,
        "{lines}"
    );
    let address = "127.0.0.1:10249".parse()?;
    let mode = stage.bed.http_get(Place::Node1, address, "/proxyMode")?;
    ensure!(mode.body.trim() == "nftables", "{}", mode.body);
    Ok(())
}
