//! What holds for all plugins together: real configurations load, and the page of metrics is
//! complete.

use std::fs;
use std::path::Path;

use prometheus::proto::MetricFamily;

use super::{Environment, readmes, registry};
use crate::corefile;
use crate::metrics;
use crate::server::Configuration;

const MANIFEST_DIR: &str = env!("CARGO_MANIFEST_DIR");

/// kubeadm's, coredns/deployment's and NodeLocal's, as they are.
#[tokio::test]
async fn what_clusters_run_is_loaded_as_it_is() {
    let folder = Path::new(MANIFEST_DIR).join("testdata/corefiles");
    let manifests = tempfile::tempdir().unwrap();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let corefile = corefile::load(&path).unwrap();
        count += 1;
        let environment = Environment {
            manifests: Some(manifests.path().to_owned()),
            ..Environment::default()
        };
        let loaded = Configuration::new(&corefile, &environment);
        assert_eq!(loaded.map(drop).map_err(|error| error.to_string()), Ok(()));
    }
    assert_eq!(count, 3);
}

/// `SWITCHYARD_WRITE_DOCS=1 cargo nextest run -p switchyard-dns documentation` writes it.
#[tokio::test]
async fn documentation_lists_every_metric() {
    let path = Path::new(MANIFEST_DIR).join("../docs/dns-metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- table: begin -->\n", "<!-- table: end -->");
    let (before, rest) = page.split_once(start).expect("a mark before the table");
    let (table, after) = rest.split_once(end).expect("a mark after the table");

    // Plugins register their metrics when they are first set up.
    readmes::load_all_that_work();
    let elsewhere = prometheus::default_registry().gather();
    let elsewhere: Vec<_> = elsewhere.iter().map(MetricFamily::name).collect();
    assert!(
        elsewhere.is_empty(),
        "{elsewhere:?} are not in metrics::registry()"
    );
    let ours = |name: &str| {
        ["coredns_", "switchyard_dns_", "process_"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    let mut definitions = metrics::registry().definitions();
    definitions.retain(|definition| ours(&definition.name));
    let expected = metrics::markdown(&definitions);
    if std::env::var_os("SWITCHYARD_WRITE_DOCS").is_some() {
        fs::write(path, format!("{before}{start}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        table, expected,
        "docs/dns-metrics.md is out of date: run this test with SWITCHYARD_WRITE_DOCS=1"
    );
}

#[test]
fn the_page_for_operators_names_every_plugin() {
    let path = Path::new(MANIFEST_DIR).join("../docs/dns.md");
    let page = fs::read_to_string(path).unwrap();
    for entry in registry::ENTRIES {
        let row = format!("| [{}](../dns/src/plugin/", entry.name);
        let is_ours = matches!(entry.support, registry::Support::Ours(_));
        assert!(
            !is_ours || page.contains(&row),
            "{row} is not in docs/dns.md"
        );
    }
}
