//! The configurations that clusters run, and the corpus of the fuzz target.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{check_duplicates, load, parse, server_keys};
use super::shown;

fn folder(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no files", folder.display());
    files
}

#[test]
fn what_clusters_run_is_read_as_it_is() {
    for path in folder("testdata/corefiles") {
        let corefile = load(&path).unwrap();
        assert_eq!(
            check_duplicates(&corefile, 53),
            Ok(()),
            "{}",
            path.display()
        );
    }
    let file = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/corefiles");
        load(&folder.join(name)).unwrap()
    };
    assert_eq!(
        shown(&file("kubeadm.corefile")),
        "[.:53] errors; health { lameduck 5s; }; ready; \
         kubernetes cluster.local in-addr.arpa ip6.arpa { pods insecure; fallthrough in-addr.arpa ip6.arpa; ttl 30; }; \
         prometheus :9153; forward . /etc/resolv.conf { max_concurrent 1000; }; \
         cache 30 { disable success cluster.local; disable denial cluster.local; }; \
         loop; reload; loadbalance;"
    );
    let zones: Vec<_> = file("nodelocal.corefile")
        .blocks
        .iter()
        .flat_map(|block| server_keys(block).unwrap())
        .map(|key| key.to_string())
        .collect();
    assert_eq!(
        zones,
        [
            "dns://cluster.local.:53",
            "dns://in-addr.arpa.:53",
            "dns://ip6.arpa.:53",
            "dns://.:53"
        ]
    );
}

#[test]
fn the_corpus_of_the_fuzz_target_is_read_without_a_panic() {
    for path in folder("fuzz/corpus/corefile") {
        let bytes = fs::read(&path).unwrap();
        let parsed = parse(
            &String::from_utf8_lossy(&bytes),
            "Corefile",
            Path::new("/nowhere"),
        );
        if let Ok(corefile) = parsed {
            // What it says may be wrong, but must be said without a panic too.
            let _ = check_duplicates(&corefile, 53);
        }
    }
}
