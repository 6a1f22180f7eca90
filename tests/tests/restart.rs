//! What a proxy that dies, starts again, or meets other people's hands on its rules does to the traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use switchyard_tests::cases::{
    Backend, Manifests, ServiceSpec, expand_service, node_objects, per_service_chains, save_rules,
};
use switchyard_tests::rulediff::SavedRules;
use switchyard_tests::testbed::{
    Family, IptablesTool, Outcome, Place, Probe, Protocol, Proxy, ProxyOptions, Testbed, Traffic,
    wait_for,
};

const FAMILIES: [Family; 2] = [Family::IPv4, Family::IPv6];
const VIP: &str = "10.96.5.1:80";
const LB: &str = "203.0.113.50:80";
const ENDPOINTS: [&str; 2] = ["10.244.1.31", "10.244.2.51"];
/// Enough to make a full sync take long enough to be killed in its middle.
const FILLERS: usize = 400;
const POLL: Duration = Duration::from_millis(30);

struct Stage {
    bed: Arc<Testbed>,
    manifests: Manifests,
    backend: Backend,
    flags: Vec<String>,
}

impl Stage {
    fn new(backend: Backend, flags: &[&str]) -> Result<Self> {
        let bed = Arc::new(Testbed::build()?);
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        for address in ENDPOINTS {
            for family in FAMILIES {
                bed.serve_endpoint(
                    Protocol::Tcp,
                    family.twin_socket(format!("{address}:8080").parse()?),
                )?;
            }
        }
        Ok(Self {
            bed,
            manifests,
            backend,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        })
    }

    fn options(&self) -> Result<ProxyOptions> {
        let mut options = self.backend.options(&self.bed, self.manifests.dir())?;
        options.flags.clone_from(&self.flags);
        Ok(options)
    }

    fn start(&self) -> Result<Proxy> {
        Proxy::start(&self.bed, self.options()?)
    }

    /// The iptables tool of the backend, for what is about rules.
    fn tool(&self) -> Result<IptablesTool> {
        self.backend.tool.context("a backend without iptables")
    }

    fn rules(&self, family: Family) -> Result<SavedRules> {
        let saved = save_rules(&self.bed, self.tool()?, family)?;
        Ok(SavedRules::parse(&saved))
    }

    /// Runs the iptables tool of a family in node1.
    fn iptables(&self, family: Family, arguments: &str) -> Result<String> {
        let tool = self.tool()?;
        let applet = tool.applet(family, "");
        let command: Vec<&str> = [tool.multi(), &applet, "-w"]
            .into_iter()
            .chain(arguments.split(' '))
            .collect();
        self.bed.run(Place::Node1, &command, "")?.success(arguments)
    }

    /// Whether `to` is answered by the endpoint with this address.
    fn answers(&self, from: Place, to: &str, endpoints: &[&str]) -> Result<bool> {
        let probes: Vec<Probe> = FAMILIES
            .into_iter()
            .map(|family| {
                let to = family.twin_socket(to.parse()?);
                Ok(Probe::new(from, Protocol::Tcp, to).timeout(Duration::from_millis(900)))
            })
            .collect::<Result<_>>()?;
        let outcomes = self.bed.probe_all(&probes)?;
        Ok(outcomes.iter().zip(FAMILIES).all(|(outcome, family)| {
            matches!(outcome, Outcome::Answered(answer) if endpoints.iter().any(|endpoint| {
                endpoint.parse().is_ok_and(|endpoint| family.twin(endpoint) == answer.by.ip())
            }))
        }))
    }

    fn wait_until_answered(&self, to: &str, endpoints: &[&str], limit: Duration) -> Result<()> {
        let what = format!("{to} answered by {endpoints:?}");
        wait_for(&what, limit, POLL, || {
            self.answers(Place::Pod12, to, endpoints)
        })
    }
}

