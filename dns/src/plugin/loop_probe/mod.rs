//! `loop`: finds out at start whether queries come back to us. See the README.

mod probe;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::{Exchange, Fatal, Plugin, Position, Setup, Step};
use crate::corefile::ConfigError;
use crate::wire::{Name, Rcode, Rtype};

/// How often the probe may be seen: when it leaves, and once more for a client that repeats
/// it. From the next time on it went in a circle.
const PROBE_SIGHTINGS_MAX: u32 = 2;

/// `loop`
///
/// # Errors
/// If it has arguments or options, or its block's zone is too long for a probe.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_args()?;
    line.no_body()?;
    let Some(ours) = own_address(setup) else {
        // A block for TLS alone is not asked over UDP, and no resolv.conf can lead to it.
        return Ok(Vec::new());
    };
    let zone = setup.block.zones.first().map_or(".", String::as_str);
    let name = format!("{}.{}.{zone}", fastrand::u64(..), fastrand::u64(..));
    let name = Name::from_text(name.trim_end_matches('.'))
        .map_err(|error| line.error(error.to_string()))?;
    let watch = Arc::new(Watch {
        zone: zone.to_owned(),
        name: name.to_lower(),
        ours,
        seen: AtomicU32::new(0),
        is_over: AtomicBool::new(false),
        fatal: setup.environment.fatal.clone(),
    });
    Ok(vec![Arc::new(LoopProbe {
        watch,
        probing: Mutex::new(None),
    })])
}

/// Where the block listens for plain DNS; `None` if it does not.
fn own_address(setup: &Setup<'_>) -> Option<SocketAddr> {
    let label = setup.block.server.strip_prefix("dns://")?;
    let port = label.rsplit_once(':')?.1.parse().ok()?;
    let bound = setup.block.bind.first().copied();
    let address = bound
        .filter(|address| !address.is_unspecified())
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Some(SocketAddr::new(address, port))
}

/// What is looked out for.
#[derive(Debug)]
struct Watch {
    zone: String,
    /// The probe's name, which nobody else asks for, in lower case.
    name: Name,
    ours: SocketAddr,
    seen: AtomicU32,
    /// The time in which probes may come is over.
    is_over: AtomicBool,
    fatal: Fatal,
}

#[derive(Debug)]
struct LoopProbe {
    watch: Arc<Watch>,
    probing: Mutex<Option<JoinHandle<()>>>,
}

impl Plugin for LoopProbe {
    fn name(&self) -> &'static str {
        "loop"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let watch = &self.watch;
        if exchange.question.rtype != Rtype::HINFO
            || watch.is_over.load(Ordering::Relaxed)
            || *exchange.question.lower() != watch.name
        {
            return Step::Next;
        }
        if watch.seen.fetch_add(1, Ordering::Relaxed) < PROBE_SIGHTINGS_MAX {
            return Step::Next;
        }
        // In the words that operators search their logs for.
        watch.fatal.end_process(format!(
            "plugin/loop: Loop ({} -> {}) detected for zone {:?}, \
             see https://coredns.io/plugins/loop#troubleshooting. Query: \"HINFO {}\"",
            exchange.request.source, watch.ours, watch.zone, watch.name
        ));
        Step::Fail(Rcode::SERVFAIL)
    }

    fn start(&self) {
        let task = tokio::spawn(probe::run(Arc::clone(&self.watch)));
        let mut probing = self.probing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = probing.replace(task) {
            before.abort();
        }
    }
}

impl Drop for LoopProbe {
    fn drop(&mut self) {
        let probing = self
            .probing
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = probing.take() {
            task.abort();
        }
    }
}
