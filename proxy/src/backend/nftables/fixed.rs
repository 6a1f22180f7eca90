//! The chains that are there whatever the Services.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use switchyard_cluster::object::IpFamily;

use super::config::Config;
use super::form::{Chain, Element, Key, Rule, Shared, Statement, Value};
use super::names;
use crate::plan::LocalDetector;

/// Where the kernel enters the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) hook: Hook,
    /// Lower comes first; translation of destinations is at -100.
    pub(super) priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Just before destinations are translated.
const BEFORE_TRANSLATION: i32 = -110;
const TRANSLATION: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_TRANSLATION: i32 = 100;

/// The chains that hooks enter by.
pub(super) const BASES: [Base; 8] = {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    use Kind::{Filter, Nat};
    const fn base(name: &'static str, kind: Kind, hook: Hook, priority: i32) -> Base {
        Base {
            name,
            kind,
            hook,
            priority,
        }
    }
    [
        base(
            "filter-prerouting-pre-dnat",
            Filter,
            Prerouting,
            BEFORE_TRANSLATION,
        ),
        base("filter-output-pre-dnat", Filter, Output, BEFORE_TRANSLATION),
        base("filter-input", Filter, Input, FILTER),
        base("filter-forward", Filter, Forward, FILTER),
        base("filter-output", Filter, Output, FILTER),
        base("nat-prerouting", Nat, Prerouting, TRANSLATION),
        base("nat-output", Nat, Output, TRANSLATION),
        base("nat-postrouting", Nat, Postrouting, SOURCE_TRANSLATION),
    ]
};

impl Base {
    /// Its rules.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let jump = |chain: &str| Statement::Jump(Arc::from(chain));
        let of_new = |chain| Rule::new([Statement::NewConnection, jump(chain)]);
        match (self.kind, self.hook) {
            (Kind::Nat, Hook::Postrouting) => vec![Rule::new([jump(names::MASQUERADING)])],
            (Kind::Nat, _) => vec![Rule::new([jump(names::SERVICES)])],
            (Kind::Filter, _) if self.priority == BEFORE_TRANSLATION => {
                vec![of_new(names::FIREWALL_CHECK)]
            }
            (Kind::Filter, Hook::Input) => vec![
                of_new(names::NODE_PORT_ENDPOINTS_CHECK),
                of_new(names::SERVICE_ENDPOINTS_CHECK),
            ],
            (Kind::Filter, _) => vec![
                of_new(names::SERVICE_ENDPOINTS_CHECK),
                of_new(names::CLUSTER_IPS_CHECK),
            ],
        }
    }
}

/// The chains that base chains lead to, with their rules.
pub(super) fn chains(config: &Config) -> Vec<Chain> {
    let chain = |name: &str, rules: Vec<Rule>| Chain {
        name: Arc::from(name),
        rules,
    };
    vec![
        chain(names::REJECT, vec![Rule::new([Statement::Reject])]),
        chain(names::FEW_ENDPOINTS, few_endpoints()),
        chain(names::SERVICES, services(config)),
        chain(names::FIREWALL_CHECK, vec![verdict(Shared::FirewallIps)]),
        chain(
            names::SERVICE_ENDPOINTS_CHECK,
            vec![verdict(Shared::NoEndpointServices)],
        ),
        chain(
            names::NODE_PORT_ENDPOINTS_CHECK,
            vec![at_node_ports(config, false, Shared::NoEndpointNodePorts)],
        ),
        chain(names::CLUSTER_IPS_CHECK, cluster_ips_check(config)),
        chain(names::MASQUERADING, masquerading(config)),
    ]
}

/// What `nft list` shows with a chain.
pub(super) fn chain_comment(chain: &str) -> Option<&'static str> {
    (chain == names::REJECT).then_some("helper for @no-endpoint-services / @no-endpoint-nodeports")
}

/// Elements that are there whatever the Services.
pub(super) fn elements(config: &Config) -> Vec<Element> {
    let addresses = config.node_port_addresses.iter().flatten();
    addresses
        .filter(|address| !address.is_loopback())
        .map(|address| Element {
            set: Shared::NodePortIps,
            key: Key::Address(*address),
            value: Value::None,
            comment: None,
        })
        .collect()
}

