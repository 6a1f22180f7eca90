//! Statements as the kernel's expressions over registers. Pure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use switchyard_cluster::object::Protocol;
use switchyard_netlink::Family;
use switchyard_netlink::nftables::{
    Comparison, ConnectionKey, Data, Expression, FibFlags, FibResult, Field, Find, MetaKey,
    NatFlags, NatKind, NumberKind, Register, Rejection, UpdateOperation, Verdict, address_type,
    connection_state,
};

use super::form::{ServiceKey, Shared, Statement};
use super::lower::{netlink_protocol, service_fields};

/// Status bit of connections whose destination was translated (`IPS_DST_NAT`).
const DESTINATION_TRANSLATED: u32 = 0x20;
/// Bytes of an interface's name (`IFNAMSIZ`).
const INTERFACE_NAME_BYTES: usize = 16;

const FIRST: Register = Register::FIRST;

const MASQUERADE: Expression = Expression::Masquerade {
    flags: NatFlags {
        random: false,
        fully_random: true,
        persistent: false,
    },
};

/// Words that an address takes.
const fn address_words(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

/// What a statement is in the kernel's terms, behind what `into` has.
pub(super) fn lower(statement: &Statement, family: Family, into: &mut Vec<Expression>) {
    match statement {
        Statement::NewConnection => connection(ConnectionKey::State, connection_state::NEW, into),
        Statement::DestinationTranslated => {
            connection(ConnectionKey::Status, DESTINATION_TRANSLATED, into);
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
        Statement::IsHairpin => is_hairpin(family, into),
        Statement::RememberedIn(set) => {
            into.push(Expression::source_address(family, FIRST));
            into.push(lookup(set, Find::Present));
        }
        Statement::Marked(mark) => marked(*mark, into),
        Statement::Protocol(protocol) => of_protocol(*protocol, into),
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
        Statement::Remember(set, timeout_s) => remember(set, *timeout_s, family, into),
        Statement::Verdict(map) => verdict(*map, family, into),
        Statement::Masquerade => into.push(MASQUERADE),
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
        Statement::Reject => into.push(Expression::Reject(port_unreachable(family))),
    }
}

const fn port_unreachable(family: Family) -> Rejection {
    Rejection::Icmp(match family {
        Family::V4 => 3,
        Family::V6 => 4,
    })
}

fn is_hairpin(family: Family, into: &mut Vec<Expression>) {
    into.push(Expression::source_address(family, FIRST));
    destination(family, address_words(family), into);
    let set = Arc::from(Shared::HairpinConnections.name());
    into.push(lookup(&set, Find::Present));
}

fn marked(mark: u32, into: &mut Vec<Expression>) {
    into.push(load_mark());
    into.push(Expression::and(FIRST, Field::Number(mark)));
    into.push(Expression::not_equal(FIRST, Field::Number(0)));
}

fn of_protocol(protocol: Protocol, into: &mut Vec<Expression>) {
    into.push(Expression::transport_protocol(FIRST));
    let protocol = Field::Protocol(netlink_protocol(protocol));
    into.push(Expression::equal(FIRST, protocol));
}

fn remember(set: &Arc<str>, timeout_s: u32, family: Family, into: &mut Vec<Expression>) {
    into.push(Expression::source_address(family, FIRST));
    into.push(Expression::Update {
        set: Arc::clone(set),
        operation: UpdateOperation::Update,
        key: FIRST,
        value: None,
        timeout: Some(Duration::from_secs(u64::from(timeout_s))),
    });
}

fn verdict(map: Shared, family: Family, into: &mut Vec<Expression>) {
    if map.is_by_port() {
        protocol_and_port(0, into);
    } else {
        destination(family, 0, into);
    }
    into.push(lookup(&Arc::from(map.name()), Find::Verdict));
}

fn connection(key: ConnectionKey, bits: u32, into: &mut Vec<Expression>) {
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
