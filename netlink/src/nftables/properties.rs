//! What is written is read as it was, and what a kernel never says does no harm.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::any_bytes::{listed, read_in_every_way};
use super::batch::{Batch, Terms};
use super::list::{self, Elements};
use super::numbers::{chain, rule, set, table};
use super::*;
use crate::Family;
use crate::messages::{any_attributes, damaged};

fn any_name() -> impl Strategy<Value = Name> {
    "[a-z]{1,9}/[-a-z0-9]{0,9}".prop_map(Name::from)
}

fn any_register() -> impl Strategy<Value = Register> {
    (0_u8..16).prop_map(Register::word)
}

fn any_data() -> impl Strategy<Value = Data> {
    vec(any::<u8>(), 1..20).prop_map(|bytes| Data::new(&bytes))
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Accept),
        Just(Verdict::Drop),
        Just(Verdict::Continue),
        Just(Verdict::Return),
        any_name().prop_map(Verdict::Jump),
        any_name().prop_map(Verdict::Goto),
    ]
}

fn any_nat_flags() -> impl Strategy<Value = NatFlags> {
    any::<[bool; 3]>().prop_map(|[random, fully_random, persistent]| NatFlags {
        random,
        fully_random,
        persistent,
    })
}

type Parts = ((Register, Register), [u32; 4], Data, Data);

/// Those with registers and numbers only.
fn any_arithmetic() -> impl Strategy<Value = Expression> {
    let registers = (any_register(), any_register());
    let parts = (registers, any::<[u32; 4]>(), any_data(), any_data());
    let build = |((from, to), [one, two, three, four], low, high): Parts| {
        let offset = one;
        let xor = Data::new(&vec![7; low.bytes().len()]);
        vec![
            Expression::Payload {
                base: PayloadBase::from_number(two),
                offset,
                length: three,
                to,
            },
            Expression::Meta {
                key: MetaKey::from_number(one),
                to,
            },
            Expression::SetMeta {
                key: MetaKey::from_number(one),
                from,
            },
            Expression::SetConnection {
                key: ConnectionKey::from_number(one),
                from,
            },
            Expression::Compare {
                from,
                comparison: Comparison::from_number(two),
                with: low.clone(),
            },
            Expression::Range {
                from,
                outside: offset % 2 == 0,
                low: low.clone(),
                high,
            },
            Expression::Bitwise {
                from,
                to,
                mask: low.clone(),
                xor,
            },
            Expression::Constant { to, value: low },
            Expression::NumberGenerator {
                kind: NumberKind::from_number(two),
                modulus: three,
                offset,
                to,
            },
            Expression::Hash {
                from,
                length: four,
                modulus: three,
                seed: (two % 2 == 0).then_some(two),
                offset,
                to,
            },
        ]
    };
    parts.prop_map(build).prop_flat_map(select)
}

