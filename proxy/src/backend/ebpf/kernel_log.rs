//! What programs of debug builds tell of their decisions (aya-log), into our own log.
//!
//! Such a build carries the programs twice. Those that tell are loaded where somebody would read it
//! ([`TARGET`] at debug level); all others are the same as in release builds.

use aya::include_bytes_aligned;
use aya_log::EbpfLogger;

/// What log filters know these lines by.
pub const TARGET: &str = "switchyard_proxy::programs";

/// The programs that tell, built by build.rs.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs-log.o"));

/// The programs that tell of their decisions, as an ELF object: see [`super::object`].
#[must_use]
pub fn telling_object() -> &'static [u8] {
    OBJECT
}

/// Whether anybody would read what they tell.
pub(super) fn is_wanted() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Reads what the programs of one set tell; nothing where they are not those that tell.
pub(super) struct KernelLog(Option<EbpfLogger<ToTracing>>);

impl std::fmt::Debug for KernelLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KernelLog").field(&self.0.is_some()).finish()
    }
}

impl KernelLog {
    pub(super) fn of(object: &mut aya::Ebpf) -> Self {
        Self(EbpfLogger::init_with_logger(object, ToTracing).ok())
    }

    /// Logs what is new.
    pub(super) fn tell(&mut self) {
        if let Some(log) = &mut self.0 {
            log.flush();
        }
    }
}

/// aya-log knows the `log` crate only.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        is_wanted()
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: TARGET, "{}", record.args());
    }

    fn flush(&self) {}
}