/// The shared sets and maps there are.
pub(super) fn sets(config: &Config) -> impl Iterator<Item = Shared> {
    let restricted = config.node_port_addresses.is_some();
    Shared::ALL
        .into_iter()
        .filter(move |shared| restricted || *shared != Shared::NodePortIps)
}

/// One rule for each number of endpoints: a VIP is in one of their maps. The numbers that most
/// Services have come first.
fn few_endpoints() -> Vec<Rule> {
    let counts = Shared::ALL.into_iter().filter_map(|shared| match shared {
        Shared::EndpointsOf(count) => Some(count),
        _ => None,
    });
    counts
        .map(|count| Rule::new([Statement::TranslateByVip(count)]))
        .collect()
}

fn verdict(map: Shared) -> Rule {
    Rule::new([Statement::Verdict(map)])
}

fn services(config: &Config) -> Vec<Rule> {
    let mut rules = Vec::new();
    if config.masquerade_all || config.detector.is_implemented(config.family) {
        let mut statements = vec![Statement::DestinationIn(Shared::ClusterIps)];
        if !config.masquerade_all {
            statements.extend(from_pods(config, false));
        }
        statements.push(Statement::Mark(config.masquerade_mark));
        let comment = if config.masquerade_all {
            "masquerade all clusterIP traffic"
        } else {
            "masquerade clusterIP traffic from outside cluster"
        };
        rules.push(Rule::new(statements).with_comment(comment));
    }
    rules.push(verdict(Shared::ServiceIps));
    rules.push(at_node_ports(config, true, Shared::ServiceNodePorts));
    rules
}

/// Whether the sender is, or is not, a pod of this node; `None` where that can't be told.
pub(super) fn from_pods(config: &Config, is: bool) -> Option<Statement> {
    match &config.detector {
        LocalDetector::Cidrs { .. } => config
            .detector
            .cidr(config.family)
            .map(|network| Statement::Source(is, network)),
        LocalDetector::Bridge(name) => Some(Statement::Interface(is, name.clone())),
        LocalDetector::InterfacePrefix(prefix) => {
            Some(Statement::InterfacePrefix(is, prefix.clone()))
        }
    }
}

/// Looks a node port up in `map`, where node ports are accepted. After the translation, what is
/// left of it need not be told from what goes elsewhere by asking for the node's addresses.
fn at_node_ports(config: &Config, is_translation: bool, map: Shared) -> Rule {
    let mut statements = Vec::new();
    if config.node_port_addresses.is_some() {
        statements.push(Statement::DestinationIn(Shared::NodePortIps));
    } else {
        if is_translation {
            statements.push(Statement::ToNode);
        }
        statements.push(Statement::Destination(false, loopback(config.family)));
    }
    statements.push(Statement::Verdict(map));
    Rule::new(statements)
}

/// Nothing that goes there can be translated: the kernel would not route it.
const fn loopback(family: IpFamily) -> IpNet {
    match family {
        IpFamily::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpFamily::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    }
}

fn cluster_ips_check(config: &Config) -> Vec<Rule> {
    let unknown_port = Rule::new([
        Statement::DestinationIn(Shared::ClusterIps),
        Statement::Reject,
    ]);
    let mut rules =
        vec![unknown_port.with_comment("Reject traffic to invalid ports of ClusterIPs")];
    rules.extend(config.service_cidrs.iter().map(|network| {
        Rule::new([Statement::Destination(true, *network), Statement::Drop])
            .with_comment("Drop traffic to unallocated ClusterIPs")
    }));
    rules
}

fn masquerading(config: &Config) -> Vec<Rule> {
    let mark = config.masquerade_mark;
    vec![
        Rule::new([
            Statement::Marked(mark),
            Statement::Unmark(mark),
            Statement::Masquerade,
        ]),
        Rule::new([
            Statement::DestinationTranslated,
            Statement::IsHairpin,
            Statement::Masquerade,
        ]),
    ]
}
