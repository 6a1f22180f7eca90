use prometheus::{IntCounterVec, Opts};

use crate::metrics::registry;

/// A family of counters in the process' registry; `None` if the name is taken, which is a
/// mistake in the code and then logged.
pub(crate) fn counter_vec(name: &str, help: &str, labels: &[&str]) -> Option<IntCounterVec> {
    let registered = IntCounterVec::new(Opts::new(name, help), labels).and_then(|family| {
        registry().register(Box::new(family.clone()))?;
        Ok(family)
    });
    match registered {
        Ok(family) => Some(family),
        Err(error) => {
            tracing::error!(name, %error, "a metric can't be served");
            None
        }
    }
}
