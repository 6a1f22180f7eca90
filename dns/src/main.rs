//! `switchyard-dns`: see `docs/dns.md`.

use std::ffi::OsString;
use std::num::NonZero;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory as _;
use switchyard_dns::agent::{self, End};
use switchyard_dns::flags::Flags;
use switchyard_dns::logging;
use switchyard_dns::plugin::registry::{self, Support};
use switchyard_operation::manual;

/// Exit status for bad flags and configuration, and for an end by force.
const BAD_USAGE: u8 = 2;
/// Threads for what has to wait, at most; the threads of UDP sockets come on top.
const WORKERS_MAX: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = arguments.get(1).and_then(|first| first.to_str());
    if !command.is_some_and(manual::is_command) {
        return run(arguments);
    }
    match manual::run(Flags::command(), arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchyard-dns: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<OsString>) -> ExitCode {
    let flags = match Flags::from_arguments(arguments) {
        Ok(flags) => flags,
        Err(error) => error.exit(),
    };
    if flags.version {
        print!("{}", agent::version());
        return ExitCode::SUCCESS;
    }
    if flags.plugins {
        list_plugins();
        return ExitCode::SUCCESS;
    }
    logging::start();
    let unused = flags.unused.given();
    if !unused.is_empty() {
        tracing::warn!("these flags have no effect here: -{}", unused.join(" -"));
    }
    match serve(&flags) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("switchyard-dns: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(flags: &Flags) -> anyhow::Result<ExitCode> {
    // Follows the quota of the control group.
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Half of them: workers that wake each other cost more than one that is busy.
        .worker_threads((cpus / 2).clamp(1, WORKERS_MAX))
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let end = match runtime.block_on(agent::run(flags)) {
        Err(error) if error.is_bad_configuration() => {
            eprintln!("switchyard-dns: {error}");
            return Ok(ExitCode::from(BAD_USAGE));
        }
        end => end?,
    };
    // Nobody waits for what is still under way.
    runtime.shutdown_background();
    Ok(match end {
        End::Done => ExitCode::SUCCESS,
        End::Forced => ExitCode::from(BAD_USAGE),
    })
}

fn list_plugins() {
    println!("Server types:\n  dns\n\nOther plugins:");
    for entry in registry::ENTRIES {
        match entry.support {
            Support::Ours(_) => println!("  dns.{}", entry.name),
            Support::LeftOut(missing) => {
                println!("  dns.{} (accepted and left out: {missing})", entry.name);
            }
            Support::Refused(_) => {}
        }
    }
}