fn service(cluster_ip: &str, endpoints: &[&str]) -> Result<ServiceSpec> {
    ServiceSpec::new(cluster_ip, "p80 80->8080", endpoints)
}

/// The Service under traffic, `fillers` others, and one whose address tells `generation`.
fn cluster(fillers: usize, generation: usize) -> Result<Vec<Value>> {
    let mut objects = node_objects();
    let main = ServiceSpec {
        kind: Some("LoadBalancer".to_owned()),
        ports: vec!["p80 80->8080/TCP node=30500".parse()?],
        load_balancer: vec![switchyard_tests::cases::IngressSpec::Address(
            "203.0.113.50".parse()?,
        )],
        ..service("10.96.5.1", &ENDPOINTS)?
    };
    objects.extend(expand_service("main", &main, &FAMILIES)?);
    for number in 0..fillers {
        // Third number below 5, fourth below 100, then more of the service network in IPv4 alone.
        let endpoint = ENDPOINTS[(number + generation) % 2];
        let address = format!("10.96.{}.{}", 100 + number / 200, number % 200);
        objects.extend(expand_service(
            &format!("filler-{number}"),
            &service(&address, &[endpoint])?,
            &[Family::IPv4],
        )?);
    }
    Ok(objects)
}

fn check(traffic: Vec<Traffic>, proxy: &Proxy) -> Result<()> {
    for traffic in traffic {
        traffic
            .stop()?
            .check()
            .with_context(|| format!("the log ends:\n{}", proxy.log_tail(20)))?;
    }
    Ok(())
}

/// Both ways to die, in the middle of a sync, while connections come in from a pod, the node and outside.
fn die_under_traffic(backend: Backend) -> Result<()> {
    let stage = Stage::new(backend, &[])?;
    stage.manifests.replace(&cluster(FILLERS, 0)?)?;
    let mut proxy = stage.start()?;
    let traffic = vec![
        Traffic::start(&stage.bed, &[Place::Pod12, Place::Node1], VIP.parse()?)?,
        Traffic::start(
            &stage.bed,
            &[Place::Client],
            Family::IPv6.twin_socket(LB.parse()?),
        )?,
    ];
    traffic[0].wait_for_connections(20)?;
    for (round, pause) in [5, 30, 80, 150, 300, 500].into_iter().enumerate() {
        stage.manifests.replace(&cluster(FILLERS, round + 1)?)?;
        std::thread::sleep(Duration::from_millis(pause));
        if round % 2 == 0 {
            proxy.kill()?;
        } else {
            ensure!(proxy.terminate()?.success(), "SIGTERM must end it with 0");
        }
        traffic[0].wait_for_connections(10)?;
        proxy = stage.start()?;
        traffic[0].wait_for_connections(10)?;
    }
    check(traffic, &proxy)?;
    // And what stands in the end is the last cluster, not a mixture.
    let last = "10.96.101.7:80";
    let right = ENDPOINTS[(207 + 6) % 2];
    let probe = Probe::new(Place::Pod12, Protocol::Tcp, last.parse()?);
    wait_for("the last change", Duration::from_secs(10), POLL, || {
        let outcome = stage.bed.probe(&probe)?;
        Ok(matches!(outcome, Outcome::Answered(answer) if answer.by.ip().to_string() == right))
    })
}

#[test]
fn no_connection_fails_when_it_dies_over_nft() -> Result<()> {
    die_under_traffic(Backend::IPTABLES_NFT)
}

#[test]
fn no_connection_fails_when_it_dies_over_legacy() -> Result<()> {
    die_under_traffic(Backend::IPTABLES_LEGACY)
}

#[test]
fn no_connection_fails_when_it_dies_over_nftables() -> Result<()> {
    die_under_traffic(Backend::NFTABLES)
}

#[test]
fn no_connection_fails_when_it_dies_over_ebpf() -> Result<()> {
    die_under_traffic(Backend::EBPF)
}

