//! The recorded reference against the testbed, and ours against the recorded reference.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{Backend, Case, CaseRunner, Manifests, load_file, save_rules};
use switchyard_tests::recorded;
use switchyard_tests::rulediff::{SavedRules, load_allowed, unexplained};
use switchyard_tests::testbed::{
    Family, IptablesTool, Place, Protocol, Proxy, ProxyOptions, Testbed, Traffic, require_tools,
};

fn packets(name: &str) -> Result<Case> {
    let cases = load_file(&recorded::data_dir().join("packets.yaml"))?;
    let wanted = format!("packets: {name}");
    cases
        .into_iter()
        .find(|case| case.name == wanted)
        .with_context(|| format!("no case {wanted}"))
}

/// The testbed and its judge are right about rules that are known to be right.
#[test]
fn the_reference_s_own_rules_pass() -> Result<()> {
    require_tools(&["xtables-nft-multi", "xtables-legacy-multi"])?;
    for tool in IptablesTool::ALL {
        let backend = Backend::of_tool(tool);
        let bed = Testbed::build()?;
        allow_localhost_node_ports(&bed)?;
        recorded::load_reference_rules(&bed, tool)?;
        let runner = CaseRunner::new(&bed, backend)?;
        let wrong = runner.check_standing(&packets("reference")?, &recorded::objects()?)?;
        assert!(wrong.is_empty(), "{}:\n{}", backend.name, wrong.join("\n"));
    }
    Ok(())
}

/// And about rules with a fault: every one of these must be noticed.
#[test]
fn broken_rules_are_noticed() -> Result<()> {
    let faults = [
        ("-t nat -F KUBE-SEP-4V3ZVLMFYSVBYIOP", "clusterip"),
        ("-t nat -F KUBE-MARK-MASQ", "node-port "),
        ("-t nat -F KUBE-POSTROUTING", "load-balancer "),
        ("-t filter -F KUBE-PROXY-FIREWALL", "ranges out"),
        ("-t filter -F KUBE-SERVICES", "empty"),
        (
            "-t filter -F KUBE-EXTERNAL-SERVICES",
            "node-port-local-none",
        ),
    ];
    let mut threads = Vec::new();
    for (fault, expected) in faults {
        threads.push((
            fault,
            expected,
            std::thread::spawn(move || wrong_after(fault)),
        ));
    }
    for (fault, expected, thread) in threads {
        let wrong = thread.join().expect("no panic")?;
        assert!(
            wrong.iter().any(|line| line.starts_with(expected)),
            "after {fault}: {wrong:#?}"
        );
    }
    Ok(())
}

fn wrong_after(fault: &str) -> Result<Vec<String>> {
    let mut reference = packets("reference")?;
    for packet in reference
        .steps
        .iter_mut()
        .flat_map(|step| &mut step.packets)
    {
        packet.within = Duration::ZERO;
    }
    let bed = Testbed::build()?;
    allow_localhost_node_ports(&bed)?;
    recorded::load_reference_rules(&bed, IptablesTool::Nft)?;
    let command: Vec<&str> = ["xtables-nft-multi", "iptables"]
        .into_iter()
        .chain(fault.split(' '))
        .collect();
    bed.run(Place::Node1, &command, "")?.success(fault)?;
    CaseRunner::new(&bed, Backend::IPTABLES_NFT)?.check_standing(&reference, &recorded::objects()?)
}

fn allow_localhost_node_ports(bed: &Testbed) -> Result<()> {
    bed.in_place(Place::Node1, || {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
    })??;
    Ok(())
}

/// The flags with which the reference made the recording.
const RECORDED_FLAGS: [&str; 1] = ["--nodeport-addresses=0.0.0.0/0,::/0"];

struct Stage {
    bed: Arc<Testbed>,
    manifests: Manifests,
    tool: IptablesTool,
}

impl Stage {
    fn new(tool: IptablesTool) -> Result<Self> {
        let bed = Arc::new(Testbed::build()?);
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        manifests.replace_text(&recorded::objects_text()?)?;
        manifests.replace_file(
            "default-kubernetes.yaml",
            &recorded::default_kubernetes_text()?,
        )?;
        Ok(Self {
            bed,
            manifests,
            tool,
        })
    }

    fn start(&self) -> Result<Proxy> {
        let mut options = ProxyOptions::new(&self.bed, self.manifests.dir(), "iptables")?;
        options.tool = Some(self.tool);
        options.flags = RECORDED_FLAGS.map(str::to_owned).to_vec();
        Proxy::start(&self.bed, options)
    }

    /// Fails with every difference between our rules and the recorded ones that has no reason.
    fn compare(&self) -> Result<()> {
        let allowed = load_allowed(&recorded::data_dir().join("differences.yaml"))?;
        for family in [Family::IPv4, Family::IPv6] {
            let reference = SavedRules::parse(&recorded::rules(family)?);
            let ours = SavedRules::parse(&save_rules(&self.bed, self.tool, family)?);
            let differences = SavedRules::differences(&reference, &ours);
            let wrong = unexplained(&differences, &allowed, family);
            ensure!(
                wrong.is_empty(),
                "{} {family}:\n  {}",
                self.tool.name(),
                wrong.join("\n  ")
            );
        }
        Ok(())
    }

    fn check_packets(&self) -> Result<()> {
        let runner = CaseRunner::new(&self.bed, Backend::of_tool(self.tool))?;
        for name in ["reference", "ours"] {
            let wrong = runner.check_standing(&packets(name)?, &recorded::objects()?)?;
            ensure!(
                wrong.is_empty(),
                "{}:\n  {}",
                self.tool.name(),
                wrong.join("\n  ")
            );
        }
        Ok(())
    }
}

#[test]
fn our_rules_for_the_recorded_objects_are_the_reference_s() -> Result<()> {
    for tool in IptablesTool::ALL {
        let stage = Stage::new(tool)?;
        let _proxy = stage.start()?;
        stage.compare()?;
        stage.check_packets()?;
    }
    Ok(())
}

/// Started over the reference's rules, we take them over: under steady traffic no connection fails,
/// and what stands then is what we would have written ourselves.
#[test]
fn the_reference_s_rules_are_taken_over_without_a_gap() -> Result<()> {
    for tool in IptablesTool::ALL {
        let stage = Stage::new(tool)?;
        let bed = &stage.bed;
        allow_localhost_node_ports(bed)?;
        recorded::load_reference_rules(bed, tool)?;
        for endpoint in ["10.244.1.11:8080", "10.244.2.21:8080"] {
            bed.serve_endpoint(Protocol::Tcp, endpoint.parse()?)?;
        }
        let inside = Traffic::start(bed, &[Place::Pod12, Place::Node1], "10.96.1.1:80".parse()?)?;
        let outside = Traffic::start(bed, &[Place::Client], "203.0.113.20:80".parse()?)?;
        inside.wait_for_connections(20)?;
        let proxy = stage.start()?;
        inside.wait_for_connections(60)?;
        outside.wait_for_connections(20)?;
        for traffic in [inside, outside] {
            traffic
                .stop()?
                .check()
                .with_context(|| format!("{}; log:\n{}", tool.name(), proxy.log_tail(20)))?;
        }
        stage.compare().context("after taking over")?;
        stage.check_packets().context("after taking over")?;
    }
    Ok(())
}
