//! `cargo xtask demo`: a cluster of network namespaces, the proxy and the DNS server in it, real requests.

mod ask;
mod dns;
mod keep;
mod servers;
mod visit;

use std::path::{Path, PathBuf};

use self::dns::Dns;
use anyhow::{Context, Result, bail};
use switchyard_tests::testbed::{Place, Proxy, ProxyOptions, Testbed};

use crate::programs::{self, cargo, root};
use crate::setup;

/// How the demo is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave the cluster up and say how to enter it
    #[arg(long)]
    keep: bool,
    /// End a cluster that --keep left up
    #[arg(long, conflicts_with = "keep")]
    end: bool,
    /// Backend of the proxy
    #[arg(long, default_value = "iptables")]
    proxy_mode: String,
    /// The process that holds a kept cluster (started by --keep)
    #[arg(long, hide = true)]
    hold: bool,
}

/// Makes the cluster, shows what it does, and removes it (or leaves it up).
///
/// # Errors
/// Something could not be started, or a request was not answered as it must be.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.end {
        return keep::end();
    }
    if options.hold {
        return keep::hold(&options.proxy_mode);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes network namespaces and needs root");
    }
    setup::run()?;
    println!("building switchyard-proxy and switchyard-dns");
    programs::run(cargo(&[
        "build",
        "--quiet",
        "-p",
        "switchyard-proxy",
        "-p",
        "switchyard-dns",
    ])?)?;
    if options.keep {
        return keep::start(&options.proxy_mode);
    }
    let cluster = Cluster::start(&options.proxy_mode)?;
    let shown = cluster.show();
    if shown.is_err() {
        cluster.print_logs();
    }
    drop(cluster);
    println!("\nEverything is removed again.");
    shown
}

/// The namespaces with a proxy on each node and a server behind each endpoint.
struct Cluster {
    /// Ended before the namespaces go: fields are dropped in their order.
    proxies: Vec<Proxy>,
    dns: Dns,
    bed: Testbed,
}

impl Cluster {
    fn start(proxy_mode: &str) -> Result<Self> {
        let manifests = manifests()?;
        println!("making two nodes, four pods and two clients outside, each a network namespace");
        let bed = Testbed::build()?;
        answer_clients_directly(&bed)?;
        let endpoints = servers::start(&bed, &manifests)?;
        println!("{endpoints} endpoints answer; starting switchyard-dns in a pod");
        let dns = Dns::start(&bed, &manifests)?;
        println!("starting switchyard-proxy on both nodes");
        let mut cluster = Self {
            proxies: Vec::new(),
            dns,
            bed,
        };
        for node in [Place::Node1, Place::Node2] {
            let mut options = ProxyOptions::new(&cluster.bed, &manifests, proxy_mode)?;
            options.node = node;
            if options.roots.is_some() {
                options.roots = Some(cluster.bed.ebpf_roots_of(node)?);
            }
            options.log = cluster.bed.work_dir().join(format!("proxy-{node}.log"));
            options.binary = built("switchyard-proxy")?;
            let proxy = Proxy::start(&cluster.bed, options)
                .with_context(|| format!("the proxy on {node}"))?;
            cluster.proxies.push(proxy);
        }
        Ok(cluster)
    }

    /// Sends requests and DNS queries, and prints what comes of them.
    fn show(&self) -> Result<()> {
        let visited = visit::run(&self.bed);
        ask::run(&self.bed).and(visited)
    }

    fn print_logs(&self) {
        println!("\nlog of the DNS servers:\n{}", self.dns.log_tail());
        for proxy in &self.proxies {
            let options = proxy.options();
            println!(
                "\nlog of the proxy on {}:\n{}",
                options.node,
                proxy.log_tail(40)
            );
        }
    }
}

/// The testbed sends what node2 answers to clients through node1, for tests in which only
/// node1 has a proxy. Here node2 has one too, and answers for itself.
fn answer_clients_directly(bed: &Testbed) -> Result<()> {
    for (family, net) in [
        ("-4", "198.51.100.0/25"),
        ("-4", "198.51.100.128/25"),
        ("-6", "2001:db8:51::/121"),
        ("-6", "2001:db8:51::100/120"),
    ] {
        let delete = ["ip", family, "route", "del", net];
        bed.run(Place::Node2, &delete, "")?
            .success(&delete.join(" "))?;
    }
    Ok(())
}

fn manifests() -> Result<PathBuf> {
    Ok(root()?.join("deploy/demo"))
}

/// A program that was just built.
fn built(name: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || root().map(|root| root.join("target")),
        |dir| Ok(Path::new(&dir).to_owned()),
    )?;
    Ok(target.join("debug").join(name))
}
