//! Set-up, demo, test and bench commands: `cargo xtask help`.

mod bench;
mod demo;
mod image;
mod programs;
mod setup;
mod test;
mod vm;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, demo, test and bench commands of Switchyard"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the programs that tests and demo need and this machine lacks
    Setup(setup::Options),
    /// Check everything: format, lints, licences, and all tests
    Test(test::Options),
    /// Make a cluster of network namespaces, run the proxy in it and send it real requests
    Demo(demo::Options),
    /// Run a command as root on another kernel, in a guest without network and disk
    Vm(vm::Options),
    /// Make OCI images of both programs, of Debian packages and a release build
    Image(image::Options),
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand)]
enum Bench {
    /// The proxy with a large and a small cluster, beside kube-proxy where one is given
    Proxy(bench::proxy::Options),
    /// What a connection and a request cost on each way to a Service, beside the same without one
    Path(bench::path::Options),
    /// The proxy's ipvs mode beside `ipvsadm --restore` and `ipset restore`, in a guest
    Ipvs(bench::ipvs::Options),
    /// DNS: cluster names and cached names, beside servers of Debian's, and CoreDNS where given
    Dns(bench::dns::Options),
    /// Send each query back: the least a DNS server can cost (started by `bench dns`)
    #[command(hide = true)]
    Echo { address: SocketAddr },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup(options) => setup::run_with(&options),
        Command::Test(options) => test::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Image(options) => image::run(&options),
        // Its exit status is the command's.
        Command::Vm(options) => return vm::run(&options),
        Command::Bench(Bench::Proxy(options)) => bench::proxy::run(&options),
        Command::Bench(Bench::Path(options)) => bench::path::run(&options),
        Command::Bench(Bench::Ipvs(options)) => bench::ipvs::run(&options),
        Command::Bench(Bench::Dns(options)) => bench::dns::run(&options),
        Command::Bench(Bench::Echo { address }) => switchyard_bench::dns::serve_echo(address),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
