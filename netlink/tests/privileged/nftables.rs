use switchyard_netlink::nftables::{Change, Nftables, TableId};

use crate::namespace::run;

mod expressions;
mod mirror;
mod refusals;
mod size;
mod transactions;

/// Runs nft on a text.
fn nft(text: &str) {
    let name = format!(
        "switchyard-nft-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let file = std::env::temp_dir().join(name.replace(['(', ')'], ""));
    std::fs::write(&file, text).unwrap();
    run(&format!("nft -f {}", file.display()));
    std::fs::remove_file(&file).unwrap();
}

/// All that a table holds, as what would make it.
fn read(nftables: &mut Nftables, table: &TableId) -> Vec<Change> {
    let tables = nftables.tables(table.family).unwrap();
    let found = tables.iter().find(|found| found.object.name == table.name);
    let comment = found.expect("the table").object.comment.clone();
    let mut changes = vec![Change::AddTable { comment }];
    for chain in nftables.chains(table).unwrap() {
        changes.push(Change::AddChain(chain.object));
    }
    let sets = nftables.sets(table).unwrap();
    changes.extend(sets.iter().map(|set| Change::AddSet(set.object.clone())));
    for set in sets {
        let mut elements = nftables.elements(table, &set.object).unwrap();
        elements.sort_by(|one, other| one.key.cmp(&other.key));
        // As it was given, not what is left of it.
        elements
            .iter_mut()
            .for_each(|element| element.expires_in = None);
        changes.push(Change::AddElements {
            set: set.object.name,
            elements,
        });
    }
    for rule in nftables.rules(table, None).unwrap() {
        changes.push(Change::AddRule(rule.object));
    }
    changes
}