/// A restart over rules that are right already writes nothing.
#[test]
fn a_restart_adopts_what_stands() -> Result<()> {
    let stage = Stage::new(Backend::IPTABLES_NFT, &[])?;
    stage.manifests.replace(&cluster(50, 0)?)?;
    let mut proxy = stage.start()?;
    let before = rule_handles(&stage)?;
    proxy.terminate()?;
    let _proxy = stage.start()?;
    let after = rule_handles(&stage)?;
    let rewritten: Vec<&String> = before
        .iter()
        .filter(|(chain, handles)| after.get(*chain) != Some(*handles))
        .map(|(chain, _)| chain)
        .collect();
    ensure!(rewritten.is_empty(), "rewritten: {rewritten:?}");
    Ok(())
}

/// Handles of the rules of every chain of both families; a rule written again has a new one.
fn rule_handles(stage: &Stage) -> Result<BTreeMap<String, Vec<String>>> {
    let listing = stage
        .bed
        .run(Place::Node1, &["nft", "-a", "-n", "list", "ruleset"], "")?
        .success("nft list")?;
    let mut handles: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut table, mut chain) = (String::new(), String::new());
    for line in listing.lines() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("table ") {
            name.split(" {")
                .next()
                .unwrap_or_default()
                .clone_into(&mut table);
        } else if let Some(name) = text.strip_prefix("chain ") {
            chain = format!("{table} {}", name.split(" {").next().unwrap_or_default());
            handles.entry(chain.clone()).or_default();
        } else if let Some((_, handle)) = text.rsplit_once("# handle ")
            && !chain.is_empty()
        {
            handles
                .entry(chain.clone())
                .or_default()
                .push(handle.to_owned());
        }
    }
    ensure!(!handles.is_empty(), "nft lists nothing in node1");
    Ok(handles)
}

