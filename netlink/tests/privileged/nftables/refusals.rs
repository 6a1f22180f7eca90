use nix::libc::{EBUSY, EEXIST, EINVAL, ENOENT};
use switchyard_netlink::Family;
use switchyard_netlink::nftables::{
    Chain, Change, Data, Element, Expression, Field, FieldType, Find, MapsTo, NftError, Nftables,
    Refusal, Register, Rule, Set, TableId, Value, Verdict,
};

use crate::namespace::{in_own_network, run, without_net_admin};

fn table() -> TableId {
    TableId::new(Family::V4, "t")
}

fn chain(name: &str) -> Change {
    Change::AddChain(Chain {
        name: name.into(),
        base: None,
        comment: None,
    })
}

fn to(address: [u8; 4], verdict: Verdict) -> Element {
    let key = Data::of(Field::Address(address.into()));
    Element::leading_to(key, Value::Verdict(verdict))
}

fn add(elements: Vec<Element>) -> Change {
    let set = "verdicts".into();
    Change::AddElements { set, elements }
}

/// A table with a chain that another leads to, and a verdict map.
fn prepare(nftables: &mut Nftables) {
    let map = Set::map("verdicts", &[FieldType::Ipv4Address], MapsTo::Verdict);
    let changes = [
        Change::AddTable { comment: None },
        chain("one"),
        chain("other"),
        Change::AddRule(Rule::new("one", vec![Expression::jump("other")])),
        Change::AddSet(map),
        add(vec![to([192, 0, 2, 1], Verdict::Drop)]),
    ];
    nftables.apply(&table(), &changes).unwrap();
}

fn refusals(nftables: &mut Nftables, changes: &[Change]) -> Vec<Refusal> {
    let before = run("nft list ruleset");
    let error = nftables.apply(&table(), changes).unwrap_err();
    assert_eq!(run("nft list ruleset"), before, "all or nothing");
    match error {
        NftError::Refused { refusals, .. } => refusals,
        other => panic!("{other}"),
    }
}

#[test]
fn a_refusal_names_change_place_and_reason() {
    in_own_network(|| {
        let mut nftables = Nftables::open().unwrap();
        prepare(&mut nftables);
        let absent = || Rule::new("absent", vec![Expression::Verdict(Verdict::Drop)]);
        let lookup = Expression::Lookup {
            set: "absent".into(),
            key: Register::FIRST,
            find: Find::Present,
        };
        let load = Expression::destination_address(Family::V4, Register::FIRST);
        let elsewhere = |verdict| {
            vec![
                to([192, 0, 2, 9], Verdict::Drop),
                to([192, 0, 2, 1], verdict),
            ]
        };
        let short = Element::leading_to(Data::new(&[1, 2]), Value::Verdict(Verdict::Drop));
        let set = "verdicts".into();
        let missing = Change::DeleteElements {
            set,
            elements: elsewhere(Verdict::Drop),
        };
        let cases = [
            (
                Change::AddRule(absent()),
                ENOENT,
                Some("NFTA_RULE_CHAIN"),
                None,
            ),
            (
                Change::AddRule(Rule::new("one", vec![load, lookup])),
                ENOENT,
                Some("NFTA_RULE_EXPRESSIONS, expression"),
                Some(1),
            ),
            (chain("one"), 0, None, None),
            (
                Change::DeleteChain("other".into()),
                EBUSY,
                Some("NFTA_CHAIN_NAME"),
                None,
            ),
            (
                Change::DeleteChain("absent".into()),
                ENOENT,
                Some("NFTA_CHAIN_NAME"),
                None,
            ),
            (
                Change::DeleteRule {
                    chain: "one".into(),
                    handle: 999,
                },
                ENOENT,
                Some("NFTA_RULE_HANDLE"),
                None,
            ),
            (
                Change::DeleteSet("absent".into()),
                ENOENT,
                Some("NFTA_SET_NAME"),
                None,
            ),
            (
                add(elsewhere(Verdict::Accept)),
                EEXIST,
                Some("NFTA_SET_ELEM_LIST_ELEMENTS, element"),
                Some(1),
            ),
            (
                add(vec![short]),
                EINVAL,
                Some("NFTA_SET_ELEM_LIST_ELEMENTS, element"),
                Some(0),
            ),
            (
                missing,
                ENOENT,
                Some("NFTA_SET_ELEM_LIST_ELEMENTS, element"),
                Some(0),
            ),
        ];
        for (change, code, attribute, item) in cases {
            if code == 0 {
                nftables.apply(&table(), &[change]).unwrap();
                continue;
            }
            let changes = [chain("new"), change];
            let refused = refusals(&mut nftables, &changes);
            let [refusal] = refused.as_slice() else {
                panic!("{refused:?}");
            };
            let place = (
                refusal.change,
                refusal.code,
                refusal.attribute,
                refusal.item,
            );
            assert_eq!(place, (Some(1), code, attribute, item), "{}", changes[1]);
        }
    });
}

#[test]
fn a_check_finds_what_would_be_refused_and_changes_nothing() {
    in_own_network(|| {
        let mut nftables = Nftables::open().unwrap();
        prepare(&mut nftables);
        let before = run("nft -a list ruleset");
        nftables.check(&table(), &[chain("fine")]).unwrap();
        nftables.check(&table(), &[Change::DeleteTable]).unwrap();
        let changes = [chain("fine"), Change::DeleteChain("absent".into())];
        let error = nftables.check(&table(), &changes).unwrap_err();
        assert_eq!(error.code(), Some(ENOENT));
        assert_eq!(run("nft -a list ruleset"), before);
        nftables.apply(&table(), &changes[..1]).unwrap();
    });
}

#[test]
fn all_that_is_refused_is_told_and_in_words() {
    in_own_network(|| {
        let mut nftables = Nftables::open().unwrap();
        prepare(&mut nftables);
        let changes = [
            Change::DeleteChain("a".into()),
            chain("fine"),
            Change::DeleteSet("b".into()),
        ];
        let refused = refusals(&mut nftables, &changes);
        let places: Vec<_> = refused.iter().map(|refusal| refusal.change).collect();
        assert_eq!(places, [Some(0), Some(2)]);
        let error = nftables.apply(&table(), &changes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the nftables table ip t stays as it was: delete the chain a, at NFTA_CHAIN_NAME: \
             there is no such object (ENOENT) (and 1 more changes were refused)"
        );
        assert_eq!(error.code(), Some(ENOENT));
    });
}

/// As many refusals as overrun the socket; it is of use afterwards.
#[test]
fn very_many_refusals_are_cut_short() {
    in_own_network(|| {
        let mut nftables = Nftables::open().unwrap();
        prepare(&mut nftables);
        let changes = vec![Change::DeleteChain("absent".into()); 50_000];
        let error = nftables.apply(&table(), &changes).unwrap_err();
        let NftError::Refused { refusals, more, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(refusals.len(), switchyard_netlink::nftables::REFUSALS_MAX);
        assert!(more > 1_000, "{more}");
        assert_eq!(nftables.chains(&table()).unwrap().len(), 2);
        nftables.apply(&table(), &[chain("fine")]).unwrap();
    });
}

#[test]
fn without_rights_the_whole_is_refused() {
    without_net_admin(
        "nftables::refusals::without_rights_the_whole_is_refused",
        || {
            let mut nftables = Nftables::open().unwrap();
            let change = Change::AddTable { comment: None };
            let error = nftables.apply(&table(), &[change]).unwrap_err();
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
            assert!(nftables.chains(&table()).is_err());
        },
    );
}
