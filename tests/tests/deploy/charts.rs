//! The Helm charts.

use serde_json::Value;
use switchyard_tests::deploy::objects::{find, name, normal};
use switchyard_tests::deploy::{path, tools};

use crate::{check_objects, text};

const PROXY: &str = "proxy/chart";
const DNS: &str = "dns/chart";
/// What the proxy's chart can't do without.
const API_SERVER: &str = "apiServer=https://api-server.example:6443";

fn render(chart: &str, values: &[&str]) -> Vec<Value> {
    tools::helm(&path(chart), values).unwrap()
}

#[test]
fn charts_make_objects_as_kubernetes_describes_them_with_all_sorts_of_values() {
    for (chart, values) in [
        (PROXY, vec![API_SERVER]),
        (
            PROXY,
            vec![
                API_SERVER,
                "config.mode=auto",
                "monitoring.enabled=true",
                "monitoring.labels.release=a",
            ],
        ),
        (
            PROXY,
            vec![
                "configMap=kube-proxy",
                "config.mode=ipvs",
                "iptables=legacy",
                "extraArgs={-v=2}",
            ],
        ),
        (
            PROXY,
            vec![
                API_SERVER,
                "config.mode=ebpf",
                "resources.limits.memory=1Gi",
                "imagePullSecrets[0].name=a",
            ],
        ),
        (DNS, vec![]),
        (
            DNS,
            vec![
                "nodeLocal.enabled=true",
                "monitoring.enabled=true",
                "service.clusterIP=10.96.0.10",
            ],
        ),
        (
            DNS,
            vec![
                "service.create=false",
                "configMap=coredns",
                "networkPolicy.enabled=false",
                "replicas=3",
            ],
        ),
        (
            DNS,
            vec![
                "service.clusterIPs={10.96.0.10,fd00:96::a}",
                "service.clusterIP=10.96.0.10",
            ],
        ),
    ] {
        check_objects(&format!("{chart} {values:?}"), &render(chart, &values));
        tools::helm_lint(&path(chart), &values).unwrap();
    }
}

/// Whoever goes from one to the other gets the same.
#[test]
fn charts_and_kustomize_folders_mean_the_same() {
    for (chart, values, folder) in [
        (PROXY, vec![API_SERVER], "proxy/kustomize/base"),
        (
            PROXY,
            vec!["configMap=kube-proxy", "config.mode=iptables"],
            "proxy/kustomize/kubeadm",
        ),
        (
            PROXY,
            vec![
                "apiServer=https://control-plane.example:6443",
                "image.repository=registry.example/switchyard-proxy",
                "config.mode=ebpf",
                "config.clusterCIDR=10.244.0.0/16\\,fd00:244::/32",
                "monitoring.enabled=true",
            ],
            "proxy/kustomize/example",
        ),
        (DNS, vec![], "dns/kustomize/base"),
        (
            DNS,
            vec!["service.create=false", "configMap=coredns"],
            "dns/kustomize/coredns",
        ),
        (
            DNS,
            vec![
                "image.repository=registry.example/switchyard-dns",
                "service.clusterIP=10.96.0.10",
                "nodeLocal.enabled=true",
                "monitoring.enabled=true",
            ],
            "dns/kustomize/example",
        ),
    ] {
        let sorted = |objects: Vec<Value>| {
            let mut objects: Vec<(String, Value)> = objects
                .iter()
                .map(|object| (name(object), normal(object)))
                .collect();
            objects.sort_by(|one, other| one.0.cmp(&other.0));
            objects
        };
        let ours = sorted(render(chart, &values));
        let theirs = sorted(tools::kustomize(&path(folder)).unwrap());
        let names = |objects: &[(String, Value)]| -> Vec<String> {
            objects.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(
            names(&ours),
            names(&theirs),
            "{chart} {values:?} and {folder}"
        );
        for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            let shown = |object| serde_json::to_string_pretty(object).unwrap();
            assert!(
                ours == theirs,
                "{name} of {folder}:\n{}\nand of {chart}:\n{}",
                shown(theirs),
                shown(ours)
            );
        }
    }
}

#[test]
fn values_that_can_not_work_are_refused_with_what_is_expected() {
    for (chart, values, expected) in [
        (
            PROXY,
            vec![],
            "apiServer: expected the API server's address",
        ),
        (
            PROXY,
            vec![API_SERVER, "config.mode=xdp"],
            r#"config.mode: "xdp": expected iptables"#,
        ),
        (
            PROXY,
            vec![API_SERVER, "config.mode=iptables", "iptables=ebtables"],
            r#"iptables: "ebtables": expected nft or legacy"#,
        ),
        (
            DNS,
            vec!["nodeLocal.enabled=true", "service.create=false"],
            "nodeLocal.enabled needs service.create",
        ),
    ] {
        let error = tools::helm(&path(chart), &values).unwrap_err().to_string();
        assert!(error.contains(expected), "{values:?}: {error}");
    }
}

/// A file of the chart's is a file that the program takes.
#[test]
fn what_the_charts_write_the_programs_can_read() {
    let objects = render(
        PROXY,
        &[API_SERVER, "config.mode=ipvs", "config.ipvs.scheduler=wlc"],
    );
    let config = find(&objects, "ConfigMap", "switchyard-proxy").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.conf");
    std::fs::write(&file, text(config, "/data/config.conf")).unwrap();
    let mut proxy =
        std::process::Command::new(switchyard_tests::binary::find("switchyard-proxy").unwrap());
    let written = dir.path().join("written");
    proxy
        .arg("--config")
        .arg(&file)
        .arg("--write-config-to")
        .arg(&written);
    tools::said(&mut proxy).unwrap();
    let written: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(&written).unwrap()).unwrap();
    assert_eq!(text(&written, "/ipvs/scheduler"), "wlc");
    assert_eq!(text(&written, "/mode"), "ipvs");
    assert_eq!(written["oomScoreAdj"], -997);
}
