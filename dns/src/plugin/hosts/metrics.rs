use std::path::Path;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, GaugeVec, IntGaugeVec, Opts};

use crate::metrics::registry;

static ENTRIES: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    let help = "Records known from the hosts file and the Corefile.";
    let entries =
        IntGaugeVec::new(Opts::new("coredns_hosts_entries", help), &["hostsfile"]).ok()?;
    registry().register(Box::new(entries.clone())).ok()?;
    Some(entries)
});

static RELOADED: LazyLock<Option<Gauge>> = LazyLock::new(|| {
    let help = "When the hosts file that was read last was changed, in Unix seconds.";
    let reloaded = Opts::new("coredns_hosts_reload_timestamp_seconds", help);
    let reloaded = GaugeVec::new(reloaded, &[]).ok()?;
    registry().register(Box::new(reloaded.clone())).ok()?;
    reloaded.get_metric_with_label_values::<&str>(&[]).ok()
});

/// The file was read.
pub(super) fn read(path: &Path, entries: u32, changed: SystemTime) {
    if let Some(gauge) = &*ENTRIES {
        let path = path.display().to_string();
        gauge.with_label_values(&[&path]).set(entries.into());
    }
    if let (Some(gauge), Ok(since)) = (&*RELOADED, changed.duration_since(UNIX_EPOCH)) {
        gauge.set(since.as_secs_f64());
    }
}
