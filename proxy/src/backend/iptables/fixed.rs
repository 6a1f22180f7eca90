//! What is there however many Services there are: fixed chains, their content and the jumps
//! into them. Pure.

use switchyard_cluster::object::IpFamily;

use super::config::Config;
use super::{Shared, names, nfacct_names};
use crate::backend::xtables::{Chain, FixedChain, Jump, Table};

/// Chains that are filled elsewhere, only created here.
pub(super) const CREATED_CHAINS: [(Table, &str); 10] = [
    (Table::Mangle, names::CANARY),
    (Table::Filter, names::CANARY),
    (Table::Nat, names::CANARY),
    (Table::Filter, names::FIREWALL),
    (Table::Filter, names::SERVICES),
    (Table::Filter, names::EXTERNAL_SERVICES),
    (Table::Filter, names::NODE_PORTS),
    (Table::Filter, names::PROXY_FIREWALL),
    (Table::Nat, names::SERVICES),
    (Table::Nat, names::NODE_PORTS),
];

/// Chains whose whole content is given here.
pub(super) fn chains(config: &Config) -> Vec<FixedChain> {
    let mark = config.mark();
    let unmark = format!("{:#x}/0x0", config.masquerade_mark);
    let mut forward = Vec::new();
    if config.drop_invalid {
        let count = if config.nfacct {
            format!("-m nfacct --nfacct-name {} ", nfacct_names::INVALID_DROPPED)
        } else {
            String::new()
        };
        forward.push(format!("-m conntrack --ctstate INVALID {count}-j DROP"));
    }
    forward.push(format!(
        "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark} -j ACCEPT"
    ));
    forward.push(
        "-m comment --comment \"kubernetes forwarding conntrack rule\" \
         -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            .to_owned(),
    );
    let masquerade = vec![
        format!("-m mark ! --mark {mark} -j RETURN"),
        // Unmarked again, so that the packet is not masqueraded twice on its way.
        format!("-j MARK --set-xmark {unmark}"),
        "-m comment --comment \"kubernetes service traffic requiring SNAT\" \
         -j MASQUERADE --random-fully"
            .to_owned(),
    ];
    let of = |table, name: &str, rules| FixedChain {
        table,
        chain: Chain {
            name: name.to_owned(),
            rules,
        },
    };
    vec![
        of(Table::Filter, names::FORWARD, forward),
        of(
            Table::Nat,
            names::MARK_MASQ,
            vec![format!("-j MARK --set-xmark {mark}")],
        ),
        of(Table::Nat, names::POSTROUTING, masquerade),
    ]
}

/// Rules that must be in a chain we share with others (kubelet writes KUBE-FIREWALL too).
/// With `route_localnet`, neighbours could reach 127.0.0.1 of the node (CVE-2020-8558).
pub(super) fn firewall_rules(config: &Config) -> Vec<String> {
    if config.family == IpFamily::V6 || !config.localhost_node_ports {
        return Vec::new();
    }
    let rule = "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \
                \"block incoming localnet connections\" \
                -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
    vec![rule.to_owned()]
}

/// Jumps into our chains, in the order in which they stand at the head of each chain.
pub(super) fn jumps() -> Vec<Jump> {
    let new = "-m conntrack --ctstate NEW ";
    let mut jumps = Vec::new();
    let mut add = |table, from: &[&'static str], state: &str, comment: &str, to: &str| {
        for from in from {
            let comment = match comment {
                "" => String::new(),
                text => format!("-m comment --comment \"{text}\" "),
            };
            jumps.push(Jump {
                table,
                from,
                rule: format!("{state}{comment}-j {to}"),
            });
        }
    };
    let (input, forward, output) = ("INPUT", "FORWARD", "OUTPUT");
    let filter = Table::Filter;
    add(filter, &[input, output], "", "", names::FIREWALL);
    let text = "kubernetes load balancer firewall";
    add(
        filter,
        &[input, forward, output],
        new,
        text,
        names::PROXY_FIREWALL,
    );
    add(
        filter,
        &[forward],
        "",
        "kubernetes forwarding rules",
        names::FORWARD,
    );
    let text = "kubernetes health check service ports";
    add(filter, &[input], "", text, names::NODE_PORTS);
    add(
        filter,
        &[forward, output],
        new,
        "kubernetes service portals",
        names::SERVICES,
    );
    // The reference leaves OUTPUT out, so the node itself waits for an external or
    // LoadBalancer IP without endpoints where everybody else is refused.
    let text = "kubernetes externally-visible service portals";
    add(
        filter,
        &[input, forward, output],
        new,
        text,
        names::EXTERNAL_SERVICES,
    );
    let text = "kubernetes service portals";
    add(
        Table::Nat,
        &["PREROUTING", output],
        "",
        text,
        names::SERVICES,
    );
    add(
        Table::Nat,
        &["POSTROUTING"],
        "",
        "kubernetes postrouting rules",
        names::POSTROUTING,
    );
    jumps
}

/// Rules that stand behind all others of a shared chain.
pub(super) fn tail(shared: Shared, config: &Config) -> Vec<String> {
    match shared {
        Shared::NatServices => node_port_jumps(config),
        Shared::FilterServices => config
            .cluster_ip_set
            .iter()
            .map(|set| {
                format!(
                    "-m comment --comment \"kubernetes cluster IP without this port\" \
                     -m set --match-set {set} dst -j {}",
                    config.reject()
                )
            })
            .collect(),
        Shared::NatNodePorts
        | Shared::FilterExternal
        | Shared::FilterNodePorts
        | Shared::Firewall => Vec::new(),
    }
}

fn node_port_jumps(config: &Config) -> Vec<String> {
    let comment = "-m comment --comment \"kubernetes service nodeports; \
                   NOTE: this must be the last rule in this chain\"";
    let to = names::NODE_PORTS;
    match config.node_port_hosts() {
        None => {
            let other = config.not_loopback();
            vec![format!(
                "{other}{comment} -m addrtype --dst-type LOCAL -j {to}"
            )]
        }
        Some(addresses) => addresses
            .map(|address| format!("-d {} {comment} -j {to}", config.host(address)))
            .collect(),
    }
}
