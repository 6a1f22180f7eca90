//! The kept corpus of the fuzz target `wire`, and mutations of it.

#[path = "../fuzz/check_wire.rs"]
mod check_wire;

use std::fs;

/// Mutations of each message of the corpus.
const MUTATIONS: u32 = 2_000;

#[test]
fn the_corpus_and_its_mutations_are_read_without_a_panic() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/wire");
    let mut random = fastrand::Rng::with_seed(7);
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("the corpus is kept") {
        let message = fs::read(entry.expect("an entry").path()).expect("a file");
        check_wire::check(&message);
        for _ in 0..MUTATIONS {
            let mut mutated = message.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..mutated.len().max(1));
                match random.u8(0..4) {
                    0 => mutated.truncate(at),
                    1 => mutated.insert(at, random.u8(..)),
                    _ => {
                        if let Some(octet) = mutated.get_mut(at) {
                            *octet = *random
                                .choice(&[0, 1, 0xC0, 0x0C, 0xFF, random.clone().u8(..)])
                                .expect("some");
                        }
                    }
                }
            }
            check_wire::check(&mutated);
        }
        files += 1;
    }
    assert!(files > 5, "{files} files are no corpus");
}
