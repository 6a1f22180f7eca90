//! The log as the reference writes it: `[INFO] message`, one line each, on standard output.

use std::fmt;
use std::io;
use std::sync::OnceLock;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What is logged of whom, apart from our own rooms.
const OTHERS: &str = "warn,kube_runtime=error,kube_client=error";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins to log. A second call changes nothing.
pub fn start() {
    let (filter, handle) = reload::Layer::new(filter(false));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines)
        .with_ansi(false)
        .with_writer(io::stdout);
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if started.is_ok() {
        let _first_wins = FILTER.set(handle);
    }
}

/// Whether `[DEBUG]` lines are written (`debug` in the Corefile).
pub fn set_debug(debug: bool) {
    if let Some(handle) = FILTER.get() {
        let _only_fails_when_logging_has_ended = handle.reload(filter(debug));
    }
}

fn filter(debug: bool) -> EnvFilter {
    let level = if debug { "debug" } else { "info" };
    EnvFilter::new(format!(
        "{OTHERS},switchyard_dns={level},switchyard_cluster={level}"
    ))
}

struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        write!(writer, "[{level}] ")?;
        context.format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}