/// The others.
fn any_action() -> impl Strategy<Value = Expression> {
    let find = prop_oneof![
        Just(Find::Present),
        Just(Find::Absent),
        Just(Find::Verdict),
        any_register().prop_map(Find::Value),
    ];
    let lookup = (any_name(), any_register(), find);
    let nat = (any::<bool>(), option::of(any_register()), any_nat_flags());
    let timeout = option::of((1_u64..u64::MAX).prop_map(Duration::from_millis));
    let update = (
        any_name(),
        any_register(),
        option::of(any_register()),
        timeout,
    );
    prop_oneof![
        lookup.prop_map(|(set, key, find)| Expression::Lookup { set, key, find }),
        any_verdict().prop_map(Expression::Verdict),
        nat.prop_map(|(source, port, flags)| Expression::Nat {
            kind: NatKind::from_number(u32::from(!source)),
            family: Family::V6,
            address: Some(Register::FIRST),
            port,
            flags,
        }),
        any_nat_flags().prop_map(|flags| Expression::Masquerade { flags }),
        update.prop_map(|(set, key, value, timeout)| Expression::Update {
            set,
            operation: UpdateOperation::Update,
            key,
            value,
            timeout,
        }),
        any::<u8>().prop_map(|code| Expression::Reject(Rejection::Icmp(code))),
        any::<u8>().prop_map(|code| Expression::Reject(Rejection::IcmpOfEither(code))),
        Just(Expression::Reject(Rejection::TcpReset)),
        any::<(u64, u64)>().prop_map(|(packets, bytes)| Expression::Counter { packets, bytes }),
        (option::of(any_name()), any::<u16>()).prop_map(|(prefix, group)| Expression::Log {
            prefix,
            to: LogTarget::Group(group),
        }),
        vec(any::<u8>(), 1..4).prop_map(|bytes| {
            let mut writer = Writer::new();
            writer.attribute(77, &bytes);
            Expression::Other {
                name: "fib".into(),
                attributes: writer.bytes().unwrap().into(),
            }
        }),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let expressions = vec(prop_oneof![any_arithmetic(), any_action()], 0..6);
    (any_name(), expressions, option::of(any_name())).prop_map(|(chain, expressions, comment)| {
        Rule {
            chain,
            expressions,
            comment,
        }
    })
}

fn any_element() -> impl Strategy<Value = Element> {
    let key = prop_oneof![
        any_data().prop_map(Key::One),
        (any_data(), any_data()).prop_map(|(from, to)| Key::Ranges(from, to)),
        Just(Key::Any),
    ];
    let value = prop_oneof![
        any_data().prop_map(Value::Data),
        any_verdict().prop_map(Value::Verdict),
    ];
    let timeout = option::of((1_u64..u64::MAX).prop_map(Duration::from_millis));
    (key, option::of(value), timeout, option::of(any_name())).prop_map(
        |(key, value, timeout, comment)| Element {
            timeout,
            comment,
            ..Element::of(key, value)
        },
    )
}

fn any_set() -> impl Strategy<Value = Set> {
    use FieldType::{InterfaceName, Ipv4Address, Ipv6Address, Mark, Port, Protocol};
    let fields = || {
        let all = [
            Ipv4Address,
            Ipv6Address,
            Protocol,
            Port,
            Mark,
            InterfaceName,
        ];
        vec(select(all.to_vec()), 1..5)
    };
    let maps_to = prop_oneof![Just(MapsTo::Verdict), fields().prop_map(MapsTo::Data)];
    let timeout = prop_oneof![
        Just(Timeout::Never),
        Just(Timeout::PerElement),
        (1_u64..u64::MAX).prop_map(|time| Timeout::After(Duration::from_millis(time))),
    ];
    let names = (any_name(), option::of(any_name()));
    let kinds = (fields(), option::of(maps_to), timeout);
    let rest = (any::<[bool; 4]>(), option::of(any::<u32>()));
    (names, kinds, rest).prop_map(
        |((name, comment), (key, maps_to, timeout), (flags, elements_max))| {
            let [anonymous, constant, intervals, dynamic] = flags;
            Set {
                name,
                key,
                maps_to,
                anonymous,
                constant,
                intervals,
                dynamic,
                timeout,
                elements_max,
                comment,
            }
        },
    )
}

fn any_change() -> impl Strategy<Value = Change> {
    let set = Name::from("s");
    prop_oneof![
        any_rule().prop_map(Change::AddRule),
        any_set().prop_map(Change::AddSet),
        vec(any_element(), 1..5).prop_map(move |elements| Change::AddElements {
            set: set.clone(),
            elements,
        }),
    ]
}

fn of() -> TableId {
    TableId::new(Family::V4, "t")
}

proptest! {
    #[test]
    fn a_rule_is_read_as_it_was(rule in any_rule()) {
        let bytes = listed(&Change::AddRule(rule.clone()), Some(rule::HANDLE));
        let read = list::read_rule(&bytes, "t").unwrap().unwrap();
        prop_assert_eq!((read.object, read.handle), (rule, 9));
        prop_assert_eq!(list::read_rule(&bytes, "other"), Ok(None));
    }

    #[test]
    fn a_set_is_read_as_it_was(set in any_set()) {
        let bytes = listed(&Change::AddSet(set.clone()), Some(set::HANDLE));
        let read = list::read_set(&bytes, "t").unwrap().unwrap();
        prop_assert_eq!((read.object, read.handle), (set, 9));
    }

    #[test]
    fn elements_are_read_as_they_were(elements in vec(any_element(), 1..5)) {
        let set = "s".into();
        let change = Change::AddElements { set, elements: elements.clone() };
        let mut read = Elements::default();
        list::read_elements(&mut read, &listed(&change, None)).unwrap();
        prop_assert_eq!(read.elements, elements);
    }

    #[test]
    fn a_chain_is_read_as_it_was(
        name in any_name(),
        priority in option::of(any::<i32>()),
        comment in option::of(any_name()),
    ) {
        let base = priority.map(|priority| BaseChain {
            kind: ChainKind::Route,
            hook: Hook::Output,
            priority,
            policy: Policy::Drop,
        });
        let chain = Chain { name, base, comment };
        let bytes = listed(&Change::AddChain(chain.clone()), Some(chain::HANDLE));
        let read = list::read_chain(&bytes, "t").unwrap().unwrap();
        prop_assert_eq!((read.object, read.handle), (chain, 9));
        let comment = Some(Name::from("of Services"));
        let bytes = listed(&Change::AddTable { comment: comment.clone() }, Some(table::HANDLE));
        let read = list::read_table(&bytes).unwrap();
        prop_assert_eq!((&*read.object.name, read.object.comment), ("t", comment));
    }

    #[test]
    fn whatever_comes_is_read_or_refused(
        bytes in prop_oneof![
            any_attributes(),
            any_change().prop_flat_map(|change| {
                let handle = match change {
                    Change::AddSet(_) => Some(set::HANDLE),
                    Change::AddRule(_) => Some(rule::HANDLE),
                    _ => None,
                };
                damaged(listed(&change, handle))
            }),
        ]
    ) {
        read_in_every_way(&bytes);
    }

    #[test]
    fn whatever_a_refusal_says_it_is_told(
        change in any_change(),
        sequence in 0_u32..5,
        echo in any_attributes(),
        offset in 0_u32..300,
    ) {
        let changes = [Change::DeleteTable, change];
        let batch = Batch::of(&of(), &changes, Terms::default(), |_| 1);
        let _ = place::refusal(&batch, &changes, sequence, 22, &echo).to_string();
        let mut writer = Writer::new();
        writer.fixed(&[0; 16]);
        writer.u32_native(2, offset);
        let echo = writer.bytes().unwrap();
        let _ = place::refusal(&batch, &changes, sequence, 22, echo).to_string();
    }
}
