use switchyard_netlink::nftables::{
    BaseChain, Chain, ChainKind, Change, Comparison, ConnectionKey, Data, Direction, Expression,
    FibFlags, FibResult, Field, FieldType, Find, Hook, LogTarget, MapsTo, MetaKey, NatFlags,
    NatKind, Nftables, NumberKind, PayloadBase, Policy, Register, Rejection, Rule, Set, TableId,
    Timeout, UpdateOperation, Verdict, connection_state,
};
use switchyard_netlink::{Family, Protocol};

use crate::namespace::{in_own_network, run};

const FIRST: Register = Register::FIRST;

fn table() -> TableId {
    TableId::new(Family::V4, "t")
}

fn meta(key: MetaKey, to: Register) -> Expression {
    Expression::Meta { key, to }
}

fn set_mark() -> Expression {
    let (key, from) = (MetaKey::Mark, FIRST);
    Expression::SetMeta { key, from }
}

fn lookup(set: &str, find: Find) -> Expression {
    let (set, key) = (set.into(), FIRST);
    Expression::Lookup { set, key, find }
}

fn connection(key: ConnectionKey, direction: Option<Direction>) -> Expression {
    let to = FIRST;
    Expression::Connection { key, direction, to }
}

fn constant(word: u8, field: Field<'_>) -> Expression {
    let (to, value) = (Register::word(word), Data::of(field));
    Expression::Constant { to, value }
}

fn numbers(kind: NumberKind, modulus: u32, offset: u32, word: u8) -> Expression {
    Expression::NumberGenerator {
        kind,
        modulus,
        offset,
        to: Register::word(word),
    }
}

fn translate(port: Option<Register>, flags: NatFlags) -> Expression {
    Expression::Nat {
        kind: NatKind::Destination,
        family: Family::V4,
        address: Some(FIRST),
        port,
        flags,
    }
}

fn update(operation: UpdateOperation, timeout: Option<std::time::Duration>) -> Expression {
    Expression::Update {
        set: "passing".into(),
        operation,
        key: FIRST,
        value: None,
        timeout,
    }
}

fn fib(flags: FibFlags, result: FibResult) -> Expression {
    let to = FIRST;
    Expression::Fib { result, flags, to }
}

