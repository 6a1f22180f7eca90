//! `switchyard-proxy`: the service proxy of a node.

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use switchyard_proxy::agent::{self, StartError};
use switchyard_proxy::settings::{Flags, Settings};
use tracing_subscriber::EnvFilter;

/// Exit status for bad flags and configuration.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    // `run` is what the program does anyway.
    if arguments.get(1).is_some_and(|first| first == "run") {
        arguments.remove(1);
    }
    let flags = Flags::parse_from(arguments);
    start_logging(&flags);
    if flags.cleanup {
        return match agent::cleanup() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let settings = match Settings::from_flags(&flags, &host_name) {
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
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// One thread for everything that waits; blocking work (running iptables) gets its own.
fn run(settings: Settings) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|source| StartError::System {
            what: "starting the runtime",
            source,
        })?;
    runtime.block_on(agent::run(settings))
}

fn failed(error: &StartError) -> ExitCode {
    eprintln!("switchyard-proxy: {error}");
    match error {
        StartError::Source(_) => ExitCode::from(BAD_USAGE),
        _ => ExitCode::FAILURE,
    }
}

fn start_logging(flags: &Flags) {
    let level = match flags.verbosity {
        0 | 1 => "info",
        2..=5 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::builder().parse_lossy(format!("warn,switchyard={level}"));
    let filter = filter.add_directive(directive("switchyard_proxy", level));
    let filter = filter.add_directive(directive("switchyard_cluster", level));
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
