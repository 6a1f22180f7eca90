//! The rules, of which there are as many however many Services there are: they match sets.
//! Pure. Names and meaning are the reference's, where it has them.
//!
//! Rules are written the way `iptables-save` prints them, so that what is read back compares.

use switchyard_cluster::object::IpFamily;

use super::config::Config;
use super::sets::Set;
use crate::backend::xtables::{Chain, FixedChain, Jump, Table};
use crate::plan::LocalDetector;

/// Entry of everything sent to a Service (nat).
pub(super) const SERVICES: &str = "KUBE-SERVICES";
const POSTROUTING: &str = "KUBE-POSTROUTING";
const MARK_MASQ: &str = "KUBE-MARK-MASQ";
const LOAD_BALANCER: &str = "KUBE-LOAD-BALANCER";
const NODE_PORT: &str = "KUBE-NODE-PORT";
const FORWARD: &str = "KUBE-FORWARD";
const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
const SOURCE_RANGES: &str = "KUBE-SOURCE-RANGES-FIREWALL";
const IPVS_FILTER: &str = "KUBE-IPVS-FILTER";
const OUT_FILTER: &str = "KUBE-IPVS-OUT-FILTER";

/// Chains of ours, those jumped to before those that jump.
pub(super) const CHAINS: [(Table, &str); 13] = [
    (Table::Mangle, SOURCE_RANGES),
    (Table::Mangle, OUT_FILTER),
    (Table::Filter, FORWARD),
    (Table::Filter, NODE_PORT),
    (Table::Filter, SOURCE_RANGES),
    (Table::Filter, PROXY_FIREWALL),
    (Table::Filter, IPVS_FILTER),
    (Table::Nat, MARK_MASQ),
    (Table::Nat, POSTROUTING),
    (Table::Nat, LOAD_BALANCER),
    (Table::Nat, NODE_PORT),
    (Table::Nat, SERVICES),
    // What the reference has there, and we in mangle: removed by --cleanup.
    (Table::Filter, OUT_FILTER),
];

/// Chains with their whole content, in that order.
pub(super) fn chains(config: &Config) -> Vec<FixedChain> {
    let rules = Rules { config };
    let of = |table, name: &str, rules: Vec<String>| FixedChain {
        table,
        chain: Chain {
            name: name.to_owned(),
            rules,
        },
    };
    vec![
        of(Table::Mangle, SOURCE_RANGES, rules.source_ranges()),
        of(Table::Mangle, OUT_FILTER, rules.out_filter()),
        of(Table::Filter, FORWARD, rules.forward()),
        of(Table::Filter, NODE_PORT, rules.health_checks()),
        of(Table::Filter, SOURCE_RANGES, rules.source_ranges()),
        of(Table::Filter, PROXY_FIREWALL, rules.firewall()),
        of(Table::Filter, IPVS_FILTER, rules.access()),
        of(
            Table::Nat,
            MARK_MASQ,
            vec![format!("-j MARK --set-xmark {}", config.mark())],
        ),
        of(Table::Nat, POSTROUTING, rules.postrouting()),
        of(Table::Nat, LOAD_BALANCER, rules.load_balancer()),
        of(Table::Nat, NODE_PORT, rules.node_ports()),
        of(Table::Nat, SERVICES, rules.services()),
    ]
}

/// Jumps into our chains, in the order in which they stand at the head of each chain.
pub(super) fn jumps() -> Vec<Jump> {
    let new = "-m conntrack --ctstate NEW ";
    let jump = |table, from, state: &str, comment: &str, to: &str| Jump {
        table,
        from,
        rule: format!("{state}-m comment --comment \"{comment}\" -j {to}"),
    };
    let firewall = "kubernetes load balancer firewall";
    let portals = "kubernetes service portals";
    vec![
        jump(
            Table::Mangle,
            "OUTPUT",
            new,
            "kubernetes ipvs output filter",
            OUT_FILTER,
        ),
        jump(Table::Filter, "INPUT", new, firewall, PROXY_FIREWALL),
        jump(
            Table::Filter,
            "INPUT",
            "",
            "kubernetes health check rules",
            NODE_PORT,
        ),
        jump(
            Table::Filter,
            "INPUT",
            "",
            "kubernetes ipvs access filter",
            IPVS_FILTER,
        ),
        jump(
            Table::Filter,
            "FORWARD",
            "",
            "kubernetes forwarding rules",
            FORWARD,
        ),
        jump(Table::Nat, "PREROUTING", "", portals, SERVICES),
        jump(Table::Nat, "OUTPUT", "", portals, SERVICES),
        jump(
            Table::Nat,
            "POSTROUTING",
            "",
            "kubernetes postrouting rules",
            POSTROUTING,
        ),
    ]
}