/// Tests of packets.
fn matches() -> Vec<(&'static str, Vec<Expression>)> {
    let source = FibFlags {
        source: true,
        ..FibFlags::default()
    };
    let destination_here = FibFlags {
        destination: true,
        incoming_interface: true,
        ..FibFlags::default()
    };
    let address = |from| Expression::source_address(Family::V4, from);
    let tcp = |port: Expression| {
        let protocol = Expression::equal(FIRST, Field::Protocol(Protocol::Tcp));
        let load = Expression::destination_port(FIRST);
        vec![Expression::transport_protocol(FIRST), protocol, load, port]
    };
    let range = |outside| Expression::Range {
        from: FIRST,
        outside,
        low: Data::of(Field::Port(5)),
        high: Data::of(Field::Port(10)),
    };
    let state = connection(ConnectionKey::State, None);
    let new = Field::Number(connection_state::NEW | connection_state::RELATED);
    vec![
        (
            "ct state related,new",
            vec![
                state,
                Expression::and(FIRST, new),
                Expression::not_equal(FIRST, Field::Number(0)),
            ],
        ),
        (
            "ct direction reply",
            vec![
                connection(ConnectionKey::Direction, None),
                Expression::equal(FIRST, Field::Byte(1)),
            ],
        ),
        (
            "ct original ip saddr 192.0.2.1",
            vec![
                connection(ConnectionKey::SourceIpv4, Some(Direction::Original)),
                Expression::equal(FIRST, Field::Address([192, 0, 2, 1].into())),
            ],
        ),
        (
            "meta mark & 0x0000ff00 == 0x00001200",
            vec![
                meta(MetaKey::Mark, FIRST),
                Expression::and(FIRST, Field::Number(0xff00)),
                Expression::equal(FIRST, Field::Number(0x1200)),
            ],
        ),
        (
            "iif \"lo\"",
            vec![
                meta(MetaKey::IncomingInterface, FIRST),
                Expression::equal(FIRST, Field::Number(1)),
            ],
        ),
        (
            "iifname \"lo\"",
            vec![
                meta(MetaKey::IncomingInterfaceName, FIRST),
                Expression::equal(FIRST, Field::Bytes(b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0")),
            ],
        ),
        (
            "ip saddr 10.0.0.0/9",
            vec![
                address(FIRST),
                Expression::and(FIRST, Field::Address([255, 128, 0, 0].into())),
                Expression::equal(FIRST, Field::Address([10, 0, 0, 0].into())),
            ],
        ),
        (
            "fib saddr type local",
            vec![
                fib(source, FibResult::AddressType),
                Expression::equal(FIRST, Field::Number(2)),
            ],
        ),
        (
            "fib daddr . iif type local",
            vec![
                fib(destination_here, FibResult::AddressType),
                Expression::equal(FIRST, Field::Number(2)),
            ],
        ),
        ("tcp dport 5-10", tcp(range(false))),
        ("tcp dport != 5-10", tcp(range(true))),
        (
            "tcp dport > 1023",
            tcp(Expression::Compare {
                from: FIRST,
                comparison: Comparison::Greater,
                with: Data::of(Field::Port(1023)),
            }),
        ),
        (
            "ip saddr @addresses",
            vec![address(FIRST), lookup("addresses", Find::Present)],
        ),
        (
            "ip saddr != @addresses",
            vec![address(FIRST), lookup("addresses", Find::Absent)],
        ),
        (
            "ip saddr vmap @verdicts",
            vec![address(FIRST), lookup("verdicts", Find::Verdict)],
        ),
        (
            "th sport 80",
            vec![
                Expression::Payload {
                    base: PayloadBase::Transport,
                    offset: 0,
                    length: 2,
                    to: FIRST,
                },
                Expression::equal(FIRST, Field::Port(80)),
            ],
        ),
    ]
}

/// What is done to packets.
fn actions() -> Vec<(&'static str, Vec<Expression>)> {
    let fully_random = NatFlags {
        fully_random: true,
        ..NatFlags::default()
    };
    let persistent = NatFlags {
        persistent: true,
        ..NatFlags::default()
    };
    let random = NatFlags {
        random: true,
        ..NatFlags::default()
    };
    let address = Expression::source_address(Family::V4, FIRST);
    let to = constant(0, Field::Address([192, 0, 2, 1].into()));
    let mark = |change: Expression| vec![meta(MetaKey::Mark, FIRST), change, set_mark()];
    let tcp = vec![
        Expression::transport_protocol(FIRST),
        Expression::equal(FIRST, Field::Protocol(Protocol::Tcp)),
    ];
    let then = |last: Expression| [tcp.clone(), vec![last]].concat();
    let masquerade = |flags| vec![Expression::Masquerade { flags }];
    let log = |prefix: Option<&str>, to| {
        let prefix = prefix.map(Into::into);
        vec![Expression::Log { prefix, to }]
    };
    let hash = Expression::Hash {
        from: FIRST,
        length: 4,
        modulus: 3,
        seed: Some(5),
        offset: 2,
        to: FIRST,
    };
    vec![
        (
            "meta mark set meta mark | 0x00004000",
            mark(Expression::or(FIRST, Field::Number(0x4000))),
        ),
        (
            "meta mark set meta mark ^ 0x00004000",
            mark(Expression::xor(FIRST, Field::Number(0x4000))),
        ),
        (
            "meta mark set numgen inc mod 4 offset 9",
            vec![numbers(NumberKind::Incremental, 4, 9, 0), set_mark()],
        ),
        (
            "meta mark set jhash ip saddr mod 3 seed 0x5 offset 2",
            vec![address.clone(), hash, set_mark()],
        ),
        (
            "ct mark set ct mark",
            vec![
                connection(ConnectionKey::Mark, None),
                Expression::SetConnection {
                    key: ConnectionKey::Mark,
                    from: FIRST,
                },
            ],
        ),
        (
            "dnat to 192.0.2.1 persistent",
            vec![to.clone(), translate(None, persistent)],
        ),
        (
            "meta l4proto tcp dnat to 192.0.2.1:80 fully-random",
            [
                tcp.clone(),
                vec![
                    to,
                    constant(1, Field::Port(80)),
                    translate(Some(Register::word(1)), fully_random),
                ],
            ]
            .concat(),
        ),
        // One element of a map for each endpoint of each Service.
        (
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @backends",
            vec![
                Expression::destination_address(Family::V4, FIRST),
                Expression::transport_protocol(Register::word(1)),
                Expression::destination_port(Register::word(2)),
                numbers(NumberKind::Random, 2, 0, 3),
                lookup("backends", Find::Value(FIRST)),
                translate(Some(Register::word(1)), NatFlags::default()),
            ],
        ),
        ("masquerade", masquerade(NatFlags::default())),
        ("masquerade random", masquerade(random)),
        ("masquerade fully-random", masquerade(fully_random)),
        (
            "update @passing { ip saddr }",
            vec![address.clone(), update(UpdateOperation::Update, None)],
        ),
        (
            "add @passing { ip saddr timeout 5s }",
            vec![
                address.clone(),
                update(
                    UpdateOperation::Add,
                    Some(std::time::Duration::from_secs(5)),
                ),
            ],
        ),
        (
            "delete @passing { ip saddr }",
            vec![address, update(UpdateOperation::Delete, None)],
        ),
        ("reject", vec![Expression::Reject(Rejection::Icmp(3))]),
        (
            "reject with icmp host-unreachable",
            vec![Expression::Reject(Rejection::Icmp(1))],
        ),
        (
            "reject with tcp reset",
            then(Expression::Reject(Rejection::TcpReset)),
        ),
        (
            "counter packets 3 bytes 180 accept",
            vec![
                Expression::Counter {
                    packets: 3,
                    bytes: 180,
                },
                Expression::Verdict(Verdict::Accept),
            ],
        ),
        (
            "log prefix \"lost: \" group 5",
            log(Some("lost: "), LogTarget::Group(5)),
        ),
        ("log level debug", log(None, LogTarget::Kernel { level: 7 })),
        ("drop", vec![Expression::Verdict(Verdict::Drop)]),
        ("continue", vec![Expression::Verdict(Verdict::Continue)]),
        ("return", vec![Expression::Verdict(Verdict::Return)]),
        ("jump other", vec![Expression::jump("other")]),
        ("goto other", vec![Expression::goto("other")]),
    ]
}

/// Chains of type `nat` that packets come to, and what rules name.
fn surroundings() -> Vec<Change> {
    use FieldType::{Ipv4Address, Mark, Port, Protocol};
    let base = |hook| {
        Some(BaseChain {
            kind: ChainKind::Nat,
            hook,
            priority: 100,
            policy: Policy::Accept,
        })
    };
    let chain = |name: &str, base| {
        Change::AddChain(Chain {
            name: name.into(),
            base,
            comment: None,
        })
    };
    let passing = Set {
        dynamic: true,
        timeout: Timeout::PerElement,
        elements_max: Some(100),
        ..Set::new("passing", &[Ipv4Address])
    };
    let key = [Ipv4Address, Protocol, Port, Mark];
    let to = MapsTo::Data(vec![Ipv4Address, Port]);
    vec![
        Change::AddTable { comment: None },
        chain("before", base(Hook::Prerouting)),
        chain("behind", base(Hook::Postrouting)),
        chain("other", None),
        chain("judge", None),
        chain("translate", None),
        chain("leave", None),
        Change::AddRule(Rule::new("before", vec![Expression::jump("translate")])),
        Change::AddRule(Rule::new("behind", vec![Expression::jump("leave")])),
        Change::AddSet(Set::new("addresses", &[Ipv4Address])),
        Change::AddSet(Set::map("verdicts", &[Ipv4Address], MapsTo::Verdict)),
        Change::AddSet(Set::map("backends", &key, to)),
        Change::AddSet(passing),
    ]
}

#[test]
fn nft_shows_every_step_as_its_own_and_it_is_read_as_it_was() {
    in_own_network(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.apply(&table(), &surroundings()).unwrap();
        for (text, expressions) in [matches(), actions()].concat() {
            let chain = match text {
                text if text.contains("dnat") => "translate",
                text if text.contains("masquerade") => "leave",
                _ => "judge",
            };
            let rule = Rule {
                comment: Some("said".into()),
                ..Rule::new(chain, expressions)
            };
            let changes = [
                Change::FlushChain(chain.into()),
                Change::AddRule(rule.clone()),
            ];
            if let Err(error) = nftables.apply(&table(), &changes) {
                panic!("{text}: {error}");
            }
            let read = nftables.rules(&table(), Some(chain)).unwrap();
            let read: Vec<_> = read.into_iter().map(|rule| rule.object).collect();
            assert_eq!(read, [rule], "{text}");
            let shown = run(&format!("nft list chain ip t {chain}"));
            let shown = shown.lines().nth(2).unwrap().trim();
            assert_eq!(shown, format!("{text} comment \"said\""));
        }
    });
}
