use std::path::Path;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntGaugeVec, Opts};

use crate::metrics::registry;

/// The two gauges; `None` if a name is taken, which is a mistake in the code and logged.
static GAUGES: LazyLock<Option<(IntGaugeVec, Gauge)>> = LazyLock::new(|| match gauges() {
    Ok(gauges) => Some(gauges),
    Err(error) => {
        tracing::error!(%error, "the metrics of hosts can't be served");
        None
    }
});

fn gauges() -> Result<(IntGaugeVec, Gauge), prometheus::Error> {
    let help = "Records known from the hosts file and the Corefile.";
    let entries = IntGaugeVec::new(Opts::new("coredns_hosts_entries", help), &["hostsfile"])?;
    let help = "When the hosts file that was read last was changed, in Unix seconds.";
    let changed = Gauge::new("coredns_hosts_reload_timestamp_seconds", help)?;
    registry().register(Box::new(entries.clone()))?;
    registry().register(Box::new(changed.clone()))?;
    Ok((entries, changed))
}

/// Makes the gauges known, also before a file is read.
pub(super) fn register() {
    LazyLock::force(&GAUGES);
}

/// The file was read.
pub(super) fn read(path: &Path, records: u32, time: SystemTime) {
    let Some((entries, changed)) = &*GAUGES else {
        return;
    };
    let path = path.display().to_string();
    entries.with_label_values(&[&path]).set(records.into());
    if let Ok(since) = time.duration_since(UNIX_EPOCH) {
        changed.set(since.as_secs_f64());
    }
}
