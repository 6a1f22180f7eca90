use switchyard_netlink::Family;
use switchyard_netlink::nft_generation::GenerationReader;
use switchyard_netlink::nftables::{
    Change, Data, Element, Expression, Field, FieldType, NftError, Nftables, Rule, Set, TableId,
    Verdict, split,
};

use crate::namespace::{in_own_network, run};

fn table() -> TableId {
    TableId::new(Family::V6, "t")
}

fn set(name: &str) -> Change {
    Change::AddSet(Set::new(name, &[FieldType::Mark]))
}

fn elements(set: &str, count: u32) -> Change {
    let keys = (0..count).map(|number| Data::of(Field::Number(number)));
    Change::AddElements {
        set: set.into(),
        elements: keys.map(Element::new).collect(),
    }
}

#[test]
fn a_transaction_tells_its_generation_and_may_ask_for_one() {
    in_own_network(|| {
        let mut nftables = Nftables::open().unwrap();
        let mut reader = GenerationReader::open().unwrap();
        let add = [Change::AddTable { comment: None }, set("s")];
        let applied = nftables.apply(&table(), &add).unwrap();
        let generation = reader.read().unwrap();
        assert_eq!(applied.generation, Some(generation));

        // The first change is large, and makes as many notices.
        let applied = nftables.apply_if(&table(), &[elements("s", 20_000)], Some(generation));
        let applied = applied.unwrap();
        assert_eq!(applied.generation, Some(reader.read().unwrap()));

        run("nft add table ip foreign");
        let change = [Change::FlushSet("s".into())];
        let error = nftables.apply_if(&table(), &change, applied.generation);
        assert!(
            matches!(error, Err(NftError::Overtaken { .. })),
            "{error:?}"
        );
        let present = reader.read().unwrap();
        let flushed = nftables.apply_if(&table(), &change, Some(present)).unwrap();
        assert_eq!(flushed.generation, None);
        assert_eq!(nftables.apply(&table(), &[]).unwrap().bytes, 0);
    });
}

#[test]
fn elements_beyond_one_message_arrive_and_go() {
    in_own_network(|| {
        let mut nftables = Nftables::open().unwrap();
        let add = [
            Change::AddTable { comment: None },
            set("s"),
            elements("s", 100_000),
        ];
        nftables.apply(&table(), &add).unwrap();
        let spec = Set::new("s", &[FieldType::Mark]);
        let listed = nftables.elements(&table(), &spec).unwrap();
        assert_eq!(listed.len(), 100_000);
        let set = "s".into();
        let delete = Change::DeleteElements {
            set,
            elements: listed,
        };
        nftables.apply(&table(), &[delete]).unwrap();
        assert_eq!(nftables.elements(&table(), &spec).unwrap(), []);
        let none = Set::new("absent", &[FieldType::Mark]);
        assert_eq!(nftables.elements(&table(), &none).unwrap(), []);
    });
}

#[test]
fn parts_of_too_much_are_applied_one_by_one() {
    in_own_network(|| {
        let mut nftables = Nftables::open().unwrap();
        let mut changes = vec![Change::AddTable { comment: None }];
        for number in 0..20 {
            let name = format!("s{number}");
            changes.extend([set(&name), elements(&name, 1_000)]);
        }
        let parts = split(&table(), &changes, 70_000, |at| at % 2 == 1).unwrap();
        assert_eq!(parts.len(), 5);
        for part in parts {
            let applied = nftables.apply(&table(), &changes[part]).unwrap();
            assert!(applied.bytes <= 70_000);
        }
        assert_eq!(nftables.sets(&table()).unwrap().len(), 20);
    });
}

#[test]
fn rules_are_put_first_and_last_and_in_anothers_place_and_deleted() {
    in_own_network(|| {
        run("nft add table ip6 t");
        run("nft add chain ip6 t c");
        let mut nftables = Nftables::open().unwrap();
        let rule = |verdict| Rule::new("c", vec![Expression::Verdict(verdict)]);
        let changes = [
            Change::AddRule(rule(Verdict::Accept)),
            Change::AddRule(rule(Verdict::Drop)),
            Change::InsertRule(rule(Verdict::Return)),
        ];
        nftables.apply(&table(), &changes).unwrap();
        let listed = nftables.rules(&table(), Some("c")).unwrap();
        let verdicts: Vec<_> = listed.iter().map(|rule| rule.object.clone()).collect();
        let expected = [Verdict::Return, Verdict::Accept, Verdict::Drop].map(rule);
        assert_eq!(verdicts, expected);
        let changes = [
            Change::ReplaceRule {
                handle: listed[1].handle,
                rule: rule(Verdict::Continue),
            },
            Change::DeleteRule {
                chain: "c".into(),
                handle: listed[2].handle,
            },
        ];
        nftables.apply(&table(), &changes).unwrap();
        let listed = nftables.rules(&table(), None).unwrap();
        let verdicts: Vec<_> = listed.into_iter().map(|rule| rule.object).collect();
        assert_eq!(verdicts, [Verdict::Return, Verdict::Continue].map(rule));
        nftables.apply(&table(), &[Change::DeleteTable]).unwrap();
        assert_eq!(run("nft list ruleset"), "");
        assert_eq!(nftables.rules(&table(), None).unwrap(), []);
        assert_eq!(nftables.chains(&table()).unwrap(), []);
        assert_eq!(nftables.sets(&table()).unwrap(), []);
    });
}