/// One change among 2,000 Services rewrites that Service's chains and no others.
#[test]
fn one_change_among_two_thousand_services_writes_only_its_own_chains() -> Result<()> {
    let stage = Stage::new(
        Backend::IPTABLES_NFT,
        &["--iptables-sync-period=1h", "--iptables-min-sync-period=0s"],
    )?;
    let mut objects = cluster(1999, 0)?;
    stage.manifests.replace(&objects)?;
    let _proxy = stage.start()?;
    stage.wait_until_answered(VIP, &ENDPOINTS, Duration::from_secs(10))?;
    let before = rule_handles(&stage)?;

    // The last two objects are the last filler's Service and slice.
    let changed = objects
        .iter_mut()
        .rfind(|object| object["kind"] == "EndpointSlice")
        .context("no slice")?;
    let old = changed["endpoints"][0]["addresses"][0]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let new = ENDPOINTS
        .into_iter()
        .find(|address| *address != old)
        .context("no other endpoint")?;
    changed["endpoints"][0]["addresses"][0] = new.into();
    let name = changed["metadata"]["labels"]["kubernetes.io/service-name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let vip = objects
        .iter()
        .find(|object| object["kind"] == "Service" && object["metadata"]["name"] == name.as_str())
        .and_then(|object| object["spec"]["clusterIP"].as_str())
        .context("no Service of the slice")?;
    let probe = Probe::new(Place::Pod12, Protocol::Tcp, format!("{vip}:80").parse()?);
    let began = Instant::now();
    stage.manifests.replace(&objects)?;
    wait_for("the one change", Duration::from_secs(20), POLL, || {
        let outcome = stage.bed.probe(&probe)?;
        Ok(matches!(outcome, Outcome::Answered(answer) if answer.by.ip().to_string() == new))
    })?;
    println!(
        "one change among 2,000 Services was in the kernel after {:?}",
        began.elapsed()
    );

    let after = rule_handles(&stage)?;
    let chains: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let touched: Vec<&&String> = chains
        .iter()
        .filter(|chain| before.get(**chain) != after.get(**chain))
        .collect();
    let own = |chain: &str| {
        ["KUBE-SVC-", "KUBE-SEP-"]
            .iter()
            .any(|prefix| chain.contains(prefix))
    };
    ensure!(!touched.is_empty(), "the change left no trace");
    ensure!(
        touched.len() <= 3,
        "more than one Service's chains were written: {touched:?}"
    );
    ensure!(
        touched.iter().all(|chain| own(chain)),
        "shared chains were written: {touched:?}"
    );
    Ok(())
}

/// SIGTERM leaves the rules; `--cleanup` takes all of ours away and nothing else.
#[test]
fn sigterm_leaves_the_rules_and_cleanup_removes_ours_only() -> Result<()> {
    for tool in IptablesTool::ALL {
        let stage = Stage::new(Backend::of_tool(tool), &[])?;
        for family in FAMILIES {
            for rule in [
                "-t nat -N FOREIGN",
                "-t nat -A FOREIGN -j RETURN",
                "-t nat -A PREROUTING -j FOREIGN",
                "-t nat -A POSTROUTING -m comment --comment theirs -j RETURN",
                "-N FOREIGN",
                "-A FORWARD -m comment --comment theirs -j FOREIGN",
                "-t mangle -A PREROUTING -m comment --comment theirs -j RETURN",
            ] {
                stage.iptables(family, rule)?;
            }
        }
        let before: Vec<SavedRules> = FAMILIES
            .into_iter()
            .map(|family| stage.rules(family))
            .collect::<Result<_>>()?;
        stage.manifests.replace(&cluster(20, 0)?)?;
        let mut proxy = stage.start()?;
        stage.wait_until_answered(VIP, &ENDPOINTS, Duration::from_secs(5))?;
        let foreign_stays = |when: &str| -> Result<()> {
            for (family, before) in FAMILIES.into_iter().zip(&before) {
                let now: BTreeSet<String> = stage.rules(family)?.lines().into_iter().collect();
                let gone: Vec<String> = before
                    .lines()
                    .into_iter()
                    .filter(|line| !now.contains(line))
                    .collect();
                ensure!(
                    gone.is_empty(),
                    "{} {family} {when}: somebody else's rules are gone: {gone:?}",
                    tool.name()
                );
            }
            Ok(())
        };
        foreign_stays("after the start")?;
        let status = proxy.terminate()?;
        ensure!(status.success(), "SIGTERM ended it with {status}");
        ensure!(
            stage.answers(Place::Client, LB, &ENDPOINTS)?,
            "{}: SIGTERM took the rules along",
            tool.name()
        );

        let mut options = stage.options()?;
        options.flags.push("--cleanup".to_owned());
        options.log = stage.bed.work_dir().join("cleanup.log");
        let mut cleanup = Proxy::spawn(&stage.bed, options)?;
        let status = cleanup.wait_exit(Duration::from_secs(20))?;
        ensure!(
            status.success(),
            "--cleanup ended with {status}:\n{}",
            cleanup.log_tail(20)
        );
        foreign_stays("after --cleanup")?;
        for (family, before) in FAMILIES.into_iter().zip(&before) {
            let mut left = SavedRules::differences(before, &stage.rules(family)?);
            // The kubelet makes the same chain and jumps, so they are not ours alone to take.
            left.retain(|difference| !difference.line.contains("KUBE-FIREWALL"));
            ensure!(
                left.is_empty(),
                "{} {family}: left by --cleanup: {left:#?}",
                tool.name()
            );
        }
    }
    Ok(())
}

/// Whatever somebody else flushes or deletes is back within a sync period or two.
#[test]
fn what_others_break_is_rebuilt() -> Result<()> {
    for tool in IptablesTool::ALL {
        let stage = Stage::new(
            Backend::of_tool(tool),
            &["--iptables-sync-period=2s", "--iptables-min-sync-period=0s"],
        )?;
        stage.manifests.replace(&cluster(20, 0)?)?;
        let proxy = stage.start()?;
        let whole: Vec<SavedRules> = FAMILIES
            .into_iter()
            .map(|family| stage.rules(family))
            .collect::<Result<_>>()?;
        let faults: [&[&str]; 6] = [
            &["-t nat -F KUBE-SERVICES"],
            &["-t nat -F KUBE-POSTROUTING"],
            &["-t nat -D PREROUTING 1"],
            &["-t filter -F"],
            &["-t nat -F", "-t nat -X"],
            &[
                "-t nat -F",
                "-t nat -X",
                "-t filter -F",
                "-t filter -X",
                "-t mangle -F",
                "-t mangle -X",
            ],
        ];
        for fault in faults {
            for family in FAMILIES {
                for command in fault {
                    stage.iptables(family, command)?;
                }
            }
            let mut missing = Vec::new();
            let repaired = wait_for("the repair", Duration::from_secs(10), POLL, || {
                missing.clear();
                for (family, whole) in FAMILIES.into_iter().zip(&whole) {
                    missing.extend(SavedRules::differences(whole, &stage.rules(family)?));
                }
                Ok(missing.is_empty())
            });
            repaired.with_context(|| {
                format!(
                    "{} after {fault:?}: {missing:#?}\nlog:\n{}",
                    tool.name(),
                    proxy.log_tail(20)
                )
            })?;
            ensure!(
                stage.answers(Place::Pod12, VIP, &ENDPOINTS)?,
                "{} after {fault:?}",
                tool.name()
            );
        }
    }
    Ok(())
}

/// Deleted Services leave no chain behind, also those deleted while the proxy was dead.
#[test]
fn no_chain_of_a_deleted_service_stays() -> Result<()> {
    let stage = Stage::new(Backend::IPTABLES_NFT, &[])?;
    stage.manifests.replace(&cluster(100, 0)?)?;
    let mut proxy = stage.start()?;
    proxy.kill()?;
    stage.manifests.replace(&node_objects())?;
    let _proxy = stage.start()?;
    for family in FAMILIES {
        wait_for(
            "the removal of all chains",
            Duration::from_secs(10),
            POLL,
            || Ok(per_service_chains(&save_rules(&stage.bed, stage.tool()?, family)?).is_empty()),
        )?;
    }
    Ok(())
}

/// While somebody else holds the legacy tool's lock nothing is written, and nothing is lost.
#[test]
fn a_held_xtables_lock_is_waited_for() -> Result<()> {
    const HELD: Duration = Duration::from_millis(1500);
    let stage = Stage::new(Backend::IPTABLES_LEGACY, &[])?;
    stage.manifests.replace(&cluster(0, 0)?)?;
    let proxy = stage.start()?;
    stage.wait_until_answered(VIP, &ENDPOINTS, Duration::from_secs(5))?;
    let lock = std::fs::File::options()
        .create(true)
        .append(true)
        .open("/run/xtables.lock")?;
    lock.lock()?;
    let began = Instant::now();
    let mut objects = cluster(0, 0)?;
    objects.extend(expand_service(
        "late",
        &service("10.96.5.2", &ENDPOINTS)?,
        &FAMILIES,
    )?);
    stage.manifests.replace(&objects)?;
    while began.elapsed() < HELD {
        let early = stage.answers(Place::Pod12, "10.96.5.2:80", &ENDPOINTS)?;
        ensure!(!early, "written in spite of the lock");
        ensure!(
            stage.answers(Place::Pod12, VIP, &ENDPOINTS)?,
            "what stood before must stay"
        );
    }
    lock.unlock()?;
    stage
        .wait_until_answered("10.96.5.2:80", &ENDPOINTS, Duration::from_secs(10))
        .with_context(|| format!("log:\n{}", proxy.log_tail(20)))
}
