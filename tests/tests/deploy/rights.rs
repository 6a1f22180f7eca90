//! What the manifests let the programs do: what they ask for, and no more.

use std::collections::BTreeSet;

use serde_json::Value;
use switchyard_cluster::object::Kind;
use switchyard_cluster::source::{DnsNeeds, Selection};
use switchyard_tests::deploy::objects::find;
use switchyard_tests::deploy::{path, tools};

use crate::{text, texts};

/// Group and resource of a kind, as roles name them.
fn resource(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Service => ("", "services"),
        Kind::Endpoints => ("", "endpoints"),
        Kind::Node => ("", "nodes"),
        Kind::Namespace => ("", "namespaces"),
        Kind::Pod => ("", "pods"),
        Kind::EndpointSlice => ("discovery.k8s.io", "endpointslices"),
        Kind::ServiceCidr => ("networking.k8s.io", "servicecidrs"),
    }
}

type Rights = BTreeSet<(String, String, String)>;

/// All that a role allows: group, resource, verb.
fn allowed(role: &Value) -> Rights {
    let mut all = Rights::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(rule, "/apiGroups") {
            for resource in texts(rule, "/resources") {
                for verb in texts(rule, "/verbs") {
                    all.insert((group.to_owned(), resource.to_owned(), verb.to_owned()));
                }
            }
        }
    }
    all
}

fn followed(selections: &[Selection]) -> Rights {
    let mut all = Rights::new();
    for selection in selections {
        let (group, resource) = resource(selection.kind);
        for verb in ["list", "watch"] {
            all.insert((group.to_owned(), resource.to_owned(), verb.to_owned()));
        }
    }
    all
}

#[test]
fn the_proxy_may_follow_what_it_follows_and_write_events() {
    let objects = tools::kustomize(&path("proxy/kustomize/base")).unwrap();
    let role = find(&objects, "ClusterRole", "switchyard-proxy").unwrap();
    let mut wanted = followed(&Selection::for_proxy("node1"));
    for group in ["", "events.k8s.io"] {
        for verb in ["create", "patch"] {
            wanted.insert((group.to_owned(), "events".to_owned(), verb.to_owned()));
        }
    }
    assert_eq!(allowed(role), wanted);
}

#[test]
fn the_dns_server_may_follow_what_any_corefile_makes_it_follow() {
    let objects = tools::kustomize(&path("dns/kustomize/base")).unwrap();
    let role = find(&objects, "ClusterRole", "switchyard-dns").unwrap();
    let everything = DnsNeeds {
        pods: true,
        ..DnsNeeds::default()
    };
    assert_eq!(allowed(role), followed(&Selection::for_dns(&everything)));
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn each_proxy_mode_has_the_capabilities_it_needs() {
    for (mode, capabilities, folders) in [
        ("nftables", vec!["NET_ADMIN"], vec!["/var/lib/kube-proxy"]),
        (
            "iptables",
            vec!["NET_ADMIN", "NET_RAW"],
            vec!["/run/xtables.lock", "/var/lib/kube-proxy"],
        ),
        (
            "ipvs",
            vec!["NET_ADMIN", "NET_RAW", "SYS_ADMIN"],
            vec!["/run/xtables.lock", "/var/lib/kube-proxy"],
        ),
        (
            "ebpf",
            vec!["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN"],
            vec![
                "/run/netns",
                "/sys/fs/bpf",
                "/sys/fs/cgroup",
                "/var/lib/kube-proxy",
            ],
        ),
    ] {
        let set = format!("config.mode={mode}");
        let objects = tools::helm(
            &path("proxy/chart"),
            &["apiServer=https://a.example:1", &set],
        )
        .unwrap();
        let daemon_set = find(&objects, "DaemonSet", "switchyard-proxy").unwrap();
        let container = container(daemon_set);
        assert_eq!(
            texts(container, "/securityContext/capabilities/add"),
            capabilities,
            "{mode}"
        );
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mut mounts: Vec<&str> = mounts
            .iter()
            .map(|mount| text(mount, "/mountPath"))
            .collect();
        mounts.sort_unstable();
        assert_eq!(mounts, folders, "{mode}");
    }
}

#[test]
fn no_container_that_stays_may_become_more_than_it_is() {
    for (folder, kind, name) in [
        ("proxy/kustomize/base", "DaemonSet", "switchyard-proxy"),
        ("proxy/kustomize/kubeadm", "DaemonSet", "switchyard-proxy"),
        ("proxy/kustomize/example", "DaemonSet", "switchyard-proxy"),
        ("dns/kustomize/example", "Deployment", "switchyard-dns"),
        ("dns/kustomize/example", "DaemonSet", "switchyard-dns-node"),
    ] {
        let objects = tools::kustomize(&path(folder)).unwrap();
        let workload = find(&objects, kind, name).unwrap();
        let pod = &workload["spec"]["template"]["spec"];
        let container = container(workload);
        let security = &container["securityContext"];
        assert_eq!(
            text(pod, "/securityContext/seccompProfile/type"),
            "RuntimeDefault",
            "{folder}"
        );
        assert_eq!(
            security["allowPrivilegeEscalation"], false,
            "{folder} {name}"
        );
        assert_eq!(security["readOnlyRootFilesystem"], true, "{folder} {name}");
        assert_ne!(security["privileged"], true, "{folder} {name}");
        assert_eq!(
            texts(security, "/capabilities/drop"),
            ["ALL"],
            "{folder} {name}"
        );
        assert!(
            text(pod, "/priorityClassName").ends_with("-critical"),
            "{folder} {name}"
        );
        for probe in ["livenessProbe", "readinessProbe"] {
            assert!(
                container[probe]["httpGet"].is_object(),
                "{folder} {name}: {probe}"
            );
        }
        assert_ne!(
            text(container, "/resources/requests/memory"),
            "",
            "{folder} {name}"
        );
        if folder.starts_with("dns/") {
            assert_eq!(
                pod["securityContext"]["runAsNonRoot"], true,
                "{folder} {name}"
            );
            assert_eq!(
                texts(security, "/capabilities/add"),
                ["NET_BIND_SERVICE"],
                "{folder} {name}"
            );
        }
    }
}
