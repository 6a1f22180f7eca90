//! `cargo xtask bench proxy`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use switchyard_bench::cluster::Size;
use switchyard_bench::markdown;
use switchyard_bench::proxy::{Measured, measure};
use switchyard_bench::source::{ApiServer, Manifests, Source};
use switchyard_bench::subject::Launch;
use switchyard_tests::testbed::{IptablesTool, Testbed};

use super::{API_SERVER, build_release, release};
use crate::setup;

/// A cluster as small as many are.
const SMALL: Size = Size {
    services: 10,
    endpoints: 25,
};

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Services of the large cluster
    #[arg(long, default_value_t = 5000)]
    services: usize,
    /// Endpoints of the large cluster, over all its Services
    #[arg(long, default_value_t = 12_500)]
    endpoints: usize,
    /// A kube-proxy binary to measure beside ours
    #[arg(long, value_name = "PATH")]
    peer: Option<PathBuf>,
    /// Feed the cluster by a stand-in API server instead of by manifests (always with --peer)
    #[arg(long)]
    api: bool,
    /// Which iptables tool; both if not given
    #[arg(long)]
    tool: Option<Tool>,
    /// The proxy mode
    #[arg(long, default_value = "iptables")]
    mode: Mode,
    /// The agent to measure, in place of a release build of this folder's
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,
    /// Leave out the cluster of 10 Services
    #[arg(long)]
    no_small: bool,
}

impl Options {
    /// kube-proxy reads no manifests, and both must have the same source.
    const fn needs_api(&self) -> bool {
        self.api || self.peer.is_some()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Iptables,
    Nftables,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Tool {
    Nft,
    Legacy,
}

/// Measures and prints the tables.
///
/// # Errors
/// A subject could not be started or did not do its work in time.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the bench makes network namespaces and needs root");
    }
    setup::run()?;
    if options.proxy.is_none() {
        println!("building switchyard-proxy, release profile");
        build_release("switchyard-proxy", None)?;
    }
    if options.needs_api() {
        build_release("switchyard-tests", Some(API_SERVER))?;
    }
    let large = Size {
        services: options.services,
        endpoints: options.endpoints,
    };
    let tools = match options.tool {
        Some(Tool::Nft) => vec![IptablesTool::Nft],
        Some(Tool::Legacy) => vec![IptablesTool::Legacy],
        // Other modes use neither but to remove what iptables mode left.
        None if options.mode != Mode::Iptables => vec![IptablesTool::Nft],
        None => IptablesTool::ALL.to_vec(),
    };
    let mut tables = Vec::new();
    for tool in tools {
        for size in std::iter::once(large).chain((!options.no_small).then_some(SMALL)) {
            tables.push(table(options, tool, size)?);
        }
    }
    println!("\n{}", tables.join("\n"));
    Ok(())
}

fn table(options: &Options, tool: IptablesTool, size: Size) -> Result<String> {
    let ours = match &options.proxy {
        Some(path) => path.clone(),
        None => release("switchyard-proxy")?,
    };
    let mode = options.mode.name();
    let what = match options.mode {
        Mode::Iptables => tool.name(),
        Mode::Nftables => mode,
    };
    let mut subjects = vec![("switchyard-proxy", ours.as_path())];
    if let Some(peer) = &options.peer {
        subjects.push(("kube-proxy", peer));
    }
    let mut results = Vec::new();
    for (name, binary) in subjects {
        println!("measuring {name}: {} Services, {what}", size.services);
        let bed = Testbed::build()?;
        let source: Box<dyn Source> = if options.needs_api() {
            Box::new(ApiServer::start(&bed, &release(API_SERVER)?, size)?)
        } else {
            Box::new(Manifests::write(&bed, size)?)
        };
        let launch = Launch::new(name, binary.to_owned(), tool, &source.flags()).mode(mode, &[]);
        let measured: Measured = measure(&bed, &launch, source.as_ref())
            .with_context(|| format!("{name} with {what}"))?;
        results.push((name.to_owned(), measured));
    }
    Ok(markdown(size, what, &results))
}
