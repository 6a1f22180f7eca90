//! The testbed itself: it carries packets, tells "not captured" from "dropped", and leaves nothing behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use switchyard_tests::recorded;
use switchyard_tests::testbed::{
    Family, IptablesTool, Outcome, Place, Probe, Protocol, Testbed, Traffic,
};

const PODS: [Place; 4] = [Place::Pod11, Place::Pod12, Place::Pod21, Place::Pod22];

#[test]
fn every_place_reaches_every_pod_in_both_families_and_protocols() -> Result<()> {
    let bed = Testbed::build()?;
    let mut probes = Vec::new();
    for family in [Family::IPv4, Family::IPv6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for pod in PODS {
                let to = SocketAddr::new(pod.address(family), 8080);
                bed.serve(pod, protocol, to)?;
                let clients = Place::ALL
                    .into_iter()
                    .filter(|client| *client != Place::Fabric);
                probes.extend(clients.map(|client| Probe::new(client, protocol, to)));
            }
        }
    }
    for (probe, outcome) in probes.iter().zip(bed.probe_all(&probes)?) {
        let Outcome::Answered(answer) = &outcome else {
            panic!("{probe:?}: {outcome}")
        };
        assert_eq!(answer.by, probe.to, "{probe:?}");
        assert_eq!(
            answer.seen, answer.own,
            "{probe:?}: nobody may translate the source here"
        );
        let own = probe.from.address(Family::of(probe.to.ip()));
        assert_eq!(answer.seen.ip(), own, "{probe:?}");
    }
    Ok(())
}

#[test]
fn what_nobody_translates_is_answered_by_the_fabric() -> Result<()> {
    let bed = Testbed::build()?;
    let mut probes = Vec::new();
    for address in ["10.96.7.7", "203.0.113.77"] {
        for family in [Family::IPv4, Family::IPv6] {
            let to = SocketAddr::new(family.twin(address.parse()?), 80);
            for from in [
                Place::Client,
                Place::Blocked,
                Place::Pod11,
                Place::Pod12,
                Place::Node1,
            ] {
                probes.push(Probe::new(from, Protocol::Tcp, to));
            }
        }
    }
    for (probe, outcome) in probes.iter().zip(bed.probe_all(&probes)?) {
        let Outcome::Answered(answer) = &outcome else {
            panic!("{probe:?}: {outcome}")
        };
        assert_eq!(
            (answer.place.as_str(), answer.by),
            (Place::Fabric.name(), probe.to),
            "{probe:?}"
        );
    }
    Ok(())
}

#[test]
fn clients_reach_services_through_node1() -> Result<()> {
    let bed = Testbed::build()?;
    let to: SocketAddr = "203.0.113.77:80".parse()?;
    let rule = [
        "iptables",
        "-w",
        "-A",
        "FORWARD",
        "-d",
        "203.0.113.77",
        "-j",
        "DROP",
    ];
    bed.run(Place::Node1, &rule, "")?.success("iptables")?;
    let probe = Probe::new(Place::Client, Protocol::Tcp, to).timeout(Duration::from_millis(300));
    assert_eq!(bed.probe(&probe)?, Outcome::TimedOut);
    Ok(())
}

#[test]
fn a_closed_port_is_refused_and_a_connection_can_be_used_again() -> Result<()> {
    let bed = Testbed::build()?;
    for family in [Family::IPv4, Family::IPv6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let closed = SocketAddr::new(Place::Pod21.address(family), 9);
            assert_eq!(
                bed.probe(&Probe::new(Place::Client, protocol, closed))?,
                Outcome::Refused
            );
            let open = SocketAddr::new(Place::Pod21.address(family), 8080);
            bed.serve_endpoint(protocol, open)?;
            let connection = bed.connect(&Probe::new(Place::Client, protocol, open))?;
            for _ in 0..3 {
                let outcome = connection.ask(&bed, Duration::from_secs(1))?;
                assert!(matches!(outcome, Outcome::Answered(_)), "{outcome}");
            }
        }
    }
    Ok(())
}

