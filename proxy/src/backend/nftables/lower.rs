//! The same in the kernel's terms: expressions over registers, keys and values as bytes. Pure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use switchyard_cluster::object::Protocol;
use switchyard_netlink::Family;
use switchyard_netlink::nftables::{
    self as nft, BaseChain, ChainKind, Comparison, ConnectionKey, Data, Expression, FibFlags,
    FibResult, Field, FieldType, Find, MapsTo, MetaKey, NatFlags, NatKind, NumberKind, Policy,
    Register, Rejection, Set, Timeout, UpdateOperation, Verdict, address_type, connection_state,
};

use super::fixed::{Base, Hook, Kind, chain_comment};
use super::form::{AffinitySet, Chain, Element, Key, Rule, ServiceKey, Shared, Statement, Value};
use super::names;

/// Status bit of connections whose destination was translated (`IPS_DST_NAT`).
const DESTINATION_TRANSLATED: u32 = 0x20;
/// Bytes of an interface's name (`IFNAMSIZ`).
const INTERFACE_NAME_BYTES: usize = 16;
/// Most clients that the set of an endpoint remembers, as with the reference.
const CLIENTS_MAX: u32 = 65_535;

const FIRST: Register = Register::FIRST;

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

const fn service_fields(service: &ServiceKey) -> [Field<'static>; 3] {
    [
        Field::Address(service.address),
        Field::Protocol(netlink_protocol(service.protocol)),
        Field::Port(service.port),
    ]
}

const fn netlink_protocol(protocol: Protocol) -> switchyard_netlink::Protocol {
    match protocol {
        Protocol::Tcp => switchyard_netlink::Protocol::Tcp,
        Protocol::Udp => switchyard_netlink::Protocol::Udp,
        Protocol::Sctp => switchyard_netlink::Protocol::Sctp,
    }
}

