//! Every case of `tests/cases/dns/`, asked of the built `switchyard-dns`.
//!
//! `SWITCHYARD_CASES=<text>` runs only the servers and cases whose name contains the text.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use switchyard_tests::dns::{ApiServer, DnsServer, ServerCases, load_dir};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/dns")
}

/// Needs no server: every file follows the notation.
#[test]
fn every_case_file_is_understood() -> Result<()> {
    let servers = load_dir(&dir())?;
    let cases: usize = servers.iter().map(ServerCases::len).sum();
    assert!(cases > 200, "only {cases} cases");
    Ok(())
}

#[test]
fn every_case_is_answered_as_it_says() -> Result<()> {
    let mut servers = load_dir(&dir())?;
    if let Ok(wanted) = std::env::var("SWITCHYARD_CASES") {
        servers.iter_mut().for_each(|server| server.retain(&wanted));
    }
    servers.retain(|server| !server.is_empty());
    if servers.is_empty() {
        bail!("no case is left to run");
    }
    let cases: usize = servers.iter().map(ServerCases::len).sum();
    let mut failures = Vec::new();
    for server in servers {
        match run(&server) {
            Ok(failed) => failures.extend(failed),
            Err(error) => failures.push(format!("{}\n    {error:#}\n", server.name)),
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!(
        "{} of {cases} cases failed:\n\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn run(cases: &ServerCases) -> Result<Vec<String>> {
    let (mut setup, _upstream) = cases.setup()?;
    // Takes every connection and never says anything.
    let silent = if cases.synced {
        None
    } else {
        let api = ApiServer::start()?;
        api.server().silence(true);
        setup = setup.with_file("kubeconfig", &api.kubeconfig());
        Some(api)
    };
    let server = DnsServer::start(setup).with_context(|| cases.name.clone())?;
    let failed = cases.run(&server.client());
    drop(silent);
    Ok(failed)
}

#[test]
fn the_case_files_are_all_listed_in_their_readme() -> Result<()> {
    let readme = fs::read_to_string(dir().join("README.md"))?;
    for entry in fs::read_dir(dir())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(
            name == "README.md" || readme.contains(&name),
            "README.md does not say what {name} is"
        );
    }
    Ok(())
}
