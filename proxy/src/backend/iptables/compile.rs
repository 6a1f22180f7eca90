//! From one plan to its chains and its rules in shared chains. Pure.
//!
//! Rules are written the way `iptables-save` prints them (options in its order, addresses with
//! their prefix length), so that what is read back compares as text.

use std::net::IpAddr;

use switchyard_cluster::object::{IpFamily, TrafficPolicy};

use super::config::Config;
use super::names::{self, ServiceChains};
use super::{Shared, nfacct_names};
use crate::backend::xtables::{Chain, RuleCounts, Table};
use crate::plan::{Frontend, LocalDetector, ServicePlan, Target};

/// The rules of one plan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Chains of the nat table that are this plan's alone, those jumped to before those that
    /// jump.
    pub(super) chains: Vec<Chain>,
    /// Rules in chains shared by all plans, without `-A CHAIN`.
    pub(super) shared: Vec<(Shared, String)>,
}

impl Fragment {
    /// How many rules it has.
    pub(super) fn rule_counts(&self) -> RuleCounts {
        let mut counts = RuleCounts::default();
        for chain in &self.chains {
            counts.add(Table::Nat, chain.rules.len());
        }
        for (shared, _) in &self.shared {
            counts.add(shared.table(), 1);
        }
        counts
    }
}

/// Compiles one plan.
pub(super) fn compile(plan: &ServicePlan, config: &Config) -> Fragment {
    let mut compiler = Compiler {
        plan,
        config,
        name: plan.id.to_string(),
        chains: ServiceChains::new(&plan.id),
        out: Fragment::default(),
    };
    compiler.health_check();
    if plan.any_endpoint {
        compiler.endpoint_chains();
        compiler.policy_chains();
        compiler.external_chain();
        compiler.firewall_chain();
    }
    for frontend in &plan.frontends {
        compiler.frontend(*frontend);
    }
    compiler.out
}

struct Compiler<'a> {
    plan: &'a ServicePlan,
    config: &'a Config,
    /// `namespace/name:port`, as comments carry it.
    name: String,
    chains: ServiceChains,
    out: Fragment,
}