/// Words that an address takes.
const fn address_words(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

fn lower(statement: &Statement, family: Family, into: &mut Vec<Expression>) {
    match statement {
        Statement::NewConnection => {
            bits_of_connection(ConnectionKey::State, connection_state::NEW, into);
        }
        Statement::DestinationTranslated => {
            bits_of_connection(ConnectionKey::Status, DESTINATION_TRANSLATED, into);
        }
        Statement::ToNode => is_local(false, into),
        Statement::FromNode => is_local(true, into),
        Statement::Source(is, network) => {
            into.push(Expression::source_address(family, FIRST));
            within(*is, *network, into);
        }
        Statement::Destination(is, network) => {
            into.push(Expression::destination_address(family, FIRST));
            within(*is, *network, into);
        }
        Statement::Interface(is, name) => {
            let mut bytes = name.clone().into_bytes();
            bytes.resize(INTERFACE_NAME_BYTES, 0);
            came_in_by(*is, &bytes, into);
        }
        Statement::InterfacePrefix(is, prefix) => came_in_by(*is, prefix.as_bytes(), into),
        Statement::DestinationIn(set) => {
            into.push(Expression::destination_address(family, FIRST));
            into.push(lookup(&Arc::from(set.name()), Find::Present));
        }
        Statement::IsHairpin => {
            let words = address_words(family);
            into.push(Expression::source_address(family, FIRST));
            destination(family, words, into);
            let set = Arc::from(Shared::HairpinConnections.name());
            into.push(lookup(&set, Find::Present));
        }
        Statement::RememberedIn(set) => {
            into.push(Expression::source_address(family, FIRST));
            into.push(lookup(set, Find::Present));
        }
        Statement::Marked(mark) => {
            into.push(load_mark());
            into.push(Expression::and(FIRST, Field::Number(*mark)));
            into.push(Expression::not_equal(FIRST, Field::Number(0)));
        }
        Statement::Protocol(protocol) => {
            into.push(Expression::transport_protocol(FIRST));
            let protocol = Field::Protocol(netlink_protocol(*protocol));
            into.push(Expression::equal(FIRST, protocol));
        }
        Statement::OneIn(count) => {
            into.push(random(*count, FIRST));
            into.push(Expression::equal(FIRST, Field::Number(0)));
        }
        Statement::Mark(mark) => {
            change_mark(Expression::or(FIRST, Field::Number(*mark)), into);
        }
        Statement::Unmark(mark) => {
            change_mark(Expression::xor(FIRST, Field::Number(*mark)), into);
        }
        Statement::Remember(set, timeout_s) => {
            into.push(Expression::source_address(family, FIRST));
            into.push(Expression::Update {
                set: Arc::clone(set),
                operation: UpdateOperation::Update,
                key: FIRST,
                value: None,
                timeout: Some(Duration::from_secs(u64::from(*timeout_s))),
            });
        }
        Statement::Verdict(map) => {
            if map.is_by_port() {
                protocol_and_port(0, into);
            } else {
                destination(family, 0, into);
            }
            into.push(lookup(&Arc::from(map.name()), Find::Verdict));
        }
        Statement::Masquerade => into.push(Expression::Masquerade {
            flags: NatFlags {
                fully_random: true,
                ..NatFlags::default()
            },
        }),
        Statement::Translate(to) => translate(*to, family, into),
        Statement::TranslateByMap {
            map,
            service,
            count,
        } => translate_by_map(*map, service, *count, family, into),
        Statement::TranslateByVip(count) => translate_by_vip(*count, family, into),
        Statement::Jump(chain) => into.push(Expression::jump(Arc::clone(chain))),
        Statement::Goto(chain) => into.push(Expression::goto(Arc::clone(chain))),
        Statement::Return => into.push(Expression::Verdict(Verdict::Return)),
        Statement::Drop => into.push(Expression::Verdict(Verdict::Drop)),
        Statement::Reject => into.push(Expression::Reject(Rejection::Icmp(match family {
            Family::V4 => 3,
            Family::V6 => 4,
        }))),
    }
}

fn bits_of_connection(key: ConnectionKey, bits: u32, into: &mut Vec<Expression>) {
    into.push(Expression::Connection {
        key,
        direction: None,
        to: FIRST,
    });
    into.push(Expression::and(FIRST, Field::Number(bits)));
    into.push(Expression::not_equal(FIRST, Field::Number(0)));
}

fn is_local(source: bool, into: &mut Vec<Expression>) {
    into.push(Expression::Fib {
        result: FibResult::AddressType,
        flags: FibFlags {
            source,
            destination: !source,
            ..FibFlags::default()
        },
        to: FIRST,
    });
    into.push(Expression::equal(FIRST, Field::Number(address_type::LOCAL)));
}

/// Compares the address in the first register with a network.
fn within(is: bool, network: IpNet, into: &mut Vec<Expression>) {
    if network.prefix_len() < network.max_prefix_len() {
        into.push(Expression::and(FIRST, Field::Address(network.netmask())));
    }
    into.push(compare(is, Data::of(Field::Address(network.network()))));
}

fn came_in_by(is: bool, name: &[u8], into: &mut Vec<Expression>) {
    into.push(Expression::Meta {
        key: MetaKey::IncomingInterfaceName,
        to: FIRST,
    });
    into.push(compare(is, Data::new(name)));
}

const fn compare(is: bool, with: Data) -> Expression {
    Expression::Compare {
        from: FIRST,
        comparison: if is {
            Comparison::Equal
        } else {
            Comparison::NotEqual
        },
        with,
    }
}

fn lookup(set: &Arc<str>, find: Find) -> Expression {
    Expression::Lookup {
        set: Arc::clone(set),
        key: FIRST,
        find,
    }
}

const fn load_mark() -> Expression {
    Expression::Meta {
        key: MetaKey::Mark,
        to: FIRST,
    }
}

fn change_mark(how: Expression, into: &mut Vec<Expression>) {
    into.extend([
        load_mark(),
        how,
        Expression::SetMeta {
            key: MetaKey::Mark,
            from: FIRST,
        },
    ]);
}

/// Destination address, protocol and port, from the word of this number on.
fn destination(family: Family, word: u8, into: &mut Vec<Expression>) {
    into.push(Expression::destination_address(
        family,
        Register::word(word),
    ));
    protocol_and_port(word + address_words(family), into);
}

fn protocol_and_port(word: u8, into: &mut Vec<Expression>) {
    into.push(Expression::transport_protocol(Register::word(word)));
    into.push(Expression::destination_port(Register::word(word + 1)));
}

const fn random(count: u32, to: Register) -> Expression {
    Expression::NumberGenerator {
        kind: NumberKind::Random,
        modulus: count,
        offset: 0,
        to,
    }
}

fn constant(word: u8, field: Field<'_>) -> Expression {
    Expression::Constant {
        to: Register::word(word),
        value: Data::of(field),
    }
}

fn translate(to: SocketAddr, family: Family, into: &mut Vec<Expression>) {
    into.push(constant(0, Field::Address(to.ip())));
    into.push(constant(address_words(family), Field::Port(to.port())));
    into.push(nat(family));
}

/// To what stands in the first registers.
const fn nat(family: Family) -> Expression {
    Expression::Nat {
        kind: NatKind::Destination,
        family,
        address: Some(FIRST),
        port: Some(Register::word(address_words(family))),
        flags: NatFlags {
            random: false,
            fully_random: false,
            persistent: false,
        },
    }
}

fn translate_by_vip(count: u8, family: Family, into: &mut Vec<Expression>) {
    destination(family, 0, into);
    if count > 1 {
        let number = Register::word(address_words(family) + 2);
        into.push(random(u32::from(count), number));
    }
    let map = Arc::from(Shared::EndpointsOf(count).name());
    into.extend([lookup(&map, Find::Value(FIRST)), nat(family)]);
}

fn translate_by_map(
    map: Shared,
    service: &ServiceKey,
    count: u32,
    family: Family,
    into: &mut Vec<Expression>,
) {
    let words = address_words(family);
    let [address, protocol, port] = service_fields(service);
    into.extend([
        constant(0, address),
        constant(words, protocol),
        constant(words + 1, port),
        random(count, Register::word(words + 2)),
        lookup(&Arc::from(map.name()), Find::Value(FIRST)),
        nat(family),
    ]);
}

/// Which table.
pub(super) fn table_id(family: Family) -> nft::TableId {
    nft::TableId::new(family, names::TABLE)
}
