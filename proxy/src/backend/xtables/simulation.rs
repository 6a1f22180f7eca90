//! Walks packets through rules without a kernel, for tests.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use switchyard_cluster::object::Protocol;
use switchyard_netlink::ipset::{Entry, IpPort};

use super::table::Table;
use crate::plan::{Packet, generated};

/// All rules of one family, chain by chain, and what they match.
#[derive(Default)]
pub(in crate::backend) struct Simulation {
    chains: HashMap<(Table, String), Vec<Vec<String>>>,
    pub(in crate::backend) sets: HashMap<String, HashSet<Entry>>,
    pub(in crate::backend) local: Vec<IpAddr>,
}

/// A packet on its way.
#[derive(Clone, Debug)]
pub(in crate::backend) struct Walker {
    pub(in crate::backend) source: IpAddr,
    pub(in crate::backend) in_interface: Option<String>,
    pub(in crate::backend) destination: SocketAddr,
    pub(in crate::backend) protocol: Protocol,
    pub(in crate::backend) marked: bool,
    pub(in crate::backend) translated: bool,
    pub(in crate::backend) masqueraded: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::backend) enum Fate {
    /// It goes there, masqueraded or not.
    To(SocketAddr, bool),
    Reject,
    Drop,
    Untouched,
}

impl Walker {
    /// A packet as it comes.
    pub(in crate::backend) fn of(packet: &Packet) -> Self {
        Self {
            source: packet.source,
            in_interface: packet.in_interface.clone(),
            destination: SocketAddr::new(packet.destination, packet.port),
            protocol: packet.protocol,
            marked: false,
            translated: false,
            masqueraded: false,
        }
    }

    /// What has become of it where nothing has stopped it.
    pub(in crate::backend) const fn fate(&self) -> Fate {
        if self.translated {
            Fate::To(self.destination, self.masqueraded)
        } else {
            Fate::Untouched
        }
    }
}

/// How a chain was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend) enum End {
    /// By its end.
    Through,
    /// By RETURN.
    Returned,
    Accepted,
    Dropped,
    Rejected,
}

impl Simulation {
    /// Adds a rule, without `-A CHAIN`, at the end of a chain.
    pub(in crate::backend) fn add(&mut self, table: Table, chain: &str, rule: &str) {
        self.chains
            .entry((table, chain.to_owned()))
            .or_default()
            .push(words(rule));
    }

    /// What becomes of a packet in a chain, over all random choices.
    pub(in crate::backend) fn walk(
        &self,
        table: Table,
        chain: &str,
        walker: Walker,
    ) -> Vec<(Walker, End)> {
        let mut done = Vec::new();
        let mut here = vec![walker];
        for rule in self
            .chains
            .get(&(table, chain.to_owned()))
            .into_iter()
            .flatten()
        {
            let mut next = Vec::new();
            for walker in here {
                let (may, may_not) = self.matches(rule, &walker);
                if may_not {
                    next.push(walker.clone());
                }
                if may {
                    for (walker, end) in self.act(table, rule, walker) {
                        match end {
                            End::Through => next.push(walker),
                            End::Returned => done.push((walker, End::Through)),
                            end => done.push((walker, end)),
                        }
                    }
                }
            }
            here = next;
        }
        done.extend(here.into_iter().map(|walker| (walker, End::Through)));
        done
    }

    /// Whether the rule may match, and whether it may not: both, where chance decides.
    fn matches(&self, rule: &[String], walker: &Walker) -> (bool, bool) {
        let mut by_chance = false;
        let mut negated = false;
        let mut at = 0;
        let word = |at: usize| rule.get(at).map_or("", String::as_str);
        while at < rule.len() && word(at) != "-j" {
            let value = word(at + 1);
            let (holds, used) = match word(at) {
                "!" => {
                    negated = true;
                    at += 1;
                    continue;
                }
                "-s" => (net(value).contains(&walker.source), 2),
                "-d" => (net(value).contains(&walker.destination.ip()), 2),
                "-i" => (interface(value, walker.in_interface.as_deref()), 2),
                "-p" => (value == walker.protocol.as_str(), 2),
                "--dport" => (value == walker.destination.port().to_string(), 2),
                "--dst-type" => (self.local.contains(&walker.destination.ip()), 2),
                "--src-type" => (self.local.contains(&walker.source), 2),
                "--mark" => (walker.marked, 2),
                "--ctstate" => (
                    value.split(',').any(|state| match state {
                        "NEW" => true,
                        "DNAT" => walker.translated,
                        "RELATED" | "ESTABLISHED" | "INVALID" => false,
                        other => panic!("state {other}"),
                    }),
                    2,
                ),
                "--match-set" => (self.in_set(value, word(at + 2), walker), 3),
                "--probability" | "--rcheck" => {
                    by_chance = true;
                    (true, if word(at) == "--rcheck" { 1 } else { 2 })
                }
                "-m" | "--comment" | "--mode" | "--seconds" | "--name" | "--mask" => (true, 2),
                "--reap" | "--set" | "--rsource" => (true, 1),
                other => panic!("{other} in {rule:?}"),
            };
            if holds == negated {
                return (false, true);
            }
            negated = false;
            at += used;
        }
        (true, by_chance)
    }

