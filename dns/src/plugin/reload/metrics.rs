use std::sync::LazyLock;

use prometheus::{IntGaugeVec, Opts};

use crate::metrics::registry;

/// `None` if another metric has the name, which is logged once.
static VERSIONS: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    let opts = Opts::new(
        "coredns_reload_version_info",
        "1, with the hash of the Corefile in force.",
    );
    let made = IntGaugeVec::new(opts, &["hash", "value"]).and_then(|versions| {
        registry().register(Box::new(versions.clone()))?;
        Ok(versions)
    });
    made.map_err(|error| tracing::error!("plugin/reload: {error}"))
        .ok()
});

/// Makes the metric known.
pub(super) fn register() {
    LazyLock::force(&VERSIONS);
}

/// Shows the hash that is in force now, in hexadecimal, in place of `old`.
pub(crate) fn show_version(old: Option<&str>, new: &str) {
    if let Some(versions) = &*VERSIONS {
        if let Some(old) = old {
            let _may_not_have_been_shown = versions.remove_label_values(&["sha512", old]);
        }
        versions.with_label_values(&["sha512", new]).set(1);
    }
}
