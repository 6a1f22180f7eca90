//! What flags mean.

use std::path::Path;

use clap::Parser as _;

use super::*;

fn settings(args: &[&str]) -> Result<Settings, Vec<SettingError>> {
    let flags = Flags::try_parse_from([&["switchyard-proxy"], args].concat()).unwrap();
    Settings::read(&flags, "Host\n").map(|(settings, _)| settings)
}

#[test]
fn defaults_are_the_references() {
    let settings = settings(&[]).unwrap();
    assert_eq!(settings.node_name, "host");
    assert_eq!(settings.masquerade_mark, 0x4000);
    assert_eq!(settings.node_port_addresses, NodePortAddresses::All);
    assert_eq!(settings.healthz_address.unwrap().port(), 10256);
    assert_eq!(
        settings.metrics_address.unwrap().to_string(),
        "127.0.0.1:10249"
    );
    assert_eq!(settings.sync_period, Duration::from_secs(30));
    assert_eq!(settings.detect_local, DetectLocal::ClusterCidr(vec![]));
    assert!(settings.localhost_node_ports);
    assert_eq!(settings.proxy_mode, ProxyMode::Iptables);
    assert_eq!(settings.ebpf.cgroup_root, None);
    assert_eq!(settings.ebpf.bpf_root, Path::new(BPF_ROOT));
    assert!(!settings.ebpf.host_namespace_only);
    assert_eq!(settings.ipvs.scheduler, IpvsScheduler::RoundRobin);
    assert!(settings.ipvs.excluded.is_empty() && !settings.ipvs.strict_arp);
}

#[test]
fn each_mode_has_its_own_sync_period() {
    let flags = ["--ipvs-sync-period=5s", "--ipvs-min-sync-period=1s"];
    let of = |mode| settings(&[flags.as_slice(), &[mode]].concat()).unwrap();
    let ipvs = of("--proxy-mode=ipvs");
    assert_eq!(ipvs.sync_period, Duration::from_secs(5));
    assert_eq!(ipvs.min_sync_period, Some(Duration::from_secs(1)));
    let iptables = of("--proxy-mode=iptables");
    assert_eq!(iptables.sync_period, Duration::from_secs(30));
    assert_eq!(iptables.min_sync_period, None);
}

#[test]
fn modes_that_are_not_there_are_named_with_those_that_are() {
    let modes = [
        ("ipvs", ProxyMode::Ipvs),
        ("nftables", ProxyMode::Nftables),
        ("ebpf", ProxyMode::Ebpf),
        ("auto", ProxyMode::Auto),
    ];
    for (name, mode) in modes {
        let settings = settings(&[&format!("--proxy-mode={name}")]).unwrap();
        assert_eq!(settings.proxy_mode, mode);
    }
    for name in ["userspace", "IPVS"] {
        let errors = settings(&[&format!("--proxy-mode={name}")]).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            format!(
                "--proxy-mode: {name:?}: expected iptables, ipvs, nftables, ebpf or auto, all that \
                 this version has"
            )
        );
    }
}

#[test]
fn flags_are_spelled_as_pflag_takes_them() {
    let settings = settings(&[
        "--masquerade-all",
        "--iptables-localhost-nodeports=false",
        "--iptables-sync-period=1m30s",
        "--nodeport-addresses=0.0.0.0/0,::/0",
        "--healthz-bind-address=",
        "-v=4",
    ])
    .unwrap();
    assert!(settings.masquerade_all);
    assert!(!settings.localhost_node_ports);
    assert_eq!(settings.sync_period, Duration::from_secs(90));
    assert_eq!(settings.node_port_addresses, NodePortAddresses::All);
    assert_eq!(settings.healthz_address, None);
}

#[test]
fn all_errors_are_reported_at_once() {
    let errors = settings(&[
        "--cluster-cidr=10.244.0.0/16,nonsense",
        "--detect-local-mode=Guess",
        "--metrics-bind-address=here",
        "--proxy-mode=userspace",
        "--ipvs-scheduler=fair",
        "--ipvs-exclude-cidrs=10.0.0.1",
        "--iptables-min-sync-period=1m",
        "--bpf-root=pins",
    ])
    .unwrap_err();
    let flags: Vec<_> = errors.iter().map(|error| &*error.at).collect();
    let expected = [
        "--proxy-mode",
        "--iptables-min-sync-period",
        "--ipvs-scheduler",
        "--ipvs-exclude-cidrs",
        "--bpf-root",
        "--cluster-cidr",
        "--detect-local-mode",
        "--metrics-bind-address",
    ];
    assert_eq!(flags, expected);
}