    fn act(&self, table: Table, rule: &[String], mut walker: Walker) -> Vec<(Walker, End)> {
        let Some(jump) = rule.iter().position(|word| word == "-j") else {
            return vec![(walker, End::Through)]; // a comment
        };
        let argument = |name: &str| {
            let at = rule.iter().position(|word| word == name);
            at.and_then(|at| rule.get(at + 1))
                .map_or("", String::as_str)
        };
        match rule[jump + 1].as_str() {
            "MARK" => {
                let (value, mask) = argument("--set-xmark").split_once('/').unwrap();
                assert_eq!(value, "0x4000");
                walker.marked = mask == "0x4000" || !walker.marked;
                vec![(walker, End::Through)]
            }
            "DNAT" => {
                walker.destination = argument("--to-destination").parse().unwrap();
                walker.translated = true;
                vec![(walker, End::Accepted)]
            }
            "MASQUERADE" => {
                walker.masqueraded = true;
                vec![(walker, End::Accepted)]
            }
            "RETURN" => vec![(walker, End::Returned)],
            "ACCEPT" => vec![(walker, End::Accepted)],
            "DROP" => vec![(walker, End::Dropped)],
            "REJECT" => vec![(walker, End::Rejected)],
            chain => self.walk(table, chain, walker),
        }
    }

    /// Whether a packet's addresses and ports, as `with` chooses them, are in a set.
    fn in_set(&self, name: &str, with: &str, walker: &Walker) -> bool {
        let set = self.sets.get(name).unwrap_or_else(|| panic!("set {name}"));
        let directions: Vec<&str> = with.split(',').collect();
        let address = |at: usize| match directions[at] {
            "src" => walker.source,
            _ => walker.destination.ip(),
        };
        let port = walker.destination.port();
        let protocol = match walker.protocol {
            Protocol::Tcp => switchyard_netlink::Protocol::Tcp,
            Protocol::Udp => switchyard_netlink::Protocol::Udp,
            Protocol::Sctp => switchyard_netlink::Protocol::Sctp,
        };
        let ip_port =
            |own: &IpPort| (own.address, own.port, own.protocol) == (address(0), port, protocol);
        set.iter().any(|entry| match entry {
            Entry::Ip(own) => *own == address(0),
            Entry::IpPort(own) => ip_port(own),
            Entry::IpPortIp(own, second) => ip_port(own) && *second == address(2),
            Entry::IpPortNet(own, net) => ip_port(own) && net.contains(&address(2)),
            Entry::Port(own) => *own == port,
        })
    }
}

/// A rule as words; a quoted comment is one.
fn words(rule: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in rule.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn interface(pattern: &str, name: Option<&str>) -> bool {
    let Some(name) = name else { return false };
    match pattern.strip_suffix('+') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// From where packets come: address and interface.
const SENDERS: [(&str, Option<&str>); 10] = [
    ("10.244.1.1", Some("veth1")),
    ("10.244.1.9", Some("cbr0")),
    ("192.168.0.2", None),
    ("203.0.113.2", Some("eth0")),
    ("203.0.113.130", Some("eth0")),
    ("127.0.0.1", None),
    ("fd00:244:1::1", Some("veth1")),
    ("fd00:244:1::9", Some("cbr0")),
    ("2001:db8::2", None),
    ("2001:db8:1::2", Some("eth0")),
];

/// Where they go: VIPs, the node, and an address that is nobody's.
const DESTINATIONS: [&str; 14] = [
    "10.96.0.1",
    "10.96.0.2",
    "10.96.0.9",
    "203.0.113.200",
    "203.0.113.201",
    "203.0.113.210",
    "192.168.0.2",
    "127.0.0.1",
    "fd00:96::2",
    "fd00:96::3",
    "2001:db8:9::1",
    "2001:db8:9::2",
    "2001:db8::2",
    "fd00:96::9",
];

/// All packets that simulations of rules send.
pub(in crate::backend) fn packets() -> Vec<Packet> {
    generated::packets(&SENDERS, &DESTINATIONS)
}
