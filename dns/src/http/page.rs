use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::StatusCode;
use switchyard_operation::http::{Reply, TEXT};

use crate::metrics::{CONTENT_TYPE, registry};
use crate::plugin::Plugin;

/// What an endpoint can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Page {
    /// `/health`: 200 as long as the process lives.
    Health,
    /// `/ready`: 200 when all plugins can do their work.
    Ready,
    /// `/metrics`.
    Metrics,
}

/// Whether the plugins of one configuration are ready.
#[derive(Debug, Default)]
pub struct Readiness {
    plugins: Vec<Asked>,
    /// Ask those again that were ready once.
    continuously: bool,
    serving: AtomicBool,
    stopping: AtomicBool,
}

#[derive(Debug)]
struct Asked {
    plugin: Arc<dyn Plugin>,
    was_ready: AtomicBool,
}

impl Readiness {
    /// Of these plugins.
    #[must_use]
    pub fn new(plugins: impl IntoIterator<Item = Arc<dyn Plugin>>, continuously: bool) -> Self {
        let asked = |plugin| Asked {
            plugin,
            was_ready: AtomicBool::new(false),
        };
        Self {
            plugins: plugins.into_iter().map(asked).collect(),
            continuously,
            serving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Queries are taken from now on: before, nothing is ready, whatever the plugins say.
    pub fn serve(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    /// From now on: not ready, the server is about to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// What to wait for, one a line; `None` if nothing.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("Shutting down".to_owned());
        }
        let missing = self.plugins.iter().filter(|asked| {
            let known = !self.continuously && asked.was_ready.load(Ordering::Relaxed);
            let ready = known || asked.plugin.ready();
            asked.was_ready.store(ready, Ordering::Relaxed);
            !ready
        });
        let names: BTreeSet<_> = missing.map(|asked| asked.plugin.name()).collect();
        let names: Vec<_> = names.into_iter().collect();
        if names.is_empty() && !self.serving.load(Ordering::Relaxed) {
            return Some("Starting".to_owned());
        }
        (!names.is_empty()).then(|| names.join("\n"))
    }
}

impl Page {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Ready => "/ready",
            Self::Metrics => "/metrics",
        }
    }

    pub(super) fn answer(self, readiness: &Readiness) -> Reply {
        match self {
            Self::Health => plain(StatusCode::OK, "OK"),
            Self::Ready => match readiness.missing() {
                None => plain(StatusCode::OK, "OK"),
                Some(missing) => plain(StatusCode::SERVICE_UNAVAILABLE, missing),
            },
            Self::Metrics => match registry().render() {
                Ok(text) => Reply::new(StatusCode::OK, CONTENT_TYPE, text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
        }
    }
}

fn plain(status: StatusCode, body: impl Into<String>) -> Reply {
    Reply::new(status, TEXT, body.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Exchange, Position, Step};

    #[derive(Debug)]
    struct Slow(&'static str, Arc<AtomicBool>);

    impl Plugin for Slow {
        fn name(&self) -> &'static str {
            self.0
        }

        fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
            Step::Next
        }

        fn ready(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    fn two(continuously: bool) -> (Readiness, Arc<AtomicBool>) {
        let ready = Arc::new(AtomicBool::new(false));
        let plugin = |name| -> Arc<dyn Plugin> { Arc::new(Slow(name, Arc::clone(&ready))) };
        let plugins = [
            plugin("kubernetes"),
            plugin("autopath"),
            plugin("kubernetes"),
        ];
        let readiness = Readiness::new(plugins, continuously);
        readiness.serve();
        (readiness, ready)
    }

    #[test]
    fn nothing_is_ready_before_queries_are_taken() {
        let readiness = Readiness::new([], false);
        assert_eq!(readiness.missing().as_deref(), Some("Starting"));
        readiness.serve();
        assert_eq!(readiness.missing(), None);
    }

    #[test]
    fn plugins_that_are_not_ready_are_named_once_each() {
        let (readiness, ready) = two(false);
        assert_eq!(readiness.missing().as_deref(), Some("autopath\nkubernetes"));
        ready.store(true, Ordering::Relaxed);
        assert_eq!(readiness.missing(), None);
    }

    #[test]
    fn a_plugin_that_was_ready_once_is_asked_again_only_if_that_is_wanted() {
        for continuously in [false, true] {
            let (readiness, ready) = two(continuously);
            ready.store(true, Ordering::Relaxed);
            assert_eq!(readiness.missing(), None);
            ready.store(false, Ordering::Relaxed);
            assert_eq!(readiness.missing().is_some(), continuously);
        }
    }

    #[test]
    fn a_server_that_stops_is_not_ready_but_healthy() {
        let readiness = Readiness::default();
        readiness.stop();
        let ready = Page::Ready.answer(&readiness);
        assert_eq!(
            (ready.status.as_u16(), &*ready.body),
            (503, "Shutting down")
        );
        assert_eq!(Page::Health.answer(&readiness).status.as_u16(), 200);
    }
}
