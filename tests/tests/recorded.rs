//! The recorded reference against the testbed, and ours against the recorded reference.

use std::time::Duration;

use anyhow::{Context, Result};
use switchyard_tests::cases::{Backend, Case, CaseRunner, load_file};
use switchyard_tests::recorded;
use switchyard_tests::testbed::{IptablesTool, Place, Testbed, require_tools};

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
    for backend in Backend::ALL {
        let bed = Testbed::build()?;
        allow_localhost_node_ports(&bed)?;
        recorded::load_reference_rules(&bed, backend.tool)?;
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
    CaseRunner::new(&bed, Backend::ALL[0])?.check_standing(&reference, &recorded::objects()?)
}

fn allow_localhost_node_ports(bed: &Testbed) -> Result<()> {
    bed.in_place(Place::Node1, || {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
    })??;
    Ok(())
}