struct Rules<'a> {
    config: &'a Config,
}

impl Rules<'_> {
    /// A match of a set; `with` says which of a packet's addresses and ports.
    fn set(&self, set: Set, with: &str) -> String {
        format!("-m set --match-set {} {with}", set.name(self.config.family))
    }

    fn vip(&self, set: Set) -> String {
        self.set(set, "dst,dst")
    }

    /// Traffic to Services: what is to be masqueraded is marked. Everything else that a VIP
    /// gets passes other people's rules by, which would else translate it before IPVS sees it.
    fn services(&self) -> Vec<String> {
        let loopback = match self.config.family {
            IpFamily::V4 => "127.0.0.0/8",
            IpFamily::V6 => "::1/128",
        };
        let local = "-m addrtype --src-type LOCAL";
        let comment = |text: &str| format!("-m comment --comment \"{text}\"");
        let mut rules = vec![
            format!("-s {loopback} -j RETURN"),
            self.masquerade_cluster_ips(),
            format!("{} -j ACCEPT", self.vip(Set::ClusterIp)),
            format!(
                "{} {} -j {LOAD_BALANCER}",
                comment("Kubernetes service lb portal"),
                self.vip(Set::LoadBalancer)
            ),
            format!("{} -j ACCEPT", self.vip(Set::LoadBalancer)),
            format!(
                "{} {} -j {MARK_MASQ}",
                comment("Kubernetes service external ip + port for masquerade and filter purpose"),
                self.vip(Set::ExternalIp)
            ),
            format!("{} -j ACCEPT", self.vip(Set::ExternalIp)),
            format!("{local} {} -j {MARK_MASQ}", self.vip(Set::ExternalIpLocal)),
            format!("{} -j ACCEPT", self.vip(Set::ExternalIpLocal)),
        ];
        if self.config.node_ports_are_restricted {
            let addresses = self.config.node_addresses.iter();
            rules.extend(
                addresses
                    .map(|address| format!("-d {} -j {NODE_PORT}", self.config.host(*address))),
            );
        } else {
            rules.push(format!("-m addrtype --dst-type LOCAL -j {NODE_PORT}"));
        }
        rules
    }

    /// What does not come from a local pod. Where pods can't be told, only what the node sends
    /// from the VIP itself, which is the source the kernel gives it.
    fn masquerade_cluster_ips(&self) -> String {
        let comment = "-m comment --comment \"Kubernetes service cluster ip + port for \
                       masquerade purpose\"";
        let set = self.vip(Set::ClusterIp);
        if self.config.masquerade_all {
            return format!("{comment} {set} -j {MARK_MASQ}");
        }
        match self.not_local_pods() {
            Some(others) => format!("{others} {comment} {set} -j {MARK_MASQ}"),
            None => {
                let from_vip = self.set(Set::ClusterIp, "src,dst");
                format!("{comment} {from_vip} -j {MARK_MASQ}")
            }
        }
    }

    fn not_local_pods(&self) -> Option<String> {
        match &self.config.detector {
            LocalDetector::Cidrs { .. } => {
                let pods = self.config.detector.cidr(self.config.family)?;
                Some(format!("! -s {}", pods.trunc()))
            }
            LocalDetector::Bridge(name) => Some(format!("! -i {name}")),
            LocalDetector::InterfacePrefix(prefix) => Some(format!("! -i {prefix}+")),
        }
    }

    /// Policy Local: only the node itself is masqueraded.
    fn load_balancer(&self) -> Vec<String> {
        let local = self.vip(Set::LoadBalancerLocal);
        vec![
            format!("-m addrtype --src-type LOCAL {local} -j {MARK_MASQ}"),
            format!(
                "-m comment --comment \"Kubernetes service load balancer ip + port with \
                 externalTrafficPolicy=local\" {local} -j RETURN"
            ),
            format!("-j {MARK_MASQ}"),
        ]
    }

    fn node_ports(&self) -> Vec<String> {
        let kinds = [
            ("tcp", "dst", Set::NodePortLocalTcp, Set::NodePortTcp),
            ("udp", "dst", Set::NodePortLocalUdp, Set::NodePortUdp),
            ("sctp", "dst,dst", Set::NodePortLocalSctp, Set::NodePortSctp),
        ];
        let mut rules = Vec::new();
        for (protocol, with, local, all) in kinds {
            let (local, all) = (self.set(local, with), self.set(all, with));
            rules.extend([
                format!("-p {protocol} -m addrtype --src-type LOCAL {local} -j {MARK_MASQ}"),
                format!("-p {protocol} {local} -j RETURN"),
                format!("-p {protocol} {all} -j {MARK_MASQ}"),
            ]);
        }
        rules
    }

    fn postrouting(&self) -> Vec<String> {
        let mark = self.config.mark();
        let hairpin = self.set(Set::LoopBack, "dst,dst,src");
        vec![
            format!(
                "-m comment --comment \"Kubernetes endpoints dst ip:port, source ip for solving \
                 hairpin purpose\" {hairpin} -j MASQUERADE --random-fully"
            ),
            format!("-m mark ! --mark {mark} -j RETURN"),
            // Unmarked again, so that the packet is not masqueraded twice on its way.
            format!("-j MARK --set-xmark {:#x}/0x0", self.config.masquerade_mark),
            "-m comment --comment \"kubernetes service traffic requiring SNAT\" \
             -j MASQUERADE --random-fully"
                .to_owned(),
        ]
    }

    fn forward(&self) -> Vec<String> {
        let mark = self.config.mark();
        vec![
            format!(
                "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark} \
                 -j ACCEPT"
            ),
            "-m comment --comment \"kubernetes forwarding conntrack rule\" \
             -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
                .to_owned(),
        ]
    }

    fn health_checks(&self) -> Vec<String> {
        vec![format!(
            "-p tcp -m comment --comment \"Kubernetes health check node port\" {} -j ACCEPT",
            self.set(Set::HealthCheckNodePort, "dst")
        )]
    }

    /// What policies and source ranges keep out, of what comes in.
    fn firewall(&self) -> Vec<String> {
        let others = self.not_local_pods().unwrap_or_default();
        let others = match others.as_str() {
            "" => String::new(),
            text => format!("{text} "),
        };
        vec![
            format!("{} -j DROP", self.vip(Set::ClusterIpNoLocal)),
            format!("{others}{} -j DROP", self.vip(Set::ExternalNoLocal)),
            format!(
                "-m comment --comment \"Kubernetes service load balancer ip + port for load \
                 balancer with sourceRange\" {} -j {SOURCE_RANGES}",
                self.vip(Set::LoadBalancerFirewall)
            ),
        ]
    }

    fn source_ranges(&self) -> Vec<String> {
        vec![
            format!(
                "{} -j RETURN",
                self.set(Set::LoadBalancerSourceCidr, "dst,dst,src")
            ),
            format!(
                "{} -j RETURN",
                self.set(Set::LoadBalancerSourceIp, "dst,dst,src")
            ),
            "-j DROP".to_owned(),
        ]
    }

    /// What policies and source ranges keep out, of what the node sends. IPVS translates that
    /// before the filter table sees it, so it is dropped in mangle, which comes first.
    fn out_filter(&self) -> Vec<String> {
        vec![
            format!("{} -j DROP", self.vip(Set::ClusterIpNoLocal)),
            format!("{} -j {SOURCE_RANGES}", self.vip(Set::LoadBalancerFirewall)),
        ]
    }

    /// VIPs are addresses of the node: without this, what listens on the node would be reached
    /// at every port of theirs that no Service has.
    fn access(&self) -> Vec<String> {
        let served = [
            Set::LoadBalancer,
            Set::ClusterIp,
            Set::ExternalIp,
            Set::ExternalIpLocal,
        ];
        let mut rules: Vec<String> = served
            .iter()
            .map(|set| format!("{} -j RETURN", self.vip(*set)))
            .collect();
        rules.push(format!(
            "{} -j RETURN",
            self.set(Set::HealthCheckNodePort, "dst")
        ));
        let reject = match self.config.family {
            IpFamily::V4 => "icmp-port-unreachable",
            IpFamily::V6 => "icmp6-port-unreachable",
        };
        rules.push(format!(
            "-m conntrack --ctstate NEW {} -j REJECT --reject-with {reject}",
            self.set(Set::IpvsIps, "dst")
        ));
        rules
    }
}
