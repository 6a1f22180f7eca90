//! `switchyard-proxy`: the service proxy of a node.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use switchyard_operation::build::VERSION;
use switchyard_operation::manual;
use switchyard_proxy::agent::{self, End, Reload, StartError};
use switchyard_proxy::explain;
use switchyard_proxy::opt_out::{self, OptOut};
use switchyard_proxy::settings::{Flags, Logging, Settings, configuration};
use tracing_subscriber::EnvFilter;

/// Exit status for bad flags and configuration.
const BAD_USAGE: u8 = 2;
/// From this verbosity on the kernel programs of debug builds tell of their decisions.
#[cfg(kernel_log)]
const PROGRAMS_TELL: u32 = 5;
/// Threads for blocking work: one writes rules, one may be reading a big manifest.
const BLOCKING_THREADS: usize = 4;

/// Say which endpoints packets may reach, by the plan alone.
#[derive(Debug, Parser)]
#[command(name = "switchyard-proxy explain", version = switchyard_proxy::version::TEXT.as_str())]
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
            let Explain { flags, packets } = match Explain::from_arguments(arguments) {
                Ok(explain) => explain,
                Err(error) => error.exit(),
            };
            with_settings(&flags, &host_name(), "warn", |settings| {
                block_on(explain::run(&settings, &packets)).map_err(|error| failed(&error, false))
            })
        }
        Some("opt-out") => {
            arguments.remove(1);
            opt_out::run(&OptOut::parse_from(arguments))
                .map_or_else(|error| failed(&error, false), |()| ExitCode::SUCCESS)
        }
        Some(name) if manual::is_command(name) => {
            let written = manual::run(program(), arguments);
            written.map_or_else(|error| failed(&error, false), |()| ExitCode::SUCCESS)
        }
        command => {
            // `run` is what the program does anyway.
            if command == Some("run") {
                arguments.remove(1);
            }
            match Flags::from_arguments(arguments) {
                Ok(flags) => run(&flags),
                Err(error) => error.exit(),
            }
        }
    }
}

/// The whole command line, as the manual and completions have it.
fn program() -> clap::Command {
    let named = |command: clap::Command, name: &'static str| command.name(name).version(VERSION);
    Flags::command()
        .subcommand(named(Explain::command(), "explain"))
        .subcommand(named(OptOut::command(), "opt-out"))
}

impl Explain {
    fn from_arguments(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let command = Self::command();
        let matches = command.clone().try_get_matches_from(arguments)?;
        let mut explain = Self::from_arg_matches(&matches)?;
        explain.flags.note_given(&command, &matches);
        Ok(explain)
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

/// The agent, or one of the short tasks that take its settings.
fn run(flags: &Flags) -> ExitCode {
    let host_name = host_name();
    // Before the file is read for the first time: no change is missed.
    let reload = Reload::new(flags, &host_name);
    let mut end = End::Stopped;
    let code = with_settings(flags, &host_name, "info", |settings| {
        if let Some(file) = &flags.write_config_to {
            return write_configuration(&settings, file);
        }
        if flags.cleanup {
            return agent::cleanup(&settings.ebpf.bpf_root).map_err(|error| failed(&error, false));
        }
        if flags.init_only {
            return agent::init(&settings).map_err(|error| failed(&error, false));
        }
        end = block_on(agent::run(settings, reload))
            .map_err(|error| failed(&error, matches!(error, StartError::Source(_))))?;
        Ok(())
    });
    match end {
        End::Stopped => code,
        End::Restart => restart(),
    }
}

/// The same program with the same arguments in the same process: all but the kernel's rules is
/// made anew.
fn restart() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut again = std::process::Command::new("/proc/self/exe");
    let error = again.arg0(name).args(arguments).exec();
    eprintln!("switchyard-proxy: restarting: {error}");
    ExitCode::FAILURE
}

fn write_configuration(settings: &Settings, file: &Path) -> Result<(), ExitCode> {
    let text = configuration::yaml(&settings.configuration).map_err(io::Error::other);
    text.and_then(|text| std::fs::write(file, text))
        .map_err(|error| {
            eprintln!("switchyard-proxy: writing {}: {error}", file.display());
            ExitCode::FAILURE
        })?;
    tracing::info!(file = %file.display(), "wrote the configuration");
    Ok(())
}

/// Reads the settings and starts the log, which depends on them.
fn with_settings(
    flags: &Flags,
    host_name: &str,
    quiet: &'static str,
    act: impl FnOnce(Settings) -> Result<(), ExitCode>,
) -> ExitCode {
    let (settings, notices) = match Settings::read(flags, host_name) {
        Ok(read) => read,
        Err(errors) => {
            for error in errors {
                eprintln!("switchyard-proxy: {error}");
            }
            return ExitCode::from(BAD_USAGE);
        }
    };
    start_logging(settings.logging, quiet);
    notices.log();
    act(settings).map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

/// One thread for everything that waits; blocking work (running iptables) gets its own.
fn block_on<T, E: From<StartError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
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

fn start_logging(logging: Logging, quiet: &'static str) {
    let level = match logging.verbosity {
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
        let level = if logging.verbosity >= PROGRAMS_TELL {
            "debug"
        } else {
            "info"
        };
        filter.add_directive(directive(TARGET, level))
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    if logging.json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}

fn directive(target: &str, level: &str) -> tracing_subscriber::filter::Directive {
    let parsed = format!("{target}={level}").parse();
    parsed.unwrap_or_else(|_| tracing_subscriber::filter::LevelFilter::INFO.into())
}
