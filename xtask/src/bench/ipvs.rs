//! `cargo xtask bench ipvs`: in a guest, since few machines have IPVS.

use std::path::PathBuf;

use anyhow::{Context, Result};
use switchyard_bench::cluster::Size;
use switchyard_bench::ipvs::measure;

use super::{build_release, release};
use crate::programs::{command, run as run_command};
use crate::vm::kernel::Version;

/// The guest's end, in seconds.
const GUEST_SECONDS: u32 = 900;
/// The guest's memory, in MiB: unstripped programs are in it.
const GUEST_MEMORY_MIB: u32 = 2048;

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Services
    #[arg(long, default_value_t = 5000)]
    services: usize,
    /// Endpoints, over all Services
    #[arg(long, default_value_t = 12_500)]
    endpoints: usize,
    /// The guest's kernel
    #[arg(long, value_enum, default_value_t = Version::V6_1)]
    kernel: Version,
    /// The agent to measure, in place of a release build of this folder's
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,
    /// Measure on this very machine: what runs in the guest
    #[arg(long, hide = true)]
    here: bool,
}

/// Measures in a guest, and prints the table.
///
/// # Errors
/// There is no guest to be had, or the agent did not do its work in time.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.here {
        let size = Size {
            services: options.services,
            endpoints: options.endpoints,
        };
        println!("{}", measure(size)?);
        return Ok(());
    }
    let proxy = match &options.proxy {
        Some(path) => path.canonicalize().context("--proxy")?,
        None => {
            println!("building switchyard-proxy, release profile");
            build_release("switchyard-proxy", None)?;
            release("switchyard-proxy")?
        }
    };
    let own = std::env::current_exe()?;
    let mut guest = command(&own)?;
    guest.env("SWITCHYARD_PROXY_BIN", &proxy);
    guest.args(["vm", "--kernel", options.kernel.name()]);
    guest.args(["--seconds", &GUEST_SECONDS.to_string()]);
    guest.args(["--memory-mib", &GUEST_MEMORY_MIB.to_string()]);
    guest.arg("--with").arg(&proxy);
    guest.arg("--").arg(&own).args(["bench", "ipvs", "--here"]);
    guest.args(["--services", &options.services.to_string()]);
    guest.args(["--endpoints", &options.endpoints.to_string()]);
    run_command(guest)
}
