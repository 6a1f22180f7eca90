use std::time::Instant;

use switchyard_netlink::nftables::{
    Chain, Change, Data, Element, Expression, Field, FieldType, Find, MapsTo, NatFlags, NatKind,
    Nftables, NumberKind, Register, Rule, Set, TableId, Value, Verdict,
};
use switchyard_netlink::{Family, Protocol};

use crate::namespace::in_own_network;

const SERVICES: u32 = 50_000;
const ENDPOINTS_PER_SERVICE: u32 = 3;
const FIRST: Register = Register::FIRST;

fn table() -> TableId {
    TableId::new(Family::V4, "large")
}

fn address(high: u8, number: u32) -> Field<'static> {
    let [_, second, third, fourth] = number.to_be_bytes();
    Field::Address([high, second, third, fourth].into())
}

fn key(service: u32) -> [Field<'static>; 3] {
    let protocol = Field::Protocol(Protocol::Tcp);
    [address(10, service), protocol, Field::Port(80)]
}

fn endpoint(service: u32, endpoint: u32) -> [Field<'static>; 2] {
    let number = service * ENDPOINTS_PER_SERVICE + endpoint;
    [address(11, number), Field::Port(8080)]
}

fn add_map(name: &str, key: &[FieldType], to: MapsTo, elements: Vec<Element>) -> [Change; 2] {
    let set = Set::map(name, key, to);
    let set_name = name.into();
    let elements = Change::AddElements {
        set: set_name,
        elements,
    };
    [Change::AddSet(set), elements]
}

fn numbers(to: u8) -> Expression {
    Expression::NumberGenerator {
        kind: NumberKind::Random,
        modulus: ENDPOINTS_PER_SERVICE,
        offset: 0,
        to: Register::word(to),
    }
}

fn translate() -> Expression {
    Expression::Nat {
        kind: NatKind::Destination,
        family: Family::V4,
        address: Some(FIRST),
        port: Some(Register::word(1)),
        flags: NatFlags::default(),
    }
}

/// A chain of each Service with a rule for each endpoint, and a verdict map to the chains.
fn by_chains(services: u32) -> Vec<Change> {
    use FieldType::{Ipv4Address, Port, Protocol as ProtocolType};
    let mut changes = vec![Change::AddTable { comment: None }];
    let name = |service| format!("service-{service:08}-namespace/name/tcp/port");
    let mut leading = Vec::new();
    for service in 0..services {
        let chain: std::sync::Arc<str> = name(service).into();
        changes.push(Change::AddChain(Chain {
            name: chain.clone(),
            base: None,
            comment: None,
        }));
        for number in 0..ENDPOINTS_PER_SERVICE {
            let [address, port] = endpoint(service, number);
            let constant = |word, field| Expression::Constant {
                to: Register::word(word),
                value: Data::of(field),
            };
            let expressions = vec![
                numbers(0),
                Expression::equal(FIRST, Field::Number(number)),
                constant(0, address),
                constant(1, port),
                translate(),
            ];
            changes.push(Change::AddRule(Rule::new(chain.clone(), expressions)));
        }
        let key = Data::concatenated(&key(service));
        leading.push(Element::leading_to(
            key,
            Value::Verdict(Verdict::Goto(chain)),
        ));
    }
    let key = [Ipv4Address, ProtocolType, Port];
    changes.extend(add_map("services", &key, MapsTo::Verdict, leading));
    changes
}

