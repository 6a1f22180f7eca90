//! The same in the kernel's terms: chains, rules, sets, keys and values as bytes. Pure.

use std::sync::Arc;
use std::time::Duration;

use switchyard_cluster::object::Protocol;
use switchyard_netlink::Family;
use switchyard_netlink::nftables::{
    self as nft, BaseChain, ChainKind, Data, Field, FieldType, MapsTo, Policy, Set, Timeout,
    Verdict,
};

use super::expressions::lower;
use super::fixed::{Base, Hook, Kind, chain_comment};
use super::form::{AffinitySet, Chain, Element, Key, Rule, ServiceKey, Shared, Value};
use super::names;

/// Most clients that the set of an endpoint remembers, as with the reference.
const CLIENTS_MAX: u32 = 65_535;

/// A rule in a chain.
pub(super) fn rule(chain: &Arc<str>, rule: &Rule, family: Family) -> nft::Rule {
    let mut expressions = Vec::with_capacity(rule.statements.len() * 2);
    for statement in &rule.statements {
        lower(statement, family, &mut expressions);
    }
    nft::Rule {
        chain: Arc::clone(chain),
        expressions,
        comment: rule.comment.clone(),
    }
}

/// A chain that rules lead to, without them.
pub(super) fn chain(chain: &Chain) -> nft::Chain {
    nft::Chain {
        name: Arc::clone(&chain.name),
        base: None,
        comment: chain_comment(&chain.name).map(Arc::from),
    }
}

/// A chain that a hook enters by, without its rules.
pub(super) fn base(base: &Base) -> nft::Chain {
    let kind = match base.kind {
        Kind::Filter => ChainKind::Filter,
        Kind::Nat => ChainKind::Nat,
    };
    let hook = match base.hook {
        Hook::Prerouting => nft::Hook::Prerouting,
        Hook::Input => nft::Hook::Input,
        Hook::Forward => nft::Hook::Forward,
        Hook::Output => nft::Hook::Output,
        Hook::Postrouting => nft::Hook::Postrouting,
    };
    nft::Chain {
        name: Arc::from(base.name),
        base: Some(BaseChain {
            kind,
            hook,
            priority: base.priority,
            policy: Policy::Accept,
        }),
        comment: None,
    }
}

/// A shared set or map, empty.
pub(super) fn shared_set(shared: Shared, family: Family) -> Set {
    let address = match family {
        Family::V4 => FieldType::Ipv4Address,
        Family::V6 => FieldType::Ipv6Address,
    };
    let vip = [address, FieldType::Protocol, FieldType::Port];
    let endpoint = || MapsTo::Data(vec![address, FieldType::Port]);
    let numbered = [
        address,
        FieldType::Protocol,
        FieldType::Port,
        FieldType::Mark,
    ];
    let mut set = match shared {
        Shared::ClusterIps | Shared::NodePortIps => Set::new(shared.name(), &[address]),
        Shared::HairpinConnections => {
            let fields = [address, address, FieldType::Protocol, FieldType::Port];
            Set::new(shared.name(), &fields)
        }
        Shared::NoEndpointServices | Shared::FirewallIps | Shared::ServiceIps => {
            Set::map(shared.name(), &vip, MapsTo::Verdict)
        }
        Shared::NoEndpointNodePorts | Shared::ServiceNodePorts => {
            let fields = [FieldType::Protocol, FieldType::Port];
            Set::map(shared.name(), &fields, MapsTo::Verdict)
        }
        Shared::EndpointsOf(1) => Set::map(shared.name(), &vip, endpoint()),
        Shared::ServiceEndpoints | Shared::LocalEndpoints | Shared::EndpointsOf(_) => {
            Set::map(shared.name(), &numbered, endpoint())
        }
    };
    set.comment = Some(Arc::from(shared.comment()));
    set
}

/// The set that remembers the clients of an endpoint.
pub(super) fn affinity_set(set: &AffinitySet, family: Family) -> Set {
    let address = match family {
        Family::V4 => FieldType::Ipv4Address,
        Family::V6 => FieldType::Ipv6Address,
    };
    Set {
        dynamic: true,
        timeout: Timeout::After(Duration::from_secs(u64::from(set.timeout_s))),
        elements_max: Some(CLIENTS_MAX),
        ..Set::new(Arc::clone(&set.name), &[address])
    }
}

/// An element of a shared set or map.
pub(super) fn element(element: &Element) -> nft::Element {
    let value = match &element.value {
        Value::None => None,
        Value::Drop => Some(nft::Value::Verdict(Verdict::Drop)),
        Value::Goto(chain) => Some(nft::Value::Verdict(Verdict::Goto(Arc::clone(chain)))),
        Value::To(to) => Some(nft::Value::Data(Data::concatenated(&[
            Field::Address(to.ip()),
            Field::Port(to.port()),
        ]))),
    };
    nft::Element {
        comment: element.comment.clone(),
        ..nft::Element::of(nft::Key::One(key(&element.key)), value)
    }
}

/// The key of an element.
pub(super) fn key(key: &Key) -> Data {
    match *key {
        Key::Address(address) => Data::of(Field::Address(address)),
        Key::Hairpin(address, protocol, port) => Data::concatenated(&[
            Field::Address(address),
            Field::Address(address),
            Field::Protocol(netlink_protocol(protocol)),
            Field::Port(port),
        ]),
        Key::Vip(vip) => Data::concatenated(&service_fields(&vip)),
        Key::NodePort(protocol, port) => Data::concatenated(&[
            Field::Protocol(netlink_protocol(protocol)),
            Field::Port(port),
        ]),
        Key::Endpoint(service, number) => {
            let [address, protocol, port] = service_fields(&service);
            Data::concatenated(&[address, protocol, port, Field::Number(number)])
        }
    }
}

pub(super) const fn service_fields(service: &ServiceKey) -> [Field<'static>; 3] {
    [
        Field::Address(service.address),
        Field::Protocol(netlink_protocol(service.protocol)),
        Field::Port(service.port),
    ]
}

pub(super) const fn netlink_protocol(protocol: Protocol) -> switchyard_netlink::Protocol {
    match protocol {
        Protocol::Tcp => switchyard_netlink::Protocol::Tcp,
        Protocol::Udp => switchyard_netlink::Protocol::Udp,
        Protocol::Sctp => switchyard_netlink::Protocol::Sctp,
    }
}

/// Which table.
pub(super) fn table_id(family: Family) -> nft::TableId {
    nft::TableId::new(family, names::TABLE)
}
