//! `switchyard-proxy`: the service proxy of a node.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use switchyard_proxy::agent::{self, StartError};
use switchyard_proxy::explain;
use switchyard_proxy::opt_out::{self, OptOut};
use switchyard_proxy::settings::{Flags, Settings};
use tracing_subscriber::EnvFilter;

/// Exit status for bad flags and configuration.
const BAD_USAGE: u8 = 2;
/// From this verbosity on the kernel programs of debug builds tell of their decisions.
#[cfg(kernel_log)]
const PROGRAMS_TELL: u8 = 5;
/// Threads for blocking work: one writes rules, one may be reading a big manifest.
const BLOCKING_THREADS: usize = 4;

/// `switchyard-proxy explain`.
#[derive(Debug, Parser)]
#[command(name = "switchyard-proxy explain", version)]
struct Explain {
    #[command(flatten)]
    flags: Flags,
    /// FROM[@INTERFACE]>TO:PORT[/PROTOCOL]; without any, one a line from standard input.
    /// Without INTERFACE, the node itself sends the packet
    packets: Vec<String>,
}

/// A half-dead agent is worse than a restarted one; the rules stay in the kernel.
fn abort_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}

fn main() -> ExitCode {
    abort_on_panic();
    switchyard_kernel::keep_heaps_short();
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let command = arguments.get(1).and_then(|first| first.to_str());
    match command {
        Some("explain") => {
            arguments.remove(1);
            let Explain { flags, packets } = Explain::parse_from(arguments);
            start_logging(&flags, "warn");
            with_settings(&flags, |settings| {
                block_on(explain::run(&settings, &packets)).map_err(|error| failed(&error, false))
            })
        }
        Some("opt-out") => {
            arguments.remove(1);
            opt_out::run(&OptOut::parse_from(arguments))
                .map_or_else(|error| failed(&error, false), |()| ExitCode::SUCCESS)
        }
        command => {
            // `run` is what the program does anyway.
            if command == Some("run") {
                arguments.remove(1);
            }
            let flags = Flags::parse_from(arguments);
            start_logging(&flags, "info");
            if flags.cleanup {
                return agent::cleanup(&flags.bpf_root)
                    .map_or_else(|error| failed(&error, false), |()| ExitCode::SUCCESS);
            }
            with_settings(&flags, |settings| {
                block_on(agent::run(settings))
                    .map_err(|error| failed(&error, matches!(error, StartError::Source(_))))
            })
        }
    }
}

fn with_settings(flags: &Flags, act: impl FnOnce(Settings) -> Result<(), ExitCode>) -> ExitCode {
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let settings = match Settings::from_flags(flags, &host_name) {
        Ok(settings) => settings,
        Err(errors) => {
            for error in errors {
                eprintln!("switchyard-proxy: {error}");
            }
            return ExitCode::from(BAD_USAGE);
        }
    };
    let unused = flags.unused.given();
    if !unused.is_empty() {
        tracing::warn!(flags = unused.join(" "), "these flags have no effect here");
    }
    act(settings).map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

/// One thread for everything that waits; blocking work (running iptables) gets its own.
fn block_on<E: From<StartError>>(work: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|source| StartError::System {
            what: "starting the runtime",
            source,
        })?;
    runtime.block_on(work)
}

fn failed(error: &dyn std::error::Error, bad_usage: bool) -> ExitCode {
    eprintln!("switchyard-proxy: {error}");
    if bad_usage {
        ExitCode::from(BAD_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

fn start_logging(flags: &Flags, quiet: &'static str) {
    let level = match flags.verbosity {
        0 | 1 => quiet,
        2..=5 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::builder().parse_lossy("warn,kube_runtime=error,kube_client=error");
    let filter = filter.add_directive(directive("switchyard_proxy", level));
    let filter = filter.add_directive(directive("switchyard_cluster", level));
    #[cfg(kernel_log)]
    let filter = {
        use switchyard_proxy::backend::ebpf::kernel_log::TARGET;
        let level = if flags.verbosity >= PROGRAMS_TELL {
            "debug"
        } else {
            "info"
        };
        filter.add_directive(directive(TARGET, level))
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    if flags.logging_format == "json" {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}

fn directive(target: &str, level: &str) -> tracing_subscriber::filter::Directive {
    let parsed = format!("{target}={level}").parse();
    parsed.unwrap_or_else(|_| tracing_subscriber::filter::LevelFilter::INFO.into())
}
