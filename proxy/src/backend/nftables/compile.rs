//! From a plan to its chains and elements. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use switchyard_cluster::object::TrafficPolicy;

use super::config::Config;
use super::fixed::from_pods;
use super::form::{
    AffinitySet, Chain, Element, FEW, Fragment, Key, Rule, ServiceKey, Shared, Statement, Value,
};
use super::names::{self, ServiceNames};
use crate::plan::{Frontend, ServicePlan, Target};

/// Endpoints that a chain names itself, one rule each, of which half are looked at on average. A
/// map costs a packet as much as four, and each endpoint in it less to write; but `nft list`
/// shows rules as operators know them.
const RULES_MAX: usize = 4;

/// The chains and elements of one plan.
pub(super) fn compile(plan: &ServicePlan, config: &Config) -> Fragment {
    let mut compiler = Compiler {
        plan,
        config,
        names: ServiceNames::new(&plan.id),
        fragment: Fragment::default(),
    };
    compiler.endpoints();
    if let Some((vip, targets)) = plain(plan) {
        compiler.few(vip, targets);
        return compiler.fragment;
    }
    compiler.chains();
    for frontend in &plan.frontends {
        compiler.frontend(*frontend);
    }
    compiler.fragment
}

/// The ClusterIP and endpoints of a Service that has nothing else to it, and few of them.
fn plain(plan: &ServicePlan) -> Option<(IpAddr, &[Target])> {
    let [Frontend::ClusterIp(vip)] = plan.frontends[..] else {
        return None;
    };
    let targets = plan.targets(plan.internal_policy);
    let is_few = (1..=FEW).contains(&targets.len());
    let is_plain = plan.affinity_timeout_s.is_none() && plan.any_endpoint;
    (is_plain && is_few).then_some((vip, targets))
}

struct Compiler<'a> {
    plan: &'a ServicePlan,
    config: &'a Config,
    names: ServiceNames,
    fragment: Fragment,
}