/// One map of all endpoints, keyed by Service and number.
fn by_one_map(services: u32) -> Vec<Change> {
    use FieldType::{Ipv4Address, Mark, Port, Protocol as ProtocolType};
    let mut elements = Vec::new();
    for service in 0..services {
        for number in 0..ENDPOINTS_PER_SERVICE {
            let [address, protocol, port] = key(service);
            let key = Data::concatenated(&[address, protocol, port, Field::Number(number)]);
            let to = Data::concatenated(&endpoint(service, number));
            elements.push(Element::leading_to(key, Value::Data(to)));
        }
    }
    let key = [Ipv4Address, ProtocolType, Port, Mark];
    let to = MapsTo::Data(vec![Ipv4Address, Port]);
    let chain = Chain {
        name: "services".into(),
        base: None,
        comment: None,
    };
    let rule = vec![
        Expression::destination_address(Family::V4, FIRST),
        Expression::transport_protocol(Register::word(1)),
        Expression::destination_port(Register::word(2)),
        numbers(3),
        Expression::Lookup {
            set: "endpoints".into(),
            key: FIRST,
            find: Find::Value(FIRST),
        },
        translate(),
    ];
    let mut changes = vec![Change::AddTable { comment: None }, Change::AddChain(chain)];
    changes.extend(add_map("endpoints", &key, to, elements));
    changes.push(Change::AddRule(Rule::new("services", rule)));
    changes
}

/// An anonymous map for each Service, as kube-proxy has it.
fn by_anonymous_maps(services: u32) -> Vec<Change> {
    use FieldType::{Integer, Ipv4Address, Port};
    let mut changes = vec![Change::AddTable { comment: None }];
    for service in 0..services {
        let chain = format!("service-{service:08}-namespace/name/tcp/port");
        let map = format!("__map{service}");
        let elements = (0..ENDPOINTS_PER_SERVICE).map(|number| {
            let to = Data::concatenated(&endpoint(service, number));
            Element::leading_to(Data::of(Field::Number(number)), Value::Data(to))
        });
        changes.push(Change::AddChain(Chain {
            name: chain.as_str().into(),
            base: None,
            comment: None,
        }));
        changes.push(Change::AddSet(Set {
            anonymous: true,
            constant: true,
            ..Set::map(
                map.as_str(),
                &[Integer],
                MapsTo::Data(vec![Ipv4Address, Port]),
            )
        }));
        changes.push(Change::AddElements {
            set: map.as_str().into(),
            elements: elements.collect(),
        });
        let lookup = Expression::Lookup {
            set: map.into(),
            key: FIRST,
            find: Find::Value(FIRST),
        };
        let rule = vec![numbers(0), lookup, translate()];
        changes.push(Change::AddRule(Rule::new(chain, rule)));
    }
    changes
}

/// Bytes and times of one transaction, of listing it and of deleting it.
fn measure(what: &str, changes: &[Change]) {
    let mut nftables = Nftables::open().unwrap();
    let start = Instant::now();
    let applied = nftables.apply(&table(), changes).unwrap();
    let added = start.elapsed();
    let start = Instant::now();
    let chains = nftables.chains(&table()).unwrap().len();
    let mut elements = 0;
    for set in nftables.sets(&table()).unwrap().iter().take(1) {
        elements = nftables.elements(&table(), &set.object).unwrap().len();
    }
    let listed = start.elapsed();
    let start = Instant::now();
    nftables.apply(&table(), &[Change::DeleteTable]).unwrap();
    println!(
        "{what}: {} changes, {} bytes, added in {added:?}; {chains} chains and {elements} \
         elements listed in {listed:?}; deleted in {:?}",
        changes.len(),
        applied.bytes,
        start.elapsed()
    );
}

#[test]
fn hundreds_of_services_in_each_form() {
    in_own_network(|| {
        measure("chains", &by_chains(500));
        measure("one map", &by_one_map(500));
        measure("anonymous maps", &by_anonymous_maps(500));
    });
}

#[test]
#[ignore = "takes a minute and a gigabyte; prints what it measured"]
fn fifty_thousand_services_in_one_transaction() {
    in_own_network(|| {
        measure("chains", &by_chains(SERVICES));
        measure("one map", &by_one_map(SERVICES));
        for services in [2_000, 4_000] {
            let what = format!("anonymous maps of {services} Services");
            measure(&what, &by_anonymous_maps(services));
        }
    });
}

#[test]
#[ignore = "takes gigabytes; prints how large a transaction may be"]
fn the_largest_transaction() {
    in_own_network(|| {
        for services in [100_000, 450_000] {
            measure(&format!("{services} Services"), &by_chains(services));
        }
    });
}
