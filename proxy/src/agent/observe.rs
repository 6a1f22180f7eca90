//! What a source says that an operator should hear of.

use switchyard_cluster::update::Update;

use crate::metrics::Metrics;

/// Logs and counts what is wrong with an update.
pub(super) fn report(update: &Update, metrics: &Metrics) {
    match update {
        Update::Unreadable(kind, name, problem) => {
            metrics.object_problems.inc(*kind);
            tracing::warn!(
                object = %format_args!("{kind} {name}"), %problem,
                "object can't be used; its last good form, if any, stays"
            );
        }
        Update::Odd(kind, name, problem) => {
            metrics.object_problems.inc(*kind);
            tracing::warn!(
                object = %format_args!("{kind} {name}"), %problem,
                "part of an object can't be used and is left out"
            );
        }
        Update::Malformed(problem) => {
            tracing::error!(%problem, "input can't be read; its last good content stays");
        }
        Update::Trouble(kind, Some(reason)) => {
            metrics.source_trouble.set(*kind, 1);
            tracing::warn!(%kind, %reason, "can't follow these objects; what is known stays");
        }
        Update::Trouble(kind, None) => {
            metrics.source_trouble.set(*kind, 0);
            tracing::info!(%kind, "these objects can be followed again");
        }
        Update::ListStarted(_) | Update::Upsert(_) | Update::Remove(..) | Update::ListDone(_) => {}
    }
}
