//! `cargo xtask bench path`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use switchyard_bench::path::{Kind, Results, Settings};
use switchyard_tests::testbed::{require_root, require_tools};

use super::{API_SERVER, build_release, release};
use crate::programs::root;

/// Where `--write-docs` puts the drawing and the tables.
const DRAWING: &str = "docs/benchmarks-path.svg";
const TABLES: &str = "docs/benchmarks.md";
/// The tables are between these two lines.
const MARKS: (&str, &str) = ("<!-- bench path: begin -->", "<!-- bench path: end -->");

/// Programs that it runs.
const NEEDED: [&str; 6] = [
    "ip",
    "ipset",
    "nft",
    "timeout",
    "xtables-legacy-multi",
    "xtables-nft-multi",
];

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Numbers of Services, with commas between them
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1000, 10_000, 100_000])]
    services: Vec<usize>,
    /// Who takes part: all if not given (repeatable)
    #[arg(long)]
    mode: Vec<Mode>,
    /// Rounds of all modes, ways and workloads
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds of one slice
    #[arg(long, default_value_t = 250)]
    slice_ms: u64,
    /// Only rows that have this text in `way: workload`, as the tables name them (repeatable)
    #[arg(long, value_name = "TEXT", conflicts_with = "write_docs")]
    only: Vec<String>,
    /// 10 and 1,000 Services, three rounds, slices of 50 ms: to try the bench
    #[arg(long, conflicts_with_all = ["services", "rounds", "slice_ms"])]
    quick: bool,
    /// Feed the cluster by a stand-in API server instead of by manifests
    #[arg(long)]
    api: bool,
    /// The agent to measure, in place of a release build of this folder's
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,
    /// Put tables and drawing into docs/
    #[arg(long)]
    write_docs: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// No proxy, beside the baseline: the noise
    None,
    Ebpf,
    /// ebpf with `--ebpf-forwarding=direct`
    EbpfDirect,
    Nftables,
    /// A table in the shape of the reference's nftables mode
    NftablesShape,
    IptablesNft,
    IptablesLegacy,
}

impl Mode {
    const fn kind(self) -> Kind {
        match self {
            Self::None => Kind::Nothing,
            Self::Ebpf => Kind::Ebpf,
            Self::EbpfDirect => Kind::EbpfDirect,
            Self::Nftables => Kind::Nftables,
            Self::NftablesShape => Kind::NftablesShape,
            Self::IptablesNft => Kind::IptablesNft,
            Self::IptablesLegacy => Kind::IptablesLegacy,
        }
    }
}

/// Measures, and prints the tables.
///
/// # Errors
/// A testbed could not be built, or a proxy stopped answering.
pub(crate) fn run(options: &Options) -> Result<()> {
    require_root()?;
    require_tools(&NEEDED)?;
    if options.proxy.is_none() {
        println!("building switchyard-proxy, release profile");
        build_release("switchyard-proxy", None)?;
    }
    if options.api {
        build_release("switchyard-tests", Some(API_SERVER))?;
    }
    let results = switchyard_bench::path::run(&settings(options)?)?;
    if options.write_docs {
        write_docs(&root()?, &results)?;
    }
    println!("\n{}", results.markdown);
    Ok(())
}

fn settings(options: &Options) -> Result<Settings> {
    let (sizes, rounds, slice_ms) = if options.quick {
        (vec![10, 1000], 3, 50)
    } else {
        (options.services.clone(), options.rounds, options.slice_ms)
    };
    if rounds == 0 || slice_ms == 0 {
        bail!("--rounds and --slice-ms: expected at least 1");
    }
    let kinds = if options.mode.is_empty() {
        Kind::ALL.to_vec()
    } else {
        options.mode.iter().map(|mode| mode.kind()).collect()
    };
    Ok(Settings {
        sizes,
        kinds,
        rounds,
        slice: Duration::from_millis(slice_ms),
        only: options.only.clone(),
        proxy: match &options.proxy {
            Some(path) => path.clone(),
            None => release("switchyard-proxy")?,
        },
        api_server: options.api.then(|| release(API_SERVER)).transpose()?,
    })
}

fn write_docs(root: &Path, results: &Results) -> Result<()> {
    fs::write(root.join(DRAWING), &results.svg).context(DRAWING)?;
    let path = root.join(TABLES);
    let text = fs::read_to_string(&path).context(TABLES)?;
    let text = between_marks(&text, &results.markdown)
        .with_context(|| format!("{TABLES} lacks the lines {} and {}", MARKS.0, MARKS.1))?;
    fs::write(&path, text).context(TABLES)
}

/// `text` with `new` in place of what is between the two marks.
fn between_marks(text: &str, new: &str) -> Option<String> {
    let (before, rest) = text.split_once(MARKS.0)?;
    let (_, after) = rest.split_once(MARKS.1)?;
    Some(format!("{before}{}\n\n{new}\n{}{after}", MARKS.0, MARKS.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let old = format!("a\n{}\n\nold\n\n{}\nb\n", MARKS.0, MARKS.1);
        let new = between_marks(&old, "new\n").unwrap();
        assert_eq!(new, format!("a\n{}\n\nnew\n\n{}\nb\n", MARKS.0, MARKS.1));
        assert_eq!(between_marks(&new, "new\n"), Some(new.clone()));
        assert!(between_marks("a", "new").is_none());
    }
}
