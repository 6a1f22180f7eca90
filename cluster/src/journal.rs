//! What a source says that an operator should hear of.

use std::time::{Duration, Instant};

use crate::update::Update;

/// Problems of objects that are told within [`WINDOW`]; the rest are counted. A cluster full
/// of one kind of mistake must not fill the log.
const PROBLEMS_PER_WINDOW: usize = 50;
/// See [`PROBLEMS_PER_WINDOW`].
const WINDOW: Duration = Duration::from_secs(10);

/// Logs what is wrong with objects, and whether they can be followed.
#[derive(Debug, Default)]
pub struct Journal {
    window_began: Option<Instant>,
    told: usize,
    untold: usize,
}

impl Journal {
    /// Logs what there is to say about an update, which is nothing for most.
    pub fn tell(&mut self, update: &Update) {
        match update {
            Update::Unreadable(kind, name, problem) if self.may_tell() => {
                tracing::warn!(
                    object = %format_args!("{kind} {name}"), %problem,
                    "object can't be used; its last good form, if any, stays"
                );
            }
            Update::Odd(kind, name, problem) if self.may_tell() => {
                tracing::warn!(
                    object = %format_args!("{kind} {name}"), %problem,
                    "part of an object can't be used and is left out"
                );
            }
            Update::Malformed(problem) if self.may_tell() => {
                tracing::error!(%problem, "input can't be read; its last good content stays");
            }
            Update::Trouble(kind, Some(reason)) => {
                tracing::warn!(%kind, %reason, "can't follow these objects; what is known stays");
            }
            Update::Trouble(kind, None) => {
                tracing::info!(%kind, "these objects can be followed again");
            }
            _ => {}
        }
    }

    /// Whether one more problem may be told now. Says itself when there are too many.
    fn may_tell(&mut self) -> bool {
        let over = self
            .window_began
            .is_none_or(|began| began.elapsed() >= WINDOW);
        if over {
            if self.untold > 0 {
                tracing::warn!("{} more problems of objects were not told", self.untold);
            }
            *self = Self {
                window_began: Some(Instant::now()),
                ..Self::default()
            };
        }
        if self.told < PROBLEMS_PER_WINDOW {
            self.told += 1;
            return true;
        }
        if self.untold == 0 {
            let seconds = WINDOW.as_secs();
            tracing::warn!("too many problems of objects: for {seconds} s they are only counted");
        }
        self.untold += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_problems_is_counted_and_told_again_later() {
        let mut journal = Journal::default();
        let told = (0..1000).filter(|_| journal.may_tell()).count();
        assert_eq!(told, PROBLEMS_PER_WINDOW);
        assert_eq!(journal.untold, 1000 - PROBLEMS_PER_WINDOW);
        journal.window_began = Instant::now().checked_sub(WINDOW);
        assert!(journal.may_tell());
        assert_eq!(journal.untold, 0);
    }
}