/// A gap of some milliseconds in the rules is seen by the traffic of the restart tests.
#[test]
fn steady_traffic_notices_a_short_gap() -> Result<()> {
    let bed = Arc::new(Testbed::build()?);
    recorded::load_reference_rules(&bed, IptablesTool::Nft)?;
    bed.serve_endpoint(Protocol::Tcp, "10.244.1.11:8080".parse()?)?;
    bed.serve_endpoint(Protocol::Tcp, "10.244.2.21:8080".parse()?)?;
    let traffic = Traffic::start(
        &bed,
        &[Place::Pod12, Place::Client],
        "10.96.1.1:80".parse()?,
    )?;
    traffic.wait_for_connections(20)?;
    bed.run(
        Place::Node1,
        &[
            "xtables-nft-multi",
            "iptables",
            "-t",
            "nat",
            "-F",
            "KUBE-SERVICES",
        ],
        "",
    )?
    .success("flush")?;
    recorded::load_reference_rules(&bed, IptablesTool::Nft)?;
    traffic.wait_for_connections(20)?;
    let report = traffic.stop()?;
    assert!(report.check().is_err(), "nothing was noticed: {report:?}");
    Ok(())
}

#[test]
fn a_thread_of_its_own_is_in_the_place_and_its_cgroup() -> Result<()> {
    let bed = Testbed::build()?;
    let here = || -> std::io::Result<_> {
        let namespace = std::fs::read_link("/proc/thread-self/ns/net")?;
        Ok((
            namespace,
            std::fs::read_to_string("/proc/thread-self/cgroup")?,
        ))
    };
    for place in [Place::Node1, Place::Pod11, Place::Client] {
        let resident = bed.in_place(place, here)??;
        assert_eq!(bed.spawn(place, here)?.join()??, resident, "{place}");
    }
    let node1 = bed.node1_cgroup().and_then(|path| path.file_name());
    if let Some(name) = node1.and_then(|name| name.to_str()) {
        assert!(bed.spawn(Place::Pod12, here)?.join()??.1.contains(name));
        assert!(!bed.spawn(Place::Pod21, here)?.join()??.1.contains(name));
    }
    let panicked = bed.spawn(Place::Pod11, || panic!("on purpose"))?.join();
    assert!(panicked.unwrap_err().to_string().contains("panicked"));
    Ok(())
}

#[test]
fn nothing_stays_after_a_panic() -> Result<()> {
    let (id, cgroup, pins) = std::thread::spawn(|| {
        let bed = Testbed::build()?;
        let _sleeper = bed.in_place(Place::Node1, || {
            std::process::Command::new("sleep").arg("60").spawn()
        })??;
        // A machine without the bpf filesystem has no pins either.
        let pins = bed.ebpf_roots().ok().map(|roots| roots.bpf);
        if let Some(pins) = &pins {
            std::fs::create_dir_all(pins.join("v1"))?;
        }
        let seen = (
            bed.id().to_owned(),
            bed.node1_cgroup().map(std::path::Path::to_owned),
            pins,
        );
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _bed = bed;
            panic!("on purpose");
        }));
        assert!(caught.is_err());
        anyhow::Ok(seen)
    })
    .join()
    .expect("the thread itself does not panic")?;
    let left: Vec<_> = std::fs::read_dir("/run/netns")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&format!("{id}-")))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    for path in [cgroup, pins].into_iter().flatten() {
        assert!(!path.exists(), "left behind: {}", path.display());
    }
    Ok(())
}

/// What a proxy is given to attach to holds what runs on node1 and in its pods, and nothing else.
#[test]
fn processes_of_node1_and_its_pods_are_in_its_cgroup() -> Result<()> {
    let bed = Testbed::build()?;
    let Some(cgroup) = bed.node1_cgroup() else {
        println!("no cgroup2 here, or no threaded groups");
        return Ok(());
    };
    let name = cgroup.file_name().unwrap_or_default().to_string_lossy();
    for place in Place::ALL {
        let own = bed
            .run(place, &["cat", "/proc/self/cgroup"], "")?
            .success("cat")?;
        let inside = own
            .lines()
            .any(|line| line.starts_with("0::") && line.ends_with(&format!("/{name}")));
        assert_eq!(inside, place.lives_on_node1(), "{place}: {own}");
    }
    Ok(())
}
