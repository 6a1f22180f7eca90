//! What only nftables mode does: its table against the reference's, taking that over, repair of what
//! others do to it, and the ways in and out of the mode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{
    Backend, Case, CaseRunner, Manifests, ServiceSpec, expand_service, load_file, node_objects,
};
use switchyard_tests::rulediff::{SavedRules, load_allowed, unexplained};
use switchyard_tests::testbed::{
    Family, Outcome, Place, Probe, Protocol, Proxy, ProxyOptions, Testbed, Traffic, wait_for,
};
use switchyard_tests::{nftlist, recorded};

const FAMILIES: [Family; 2] = [Family::IPv4, Family::IPv6];
const VIP: &str = "10.96.5.1:80";
const ENDPOINTS: [&str; 2] = ["10.244.1.31", "10.244.2.51"];
const POLL: Duration = Duration::from_millis(30);
const SOON: Duration = Duration::from_secs(10);
/// With these, repairs come soon.
const EACH_SECOND: [&str; 2] = ["--iptables-sync-period=1s", "--iptables-min-sync-period=0s"];

/// The ServiceCIDR that an API server makes itself, as the recording's did.
const SERVICE_CIDR: &str = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\n\
    metadata: {name: kubernetes}\nspec: {cidrs: [10.96.0.0/16, \"fd00:96::/112\"]}\n";

fn packets(name: &str) -> Result<Case> {
    let cases = load_file(&recorded::data_dir().join("packets.yaml"))?;
    let wanted = format!("packets: {name}");
    let mut cases = cases.into_iter();
    let found = cases.find(|case| case.name == wanted);
    found.with_context(|| format!("no case {wanted}"))
}

struct Stage {
    bed: Arc<Testbed>,
    manifests: Manifests,
}

impl Stage {
    fn new() -> Result<Self> {
        let bed = Arc::new(Testbed::build()?);
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        for address in ENDPOINTS {
            for family in FAMILIES {
                let endpoint = family.twin_socket(format!("{address}:8080").parse()?);
                bed.serve_endpoint(Protocol::Tcp, endpoint)?;
            }
        }
        Ok(Self { bed, manifests })
    }

    /// The recorded objects.
    fn lay_down_recorded(&self) -> Result<()> {
        self.manifests.replace_text(&recorded::objects_text()?)?;
        let kubernetes = recorded::default_kubernetes_text()?;
        self.manifests
            .replace_file("default-kubernetes.yaml", &kubernetes)?;
        self.manifests
            .replace_file("service-cidr.yaml", SERVICE_CIDR)
    }

    /// One Service of two endpoints.
    fn lay_down_one(&self) -> Result<()> {
        let mut objects = node_objects();
        objects.extend(expand_service(
            "main",
            &service("10.96.5.1", &ENDPOINTS)?,
            &FAMILIES,
        )?);
        self.manifests.replace(&objects)
    }

    fn options(&self, backend: Backend, flags: &[&str]) -> Result<ProxyOptions> {
        let mut options = backend.options(&self.bed, self.manifests.dir())?;
        options
            .flags
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        Ok(options)
    }

    fn start(&self, backend: Backend, flags: &[&str]) -> Result<Proxy> {
        Proxy::start(&self.bed, self.options(backend, flags)?)
    }

    fn nft(&self, command: &str) -> Result<String> {
        let words: Vec<&str> = ["nft"].into_iter().chain(command.split(' ')).collect();
        self.bed.run(Place::Node1, &words, "")?.success(command)
    }

    fn tables(&self) -> Result<[SavedRules; 2]> {
        let [v4, v6] = FAMILIES.map(|family| nftlist::list(&self.bed, family));
        Ok([v4?, v6?])
    }

    fn is_answered(&self, from: Place) -> Result<bool> {
        let probes: Vec<Probe> = FAMILIES
            .into_iter()
            .map(|family| {
                let to = family.twin_socket(VIP.parse()?);
                Ok(Probe::new(from, Protocol::Tcp, to).timeout(Duration::from_millis(900)))
            })
            .collect::<Result<_>>()?;
        let outcomes = self.bed.probe_all(&probes)?;
        let by_endpoint = |outcome: &Outcome| matches!(outcome, Outcome::Answered(answer) if answer.by.port() == 8080);
        Ok(outcomes.iter().all(by_endpoint))
    }

    /// Fails with every difference between our table and the recorded one that has no reason.
    fn compare(&self) -> Result<()> {
        let allowed = load_allowed(&recorded::data_dir().join("differences-nftables.yaml"))?;
        for (family, ours) in FAMILIES.into_iter().zip(self.tables()?) {
            let reference = nftlist::parse(&recorded::nftables()?, family)?;
            let differences = SavedRules::differences(&reference, &ours);
            let wrong = unexplained(&differences, &allowed, family);
            ensure!(wrong.is_empty(), "{family}:\n  {}", wrong.join("\n  "));
        }
        Ok(())
    }

    fn check_packets(&self, names: &[&str]) -> Result<()> {
        let runner = CaseRunner::new(&self.bed, Backend::NFTABLES)?;
        for name in names {
            let mut case = packets(name)?;
            for step in &mut case.steps {
                // Nobody else has an address of the ServiceCIDR: what goes there is dropped.
                step.packets.retain(|packet| packet.id != "no such Service");
            }
            let wrong = runner.check_standing(&case, &recorded::objects()?)?;
            ensure!(wrong.is_empty(), "{name}:\n  {}", wrong.join("\n  "));
        }
        Ok(())
    }
}

fn service(cluster_ip: &str, endpoints: &[&str]) -> Result<ServiceSpec> {
    ServiceSpec::new(cluster_ip, "p80 80->8080", endpoints)
}

#[test]
fn our_table_for_the_recorded_objects_is_the_reference_s() -> Result<()> {
    let stage = Stage::new()?;
    stage.lay_down_recorded()?;
    let proxy = stage.start(Backend::NFTABLES, &[])?;
    stage.compare().with_context(|| proxy.log_tail(20))?;
    stage.check_packets(&["reference", "ours"])
}

/// Started over the reference's tables, we take them over: under steady traffic no connection
/// fails, and what stands then is what we would have written ourselves.
#[test]
fn the_reference_s_tables_are_taken_over_without_a_gap() -> Result<()> {
    let stage = Stage::new()?;
    let bed = &stage.bed;
    recorded::load_reference_tables(bed)?;
    for endpoint in ["10.244.1.11:8080", "10.244.2.21:8080"] {
        bed.serve_endpoint(Protocol::Tcp, endpoint.parse()?)?;
    }
    let inside = Traffic::start(bed, &[Place::Pod12, Place::Node1], "10.96.1.1:80".parse()?)?;
    let outside = Traffic::start(bed, &[Place::Client], "203.0.113.20:80".parse()?)?;
    inside.wait_for_connections(20)?;
    stage.lay_down_recorded()?;
    let proxy = stage.start(Backend::NFTABLES, &[])?;
    inside.wait_for_connections(60)?;
    outside.wait_for_connections(20)?;
    for traffic in [inside, outside] {
        let report = traffic.stop()?;
        report.check().with_context(|| proxy.log_tail(20))?;
    }
    stage.compare().context("after taking over")?;
    stage.check_packets(&["reference", "ours"])
}

/// What goes to an address of a ServiceCIDR that no Service has is dropped as soon as the ServiceCIDR
/// is there, and let through when it goes.
#[test]
fn service_cidrs_are_followed() -> Result<()> {
    let stage = Stage::new()?;
    stage.lay_down_one()?;
    let proxy = stage.start(Backend::NFTABLES, &[])?;
    let probe = Probe::new(Place::Pod12, Protocol::Tcp, "10.96.1.77:80".parse()?);
    let probe = probe.timeout(Duration::from_millis(500));
    for (text, answers) in [(SERVICE_CIDR, false), ("", true)] {
        stage.manifests.replace_file("service-cidr.yaml", text)?;
        wait_for("the ServiceCIDR in the kernel", SOON, POLL, || {
            let outcome = stage.bed.probe(&probe)?;
            Ok(match outcome {
                Outcome::Answered(_) => answers,
                Outcome::TimedOut => !answers,
                _ => false,
            })
        })
        .with_context(|| proxy.log_tail(20))?;
    }
    Ok(())
}

/// Whatever somebody else flushes, removes, adds or deletes is put right within a sync period or two.
#[test]
fn what_others_do_to_the_table_is_put_right() -> Result<()> {
    let stage = Stage::new()?;
    stage.lay_down_recorded()?;
    let proxy = stage.start(Backend::NFTABLES, &EACH_SECOND)?;
    let whole = stage.tables()?;
    let chain = "service-VURLWOMU-default/node-port/tcp/p0";
    let faults = [
        "flush chain ip kube-proxy services".to_owned(),
        format!("flush chain ip kube-proxy {chain}"),
        format!("add rule ip kube-proxy {chain} drop"),
        "delete element ip kube-proxy service-ips { 10.96.1.1 . tcp . 80 }".to_owned(),
        "add element ip kube-proxy cluster-ips { 10.96.9.9 }".to_owned(),
        "add element ip kube-proxy service-nodeports { tcp . 31999 : drop }".to_owned(),
        "add chain ip kube-proxy theirs { type filter hook input priority 0; policy drop; }"
            .to_owned(),
        "add set ip6 kube-proxy theirs { type ipv6_addr; }".to_owned(),
        "flush table ip6 kube-proxy".to_owned(),
        "delete table ip kube-proxy".to_owned(),
        "flush ruleset".to_owned(),
    ];
    for fault in faults {
        stage.nft(&fault)?;
        let mut missing = Vec::new();
        let repaired = wait_for("the repair", SOON, POLL, || {
            missing.clear();
            for (whole, now) in whole.iter().zip(stage.tables()?) {
                missing.extend(SavedRules::differences(whole, &now));
            }
            Ok(missing.is_empty())
        });
        repaired.with_context(|| {
            format!("after {fault}: {missing:#?}\nlog:\n{}", proxy.log_tail(20))
        })?;
    }
    stage.check_packets(&["reference"])?;
    let said = proxy.log().matches("by somebody else: put right").count();
    ensure!(
        (1..=2).contains(&said),
        "said {said} times within seconds:\n{}",
        proxy.log()
    );
    let log = proxy.log();
    ensure!(!log.contains(" ERROR "), "{log}");
    Ok(())
}

/// A restart over a table that is right already writes nothing, and neither does a sync period.
#[test]
fn a_restart_adopts_the_table() -> Result<()> {
    let stage = Stage::new()?;
    stage.lay_down_recorded()?;
    let mut proxy = stage.start(Backend::NFTABLES, &[])?;
    let before = stage.nft("-a list ruleset")?;
    ensure!(before.contains("# handle"), "no handles: {before}");
    proxy.kill()?;
    let proxy = stage.start(Backend::NFTABLES, &[])?;
    let after = stage.nft("-a list ruleset")?;
    ensure!(
        sorted(&before) == sorted(&after),
        "was written again:\n{}",
        proxy.log_tail(20)
    );
    Ok(())
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split([',', '\n']).map(str::trim).collect();
    words.sort_unstable();
    words
}

/// From iptables mode to nftables mode and back: connections go on, and nothing of the other mode
/// stays; `--cleanup` then takes all of ours and nothing else.
#[test]
fn modes_change_under_traffic_and_nothing_stays_behind() -> Result<()> {
    let stage = Stage::new()?;
    stage.nft("add table ip theirs")?;
    stage.nft("add chain ip theirs input { type filter hook input priority 0; policy accept; }")?;
    stage.lay_down_one()?;
    let tables = |when: &str, ours: bool, rules: bool| -> Result<()> {
        let mut last = String::new();
        let seen = wait_for(when, SOON, POLL, || {
            last = stage.nft("list ruleset")?;
            Ok(last.contains("kube-proxy") == ours && last.contains("KUBE-SVC-") == rules)
        });
        seen.with_context(|| last.clone())?;
        ensure!(
            last.contains("table ip theirs"),
            "{when}: somebody else's table is gone"
        );
        Ok(())
    };
    // With the tools in its PATH, for the rules that must go.
    let with_tools = Backend {
        tool: Backend::IPTABLES_NFT.tool,
        ..Backend::NFTABLES
    };
    let mut proxy = stage.start(Backend::IPTABLES_NFT, &[])?;
    tables("rules of iptables mode", false, true)?;
    let traffic = Traffic::start(&stage.bed, &[Place::Pod12, Place::Node1], VIP.parse()?)?;
    for backend in [with_tools, Backend::IPTABLES_NFT, with_tools] {
        traffic.wait_for_connections(10)?;
        proxy.terminate()?;
        proxy = stage.start(backend, &[])?;
        let nftables = backend.mode == "nftables";
        tables(backend.name, nftables, !nftables)?;
    }
    traffic.wait_for_connections(10)?;
    traffic
        .stop()?
        .check()
        .with_context(|| proxy.log_tail(20))?;
    ensure!(proxy.terminate()?.success(), "SIGTERM must end it with 0");
    ensure!(stage.is_answered(Place::Pod12)?, "the table must stay");
    let mut options = stage.options(with_tools, &["--cleanup"])?;
    options.log = stage.bed.work_dir().join("cleanup.log");
    let mut cleanup = Proxy::spawn(&stage.bed, options)?;
    let status = cleanup.wait_exit(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}:\n{}", cleanup.log_tail(20));
    tables("--cleanup", false, false)
}

/// Where eBPF can't be had, `auto` takes nftables, without any program, and says why.
#[test]
fn auto_takes_nftables_where_ebpf_is_not_to_be_had() -> Result<()> {
    let stage = Stage::new()?;
    stage.lay_down_one()?;
    let auto = Backend {
        mode: "auto",
        flags: &["--cgroup-root=/nowhere"],
        ..Backend::NFTABLES
    };
    let proxy = stage.start(auto, &[])?;
    ensure!(stage.is_answered(Place::Pod12)?, "{}", proxy.log_tail(20));
    let log = proxy.log();
    let line = log
        .lines()
        .find(|line| line.contains("chose the proxy mode"));
    let line = line.with_context(|| log.clone())?;
    ensure!(
        line.contains("mode=\"nftables\"") && line.contains("not_ebpf"),
        "{line}"
    );
    Ok(())
}

/// A change is in the kernel soon after it was made, whatever else is there; nothing is listed
/// for it, so it leaves everything else with the handles it had.
#[test]
fn one_change_writes_elements_alone() -> Result<()> {
    let stage = Stage::new()?;
    let mut objects = node_objects();
    for number in 0..1000 {
        let address = format!("10.96.{}.{}", 100 + number / 200, number % 200);
        let spec = service(&address, &ENDPOINTS[..1])?;
        objects.extend(expand_service(
            &format!("filler-{number}"),
            &spec,
            &[Family::IPv4],
        )?);
    }
    let with = |main: &[&str]| -> Result<Vec<_>> {
        let mut all = objects.clone();
        all.extend(expand_service(
            "main",
            &service("10.96.5.1", main)?,
            &FAMILIES,
        )?);
        Ok(all)
    };
    stage.manifests.replace(&with(&ENDPOINTS)?)?;
    let proxy = stage.start(Backend::NFTABLES, &["--iptables-min-sync-period=0s"])?;
    let before = stage.nft("-a list table ip kube-proxy")?;
    let began = Instant::now();
    stage.manifests.replace(&with(&ENDPOINTS[1..])?)?;
    wait_for("the one change", SOON * 2, POLL, || {
        let two = stage.nft("list map ip kube-proxy endpoints-of-2")?;
        Ok(!two.contains("10.96.5.1 ."))
    })
    .with_context(|| proxy.log_tail(20))?;
    println!(
        "one change among 1,000 Services: {:?}, the look at it included",
        began.elapsed()
    );
    let after = stage.nft("-a list table ip kube-proxy")?;
    ensure!(stage.is_answered(Place::Pod12)?, "{}", proxy.log_tail(20));
    let (before, after) = (sorted(&before), sorted(&after));
    let new: Vec<&&str> = after.iter().filter(|line| !before.contains(line)).collect();
    let is_element = |line: &&&str| line.contains(" : 10.244.") && !line.contains("# handle");
    ensure!((1..=2).contains(&new.len()), "{new:#?}");
    ensure!(new.iter().all(is_element), "{new:#?}");
    Ok(())
}
