//! Every case of `tests/cases/`, on every backend, with real packets.
//!
//! `SWITCHYARD_CASES=<text>[|<text>…]` runs only the cases whose name contains one of the texts.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use switchyard_tests::cases::{Backend, CaseRunner, expand_service, load_dir};
use switchyard_tests::testbed::{Testbed, require_root, require_tools};

#[test]
fn every_case_on_iptables_nft() -> Result<()> {
    run_all(Backend::IPTABLES_NFT)
}

#[test]
fn every_case_on_iptables_legacy() -> Result<()> {
    run_all(Backend::IPTABLES_LEGACY)
}

#[test]
fn every_case_on_nftables() -> Result<()> {
    run_all(Backend::NFTABLES)
}

/// Fails with what is missing where the kernel or the machine cannot run it.
#[test]
fn every_case_on_ebpf() -> Result<()> {
    run_all(Backend::EBPF)
}

#[test]
fn every_case_on_ebpf_past_the_stack() -> Result<()> {
    run_all(Backend::EBPF_DIRECT)
}

/// Needs a kernel with IPVS and dummy devices, such as those of `cargo xtask vm`; run there by
/// `cargo xtask test`.
#[test]
#[ignore = "needs a kernel with IPVS"]
fn every_case_on_ipvs() -> Result<()> {
    require_tools(&["ipvsadm", "ipset"])?;
    run_all(Backend::IPVS)
}

/// As above.
#[test]
#[ignore = "needs a kernel with IPVS"]
fn every_case_on_ipvs_over_legacy() -> Result<()> {
    require_tools(&["ipvsadm", "ipset"])?;
    run_all(Backend::IPVS_LEGACY)
}

/// Needs no root: every file follows the notation, and every Service in it can be made.
#[test]
fn every_case_file_is_understood() -> Result<()> {
    let cases = load_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"))?;
    assert!(cases.len() > 70, "only {} cases", cases.len());
    for case in &cases {
        let sets = case.steps.iter().map(|step| &step.set);
        for (key, spec) in sets.chain([&case.services]).flatten() {
            expand_service(key, spec, &case.families).with_context(|| case.name.clone())?;
        }
    }
    Ok(())
}

fn run_all(backend: Backend) -> Result<()> {
    require_root()?;
    if let Some(tool) = backend.tool {
        require_tools(&[tool.multi()])?;
    }
    let mut cases = load_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"))?;
    if let Ok(wanted) = std::env::var("SWITCHYARD_CASES") {
        let wanted = wanted.split('|');
        cases.retain(|case| wanted.clone().any(|text| case.name.contains(text)));
    }
    if cases.is_empty() {
        bail!("no case is left to run");
    }
    // Cases of the same flags one after the other: the proxy starts again only between them.
    cases.sort_by(|a, b| a.flags.cmp(&b.flags));
    let mut failures = Vec::new();
    let bed = Testbed::build()?;
    let mut runner = CaseRunner::new(&bed, backend)?;
    for case in &cases {
        let began = Instant::now();
        let result = runner.run(case);
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!(
            "{word:6} {:5.1} s  {}: {}",
            began.elapsed().as_secs_f32(),
            backend.name,
            case.name
        );
        failures.extend(
            result
                .err()
                .map(|failure| format!("{}: {failure}", backend.name)),
        );
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!(
        "{} of {} cases failed:\n\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}
