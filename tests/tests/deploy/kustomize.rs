//! The Kustomize folders.

use serde_json::Value;
use switchyard_tests::deploy::objects::find;
use switchyard_tests::deploy::{path, tools};

use crate::{check_objects, text, texts};

const FOLDERS: [&str; 7] = [
    "proxy/kustomize/base",
    "proxy/kustomize/kubeadm",
    "proxy/kustomize/node-by-node",
    "proxy/kustomize/example",
    "dns/kustomize/base",
    "dns/kustomize/coredns",
    "dns/kustomize/example",
];

fn objects(folder: &str) -> Vec<Value> {
    tools::kustomize(&path(folder)).unwrap()
}

#[test]
fn every_folder_makes_objects_as_kubernetes_describes_them() {
    for folder in FOLDERS {
        check_objects(folder, &objects(folder));
    }
}

#[test]
fn where_the_originals_configuration_is_used_none_of_ours_is_made() {
    for (folder, workload, own, theirs) in [
        (
            "proxy/kustomize/kubeadm",
            ("DaemonSet", "switchyard-proxy"),
            "switchyard-proxy",
            "kube-proxy",
        ),
        (
            "dns/kustomize/coredns",
            ("Deployment", "switchyard-dns"),
            "switchyard-dns",
            "coredns",
        ),
    ] {
        let objects = objects(folder);
        assert!(find(&objects, "ConfigMap", own).is_err(), "{folder}");
        let workload = find(&objects, workload.0, workload.1).unwrap();
        assert_eq!(
            text(workload, "/spec/template/spec/volumes/0/configMap/name"),
            theirs
        );
    }
}

#[test]
fn the_service_kube_dns_finds_our_pods_beside_those_of_coredns() {
    let objects = objects("dns/kustomize/base");
    let selector = &find(&objects, "Service", "kube-dns").unwrap()["spec"]["selector"];
    assert_eq!(
        selector,
        &serde_json::json!({"k8s-app": "kube-dns"}),
        "as kubeadm's"
    );
    let deployment = find(&objects, "Deployment", "switchyard-dns").unwrap();
    assert_eq!(
        text(deployment, "/spec/template/metadata/labels/k8s-app"),
        "kube-dns"
    );
}

#[test]
fn with_a_cache_on_each_node_the_service_leads_to_it_and_the_cache_to_the_deployment() {
    let objects = objects("dns/kustomize/example");
    let labels = |kind, name| {
        find(&objects, kind, name).unwrap()["spec"]["template"]["metadata"]["labels"].clone()
    };
    let selector = |name| find(&objects, "Service", name).unwrap()["spec"]["selector"].clone();
    let matches = |selector: &Value, labels: &Value| {
        let wanted = selector.as_object().unwrap();
        wanted
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
    };
    let (cache, server) = (
        labels("DaemonSet", "switchyard-dns-node"),
        labels("Deployment", "switchyard-dns"),
    );
    assert!(matches(&selector("kube-dns"), &cache) && !matches(&selector("kube-dns"), &server));
    assert!(
        matches(&selector("kube-dns-upstream"), &server)
            && !matches(&selector("kube-dns-upstream"), &cache)
    );
    let service = find(&objects, "Service", "kube-dns").unwrap();
    assert_eq!(text(service, "/spec/trafficDistribution"), "PreferSameNode");
    // Policies would keep the caches from their upstream otherwise.
    let policy = find(&objects, "NetworkPolicy", "switchyard-dns-node").unwrap();
    assert_eq!(texts(policy, "/spec/policyTypes"), ["Ingress", "Egress"]);
}
