//! What a source says that an operator should hear of, as metrics.

use switchyard_cluster::update::Update;

use crate::metrics::Metrics;

/// Counts what is wrong with an update.
pub(super) fn count(update: &Update, metrics: &Metrics) {
    match update {
        Update::Unreadable(kind, ..) | Update::Odd(kind, ..) => {
            metrics.object_problems.inc(*kind);
        }
        Update::Trouble(kind, trouble) => {
            let in_trouble = u8::from(trouble.is_some());
            metrics.source_trouble.set(*kind, in_trouble.into());
        }
        Update::Malformed(_)
        | Update::ListStarted(_)
        | Update::Upsert(_)
        | Update::Remove(..)
        | Update::ListDone(_) => {}
    }
}
