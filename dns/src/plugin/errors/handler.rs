use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;

use super::config::Consolidate;
use super::go_duration;
use crate::lines::{Level, Lines};
use crate::plugin::{Exchange, Plugin, Position, Step};

/// Prints errors.
#[derive(Debug)]
pub(super) struct Errors {
    patterns: Vec<Arc<Counted>>,
    printer: Arc<Printer>,
    /// Where periods end; queries are mostly answered by threads outside of it.
    runtime: Option<Handle>,
}

#[derive(Debug)]
struct Counted {
    config: Consolidate,
    /// Since the period began.
    errors: AtomicU64,
}

#[derive(Debug)]
struct Printer {
    lines: Arc<Lines>,
    debug: bool,
}

impl Errors {
    pub(super) fn new(
        patterns: Vec<Consolidate>,
        lines: Arc<Lines>,
        debug: bool,
        runtime: Option<Handle>,
    ) -> Self {
        let patterns = patterns.into_iter().map(|config| {
            let errors = AtomicU64::new(0);
            Arc::new(Counted { config, errors })
        });
        Self {
            patterns: patterns.collect(),
            printer: Arc::new(Printer { lines, debug }),
            runtime,
        }
    }

    /// The level to print this error at; `None` if it is only counted.
    fn level_of(&self, error: &str) -> Option<Level> {
        let patterns = &self.patterns;
        let Some(counted) = patterns.iter().find(|it| it.config.pattern.is_match(error)) else {
            return Some(Level::Error);
        };
        let before = counted.errors.fetch_add(1, Ordering::Relaxed);
        if before > 0 {
            return None;
        }
        let (printer, of_task) = (Arc::clone(&self.printer), Arc::clone(counted));
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                tokio::time::sleep(of_task.config.period).await;
                printer.summarize(&of_task);
            });
        }
        counted.config.show_first.then_some(counted.config.level)
    }
}

impl Printer {
    fn print(&self, level: Level, text: &str) {
        if level != Level::Debug || self.debug {
            self.lines.write(level, &format!("plugin/errors: {text}"));
        }
    }

    /// Ends the period.
    fn summarize(&self, counted: &Counted) {
        let errors = counted.errors.swap(0, Ordering::Relaxed);
        let config = &counted.config;
        if errors > u64::from(config.show_first) {
            let period = go_duration::text(config.period);
            let text = format!(
                "{errors} errors like '{}' occurred in last {period}",
                config.pattern
            );
            self.print(config.level, &text);
        }
    }
}

impl Plugin for Errors {
    fn name(&self) -> &'static str {
        "errors"
    }

    fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
        Step::Next
    }

    fn response(&self, exchange: &mut Exchange, _: Position<'_>) {
        let Some(error) = &exchange.error else {
            return;
        };
        if let Some(level) = self.level_of(error) {
            let question = &exchange.request.question;
            let text = format!(
                "{} {} {}: {error}",
                exchange.reply.rcode.0,
                question.lower(),
                question.rtype
            );
            self.printer.print(level, &text);
        }
    }

    fn any_class(&self) -> bool {
        true
    }
}

impl Drop for Errors {
    /// What was counted so far is said; the tasks then find nothing more to say.
    fn drop(&mut self) {
        for counted in &self.patterns {
            self.printer.summarize(counted);
        }
    }
}
