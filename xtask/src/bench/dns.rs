//! `cargo xtask bench dns`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use switchyard_bench::dns::{COREDNS, OURS, Part, Program, Settings};

use super::{API_SERVER, build_release, release};
use crate::setup;

/// Names a binary of our server to measure in place of a fresh build, as in tests.
const GIVEN: &str = "SWITCHYARD_DNS_BIN";

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Services of the cluster
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Endpoints of the cluster, over all its Services
    #[arg(long, default_value_t = 4000)]
    endpoints: usize,
    /// Another server to measure: coredns=PATH
    #[arg(long, value_name = "NAME=PATH")]
    peer: Option<String>,
    /// Only this server, one of switchyard-dns, coredns, nsd, knot, unbound, dnsmasq, echo (repeatable)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// What to measure: all if not given (repeatable)
    #[arg(long)]
    part: Vec<Part>,
    /// Rounds of the speed part
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one run of dnsperf
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// One round of one second each: to try the bench, not to measure
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
}

impl Options {
    fn takes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// Measures and prints the tables.
///
/// # Errors
/// A server could not be started or did not do its work in time.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut programs = Vec::new();
    if let Some(peer) = &options.peer {
        programs.push(parse_peer(peer)?);
    }
    setup::for_bench()?;
    if options.takes(OURS) {
        let path = ours()?;
        programs.insert(0, Program { name: OURS, path });
    }
    if programs.iter().any(|program| options.takes(program.name)) {
        println!("building {API_SERVER}, release profile");
        build_release("switchyard-tests", Some(API_SERVER))?;
    }
    let (rounds, seconds) = if options.quick {
        (1, 1)
    } else {
        (options.rounds, options.seconds)
    };
    let parts = if options.part.is_empty() {
        vec![Part::Speed, Part::Changes, Part::Flood]
    } else {
        options.part.clone()
    };
    let settings = Settings {
        services: options.services,
        endpoints: options.endpoints,
        rounds,
        time: Duration::from_secs(seconds),
        parts,
        only: options.only.clone(),
        programs,
        api_server: release(API_SERVER)?,
        echo: (
            std::env::current_exe()?,
            vec!["bench".to_owned(), "echo".to_owned()],
        ),
    };
    println!("\n{}", switchyard_bench::dns::run(&settings)?);
    Ok(())
}

/// Our server: the one [`GIVEN`] names, else a release build of this tree.
fn ours() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(GIVEN) {
        return std::fs::canonicalize(&given)
            .with_context(|| format!("{GIVEN}={}", given.display()));
    }
    println!("building {OURS}, release profile");
    build_release(OURS, None)?;
    release(OURS)
}

fn parse_peer(peer: &str) -> Result<Program> {
    let (name, path) = peer.split_once('=').context("--peer NAME=PATH")?;
    if name != COREDNS {
        bail!("--peer {name}: only {COREDNS} is known; the others are Debian's");
    }
    let path = PathBuf::from(path);
    if !path.is_file() {
        bail!("{}: no such program", path.display());
    }
    Ok(Program {
        name: COREDNS,
        path: std::fs::canonicalize(path)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_coredns_is_given_by_path() {
        assert_eq!(parse_peer("coredns=/bin/sh").unwrap().name, COREDNS);
        assert!(parse_peer("coredns=/no/such/program").is_err());
        assert!(parse_peer("bind=/bin/sh").is_err());
        assert!(parse_peer("/bin/sh").is_err());
    }
}