impl Compiler<'_> {
    fn chain(&mut self, name: String, rules: Vec<String>) {
        self.out.chains.push(Chain { name, rules });
    }

    fn shared(&mut self, chain: Shared, rule: String) {
        self.out.shared.push((chain, rule));
    }

    fn health_check(&mut self) {
        if let Some(port) = self.plan.health_check_node_port {
            let name = &self.name;
            let rule = format!(
                "-p tcp -m comment --comment \"{name} health check node port\" \
                 -m tcp --dport {port} -j ACCEPT"
            );
            self.shared(Shared::FilterNodePorts, rule);
        }
    }

    /// One chain for each endpoint that any list uses.
    fn endpoint_chains(&mut self) {
        let mut targets: Vec<&Target> = self.plan.cluster.iter().chain(&self.plan.local).collect();
        targets.sort_unstable();
        targets.dedup();
        let comment = self.config.endpoint_comment(&self.name);
        let protocol = self.plan.id.protocol;
        for target in targets {
            let endpoint = target.socket();
            let chain = names::endpoint_chain(&self.plan.id, endpoint);
            let source = self.config.host(target.address);
            let remember = match self.plan.affinity_timeout_s {
                Some(_) => format!("-m recent --set {} ", self.recent(&chain)),
                None => String::new(),
            };
            let rules = vec![
                format!("-s {source} {comment}-j {}", names::MARK_MASQ),
                format!(
                    "-p {protocol} {comment}{remember}-m {protocol} \
                     -j DNAT --to-destination {endpoint}"
                ),
            ];
            self.chain(chain, rules);
        }
    }

    fn policy_chains(&mut self) {
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            if self.plan.targets(policy).is_empty() {
                continue;
            }
            let mut rules = Vec::new();
            if policy == self.plan.internal_policy {
                rules.extend(self.masquerade_cluster_ip());
            }
            self.balance(self.plan.targets(policy), &mut rules);
            self.chain(self.policy_chain(policy), rules);
        }
    }

    fn policy_chain(&self, policy: TrafficPolicy) -> String {
        match policy {
            TrafficPolicy::Cluster => self.chains.cluster(),
            TrafficPolicy::Local => self.chains.local(),
        }
    }

    /// Marks traffic to the ClusterIP that does not come from a pod of this node.
    fn masquerade_cluster_ip(&self) -> Option<String> {
        let cluster_ip = self.plan.cluster_ip()?;
        let (source, interface) = if self.config.masquerade_all {
            (String::new(), String::new())
        } else {
            self.not_local_pods_match()?
        };
        let destination = self.config.host(cluster_ip);
        Some(format!(
            "{source}-d {destination} {interface}{} -j {}",
            self.port_match("cluster IP", self.plan.port),
            names::MARK_MASQ
        ))
    }

    /// The match for "not from a local pod", split where `iptables-save` puts `-s` before and
    /// `-i` behind the destination.
    fn not_local_pods_match(&self) -> Option<(String, String)> {
        match &self.config.detector {
            LocalDetector::Cidrs { .. } => {
                let pods = self.config.detector.cidr(self.config.family)?;
                Some((format!("! -s {} ", pods.trunc()), String::new()))
            }
            LocalDetector::Bridge(name) => Some((String::new(), format!("! -i {name} "))),
            LocalDetector::InterfacePrefix(prefix) => {
                Some((String::new(), format!("! -i {prefix}+ ")))
            }
        }
    }

    fn local_pods_match(&self) -> Option<String> {
        match &self.config.detector {
            LocalDetector::Cidrs { .. } => {
                let pods = self.config.detector.cidr(self.config.family)?;
                Some(format!("-s {}", pods.trunc()))
            }
            LocalDetector::Bridge(name) => Some(format!("-i {name}")),
            LocalDetector::InterfacePrefix(prefix) => Some(format!("-i {prefix}+")),
        }
    }

    /// Affinity first, then one chance in as many as are left for each endpoint.
    fn balance(&self, targets: &[Target], rules: &mut Vec<String>) {
        let jump = |target: &Target| {
            let endpoint = target.socket();
            let chain = names::endpoint_chain(&self.plan.id, endpoint);
            let comment = self
                .config
                .endpoint_comment(&format!("{} -> {endpoint}", self.name));
            (comment, chain)
        };
        if let Some(seconds) = self.plan.affinity_timeout_s {
            for target in targets {
                let (comment, chain) = jump(target);
                let recent = self.recent(&chain);
                rules.push(format!(
                    "{comment}-m recent --rcheck --seconds {seconds} --reap {recent} -j {chain}"
                ));
            }
        }
        for (index, target) in targets.iter().enumerate() {
            let (comment, chain) = jump(target);
            let left = targets.len() - index;
            let chance = if left > 1 {
                format!(
                    "-m statistic --mode random --probability {} ",
                    probability(left)
                )
            } else {
                String::new()
            };
            rules.push(format!("{comment}{chance}-j {chain}"));
        }
    }

    fn recent(&self, chain: &str) -> String {
        let mask = match self.config.family {
            IpFamily::V4 => "255.255.255.255",
            IpFamily::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        };
        format!("--name {chain} --mask {mask} --rsource")
    }

    fn external_chain(&mut self) {
        if !self.plan.is_external() {
            return;
        }
        let name = &self.name;
        let cluster = self.chains.cluster();
        let mark = names::MARK_MASQ;
        let mut rules = Vec::new();
        match self.plan.external_policy {
            TrafficPolicy::Cluster => {
                rules.push(format!(
                    "-m comment --comment \"masquerade traffic for {name} external destinations\" \
                     -j {mark}"
                ));
                rules.push(format!("-j {cluster}"));
            }
            TrafficPolicy::Local => {
                if let Some(pods) = self.local_pods_match() {
                    rules.push(format!(
                        "{pods} -m comment --comment \"pod traffic for {name} external \
                         destinations\" -j {cluster}"
                    ));
                }
                for (verb, target) in [("masquerade", mark), ("route", cluster.as_str())] {
                    rules.push(format!(
                        "-m comment --comment \"{verb} LOCAL traffic for {name} external \
                         destinations\" -m addrtype --src-type LOCAL -j {target}"
                    ));
                }
                if !self.plan.local.is_empty() {
                    rules.push(format!("-j {}", self.chains.local()));
                }
            }
        }
        self.chain(self.chains.external(), rules);
    }

    fn firewall_chain(&mut self) {
        let vips: Vec<IpAddr> = self.plan.load_balancer_ips().collect();
        let Some(ranges) = self
            .plan
            .source_ranges
            .as_deref()
            .filter(|_| !vips.is_empty())
        else {
            return;
        };
        let name = &self.name;
        let allow = |source: String| {
            let external = self.chains.external();
            format!("-s {source} -m comment --comment \"{name} loadbalancer IP\" -j {external}")
        };
        let mut rules: Vec<String> = ranges
            .iter()
            .map(|range| allow(range.trunc().to_string()))
            .collect();
        if self.plan.source_ranges_include_node {
            rules.extend(vips.iter().map(|vip| allow(self.config.host(*vip))));
        }
        rules.push(format!(
            "-m comment --comment \"other traffic to {name} will be dropped by {}\"",
            names::PROXY_FIREWALL
        ));
        self.chain(self.chains.firewall(), rules);
        for vip in vips {
            let destination = self.config.host(vip);
            let what = format!("traffic not accepted by {}", self.chains.firewall());
            let rule = format!(
                "-d {destination} {} -j DROP",
                self.port_match(&what, self.plan.port)
            );
            self.shared(Shared::Firewall, rule);
        }
    }

    fn frontend(&mut self, frontend: Frontend) {
        match frontend {
            Frontend::ClusterIp(address) => {
                let policy = self.plan.internal_policy;
                match self.refusal(policy) {
                    Some((why, target)) => {
                        self.vip(Shared::FilterServices, address, why, &target);
                    }
                    None => {
                        let chain = self.policy_chain(policy);
                        self.vip(Shared::NatServices, address, "cluster IP", &chain);
                    }
                }
            }
            Frontend::ExternalIp(address) => {
                let chain = self.chains.external();
                self.external_vip(address, "external IP", &chain);
            }
            Frontend::LoadBalancerIp(address) => {
                let chain = match self.plan.source_ranges {
                    Some(_) => self.chains.firewall(),
                    None => self.chains.external(),
                };
                self.external_vip(address, "loadbalancer IP", &chain);
            }
            Frontend::NodePort(port) => self.node_port(port),
        }
    }

    /// Why and how traffic under this policy is refused, if it is.
    fn refusal(&self, policy: TrafficPolicy) -> Option<(&'static str, String)> {
        if !self.plan.any_endpoint {
            Some(("has no endpoints", self.config.reject().to_owned()))
        } else if self.plan.targets(policy).is_empty() {
            Some(("has no local endpoints", "DROP".to_owned()))
        } else {
            None
        }
    }

    fn external_vip(&mut self, address: IpAddr, what: &str, chain: &str) {
        if let Some((why, target)) = self.refusal(self.plan.external_policy) {
            self.vip(Shared::FilterExternal, address, why, &target);
        }
        // Pods and the node itself still get through when only local endpoints are missing.
        if self.plan.any_endpoint {
            self.vip(Shared::NatServices, address, what, chain);
        }
    }

    fn vip(&mut self, into: Shared, address: IpAddr, what: &str, target: &str) {
        let destination = self.config.host(address);
        let matches = self.port_match(what, self.plan.port);
        self.shared(into, format!("-d {destination} {matches} -j {target}"));
    }

    fn node_port(&mut self, port: u16) {
        if let Some((why, target)) = self.refusal(self.plan.external_policy) {
            self.refuse_node_port(port, why, &target);
        }
        if !self.plan.any_endpoint {
            return;
        }
        let name = &self.name;
        let protocol = self.plan.id.protocol;
        let external = self.chains.external();
        let comment = format!("-m comment --comment \"{name}\"");
        let matches = format!("-p {protocol} {comment} -m {protocol} --dport {port}");
        if self.config.nfacct && self.config.localhost_node_ports {
            let count = format!(
                "-m nfacct --nfacct-name {}",
                nfacct_names::LOCALHOST_NODE_PORTS
            );
            let rule = format!("-d 127.0.0.0/8 {matches} {count} -j {external}");
            self.shared(Shared::NatNodePorts, rule);
        }
        self.shared(Shared::NatNodePorts, format!("{matches} -j {external}"));
    }

    fn refuse_node_port(&mut self, port: u16, why: &str, target: &str) {
        let name = &self.name;
        let protocol = self.plan.id.protocol;
        let start = format!("-p {protocol} -m comment --comment \"{name} {why}\"");
        let end = format!("-m {protocol} --dport {port} -j {target}");
        match self.config.node_port_hosts() {
            None => {
                let other = self.config.not_loopback();
                let rule = format!("{other}{start} -m addrtype --dst-type LOCAL {end}");
                self.shared(Shared::FilterExternal, rule);
            }
            Some(addresses) => {
                for address in addresses {
                    let rule = format!("-d {} {start} {end}", self.config.host(address));
                    self.shared(Shared::FilterExternal, rule);
                }
            }
        }
    }

    /// Protocol, comment and destination port, in the order `iptables-save` prints them.
    fn port_match(&self, what: &str, port: u16) -> String {
        let (name, protocol) = (&self.name, self.plan.id.protocol);
        format!("-p {protocol} -m comment --comment \"{name} {what}\" -m {protocol} --dport {port}")
    }
}

/// One chance in `left`, as the kernel keeps it (31 bits) and `iptables-save` prints it.
fn probability(left: usize) -> String {
    const ONE: u64 = 0x8000_0000;
    const DIGITS: u64 = 100_000_000_000;
    let left = u64::try_from(left).unwrap_or(u64::MAX);
    let kept = (ONE + left / 2) / left;
    // Eleven digits behind the point, rounded half to even as printf does; kept / 2^31 has
    // at most 31 binary digits, so the product below is exact.
    let scaled = u128::from(kept) * u128::from(DIGITS);
    let (quotient, rest) = (scaled / u128::from(ONE), scaled % u128::from(ONE));
    let half = u128::from(ONE / 2);
    let up = rest > half || (rest == half && quotient % 2 == 1);
    format!("0.{:011}", quotient + u128::from(up))
}