impl Compiler<'_> {
    /// Elements alone: no rule changes with its endpoints, so that the kernel need not look
    /// through all rules of the table again.
    fn few(&mut self, vip: IpAddr, targets: &[Target]) {
        self.element(Shared::ClusterIps, Key::Address(vip), Value::None);
        let service = self.service_key(vip);
        let count = u8::try_from(targets.len()).unwrap_or(u8::MAX);
        let goal = Value::Goto(Arc::from(names::FEW_ENDPOINTS));
        self.element(Shared::ServiceIps, Key::Vip(service), goal);
        for (number, target) in (0_u32..).zip(targets) {
            let key = Key::of_few(service, count, number);
            self.element(Shared::EndpointsOf(count), key, Value::To(target.socket()));
        }
    }

    /// What each way in is sent to.
    fn frontend(&mut self, frontend: Frontend) {
        let protocol = self.plan.id.protocol;
        let (key, maps) = match frontend {
            Frontend::ClusterIp(address)
            | Frontend::ExternalIp(address)
            | Frontend::LoadBalancerIp(address) => (
                Key::Vip(self.service_key(address)),
                (Shared::ServiceIps, Shared::NoEndpointServices),
            ),
            Frontend::NodePort(port) => (
                Key::NodePort(protocol, port),
                (Shared::ServiceNodePorts, Shared::NoEndpointNodePorts),
            ),
        };
        if let Frontend::ClusterIp(address) = frontend {
            self.element(Shared::ClusterIps, Key::Address(address), Value::None);
        }
        if !self.plan.any_endpoint {
            self.element(maps.1, key, Value::Goto(Arc::from(names::REJECT)));
            return;
        }
        let policy = match frontend {
            Frontend::ClusterIp(_) => self.plan.internal_policy,
            _ => self.plan.external_policy,
        };
        let chain = match frontend {
            Frontend::ClusterIp(_) if policy == TrafficPolicy::Local => self.names.local(),
            Frontend::ClusterIp(_) => self.names.cluster(),
            _ => self.names.external(),
        };
        if self.has_chain(&chain) {
            self.element(maps.0, key, Value::Goto(chain));
        }
        // What the chain leaves alone, or all where there is none, is to be lost.
        if self.plan.targets(policy).is_empty() {
            self.element(maps.1, key, Value::Drop);
        }
        if matches!(frontend, Frontend::LoadBalancerIp(_)) && self.plan.source_ranges.is_some() {
            let chain = self.names.firewall();
            self.element(Shared::FirewallIps, key, Value::Goto(chain));
        }
    }

    fn chains(&mut self) {
        let plan = self.plan;
        if !plan.any_endpoint {
            return;
        }
        if !plan.cluster.is_empty() {
            let rules = self.balance(&plan.cluster, Shared::ServiceEndpoints);
            self.chain(self.names.cluster(), rules);
        }
        if !plan.local.is_empty() {
            let rules = self.balance(&plan.local, Shared::LocalEndpoints);
            self.chain(self.names.local(), rules);
        }
        if plan.is_external() {
            let rules = self.external();
            if !rules.is_empty() {
                self.chain(self.names.external(), rules);
            }
        }
        if plan.load_balancer_ips().next().is_some() && plan.source_ranges.is_some() {
            let rules = self.firewall();
            self.chain(self.names.firewall(), rules);
        }
    }

    /// Chains and sets of single endpoints, where clients stay with theirs; and what must be
    /// masqueraded to come back.
    fn endpoints(&mut self) {
        let plan = self.plan;
        let protocol = plan.id.protocol;
        let mut targets: Vec<Target> = plan.cluster.iter().chain(&plan.local).copied().collect();
        targets.sort_unstable();
        targets.dedup();
        for target in targets {
            if target.is_local {
                let key = Key::Hairpin(target.address, protocol, target.port);
                self.element(Shared::HairpinConnections, key, Value::None);
            }
            let Some(timeout_s) = plan.affinity_timeout_s else {
                continue;
            };
            let (chain, set) = self.names.endpoint(target.socket());
            let rules = vec![
                Rule::new([Statement::Remember(Arc::clone(&set), timeout_s)]),
                self.translate(target),
            ];
            self.chain(chain, rules);
            self.fragment.affinity_sets.push(AffinitySet {
                name: set,
                timeout_s,
            });
        }
    }

    fn translate(&self, target: Target) -> Rule {
        Rule::new([
            Statement::Protocol(self.plan.id.protocol),
            Statement::Translate(target.socket()),
        ])
    }

    /// To one of the endpoints.
    fn balance(&mut self, targets: &[Target], map: Shared) -> Vec<Rule> {
        if self.plan.affinity_timeout_s.is_some() {
            return self.stick(targets);
        }
        let service = self.plan.cluster_ip().map(|vip| self.service_key(vip));
        match service {
            Some(service) if targets.len() > RULES_MAX => {
                for (number, target) in (0_u32..).zip(targets) {
                    let key = Key::Endpoint(service, number);
                    self.element(map, key, Value::To(target.socket()));
                }
                let rule = Rule::new([
                    Statement::Protocol(self.plan.id.protocol),
                    Statement::TranslateByMap {
                        map,
                        service,
                        count: u32::try_from(targets.len()).unwrap_or(u32::MAX),
                    },
                ]);
                // nft shows constants in a key as mere numbers.
                vec![rule.with_comment(format!("@{} {service}", map.name()))]
            }
            // Few, or an older Service has its ClusterIP, so nothing stands for it in a map.
            _ => by_chance(targets, |target| self.translate(*target).statements),
        }
    }

    /// To the endpoint that remembers the client, else to any.
    fn stick(&self, targets: &[Target]) -> Vec<Rule> {
        let remembered = targets.iter().map(|target| {
            let (chain, set) = self.names.endpoint(target.socket());
            Rule::new([Statement::RememberedIn(set), Statement::Goto(chain)])
        });
        let any = by_chance(targets, |target| {
            let (chain, _) = self.names.endpoint(target.socket());
            vec![Statement::Goto(chain)]
        });
        remembered.chain(any).collect()
    }

    /// What comes by another address than the ClusterIP.
    fn external(&self) -> Vec<Rule> {
        let plan = self.plan;
        let mark = Statement::Mark(self.config.masquerade_mark);
        let to_cluster = Statement::Goto(self.names.cluster());
        let mut rules = Vec::new();
        match plan.external_policy {
            TrafficPolicy::Cluster if plan.cluster.is_empty() => {}
            TrafficPolicy::Cluster => {
                rules.push(Rule::new([mark]).with_comment("masquerade"));
                rules.push(Rule::new([to_cluster]));
            }
            TrafficPolicy::Local => {
                if !plan.cluster.is_empty() {
                    if let Some(from_pods) = from_pods(self.config, true) {
                        let rule = Rule::new([from_pods, to_cluster.clone()]);
                        rules.push(rule.with_comment("short-circuit pod traffic"));
                    }
                    let rule = Rule::new([Statement::FromNode, mark]);
                    rules.push(rule.with_comment("masquerade local traffic"));
                    let rule = Rule::new([Statement::FromNode, to_cluster]);
                    rules.push(rule.with_comment("short-circuit local traffic"));
                }
                if !plan.local.is_empty() {
                    rules.push(Rule::new([Statement::Goto(self.names.local())]));
                }
            }
        }
        rules
    }

    /// Lets through what the source ranges allow. A node that connects to a LoadBalancer IP it
    /// holds itself does so from that IP.
    fn firewall(&self) -> Vec<Rule> {
        let plan = self.plan;
        let own = plan
            .load_balancer_ips()
            .filter(|_| plan.source_ranges_include_node)
            .map(Into::into);
        let allowed = plan.source_ranges.iter().flatten().copied().chain(own);
        allowed
            .map(|range| Rule::new([Statement::Source(true, range), Statement::Return]))
            .chain([Rule::new([Statement::Drop])])
            .collect()
    }

    fn service_key(&self, address: IpAddr) -> ServiceKey {
        ServiceKey {
            address,
            protocol: self.plan.id.protocol,
            port: self.plan.port,
        }
    }

    fn has_chain(&self, name: &str) -> bool {
        let mut chains = self.fragment.chains.iter();
        chains.any(|chain| &*chain.name == name)
    }

    fn chain(&mut self, name: Arc<str>, rules: Vec<Rule>) {
        self.fragment.chains.push(Chain { name, rules });
    }

    fn element(&mut self, set: Shared, key: Key, value: Value) {
        let comment = match set {
            Shared::NoEndpointServices | Shared::NoEndpointNodePorts => {
                Some(Arc::from(self.plan.id.to_string()))
            }
            _ => None,
        };
        self.fragment.elements.push(Element {
            set,
            key,
            value,
            comment,
        });
    }
}

/// One rule for each target, all of which are as likely to be the first that holds.
fn by_chance(targets: &[Target], then: impl Fn(&Target) -> Vec<Statement>) -> Vec<Rule> {
    let left = (1..=u32::try_from(targets.len()).unwrap_or(u32::MAX)).rev();
    left.zip(targets)
        .map(|(left, target)| {
            let chance = (left > 1).then_some(Statement::OneIn(left));
            Rule::new(chance.into_iter().chain(then(target)).collect::<Vec<_>>())
        })
        .collect()
}
