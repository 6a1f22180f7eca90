//! Whether an upstream is up: asked only after something went wrong, until it answers again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{How, Upstream};

/// How long one health check waits for its reply.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The RD bit in a header's third byte.
const RECURSION_DESIRED: u8 = 1;
/// Type NS, class IN.
const NS_IN: [u8; 4] = [0, 2, 0, 1];

/// How health is checked: `health_check D [no_rec] [domain F]` and `max_fails N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The pause between two checks of an upstream that does not answer.
    pub interval: Duration,
    /// Whether the checks ask for recursion.
    pub recursion_desired: bool,
    /// The name asked for, in wire form.
    pub domain: Box<[u8]>,
    /// After how many failed checks in a row an upstream counts as down. 0: never down, never checked.
    pub max_fails: u32,
}

impl Default for HealthCheck {
    /// `. IN NS` with RD, every half second, down after two failures.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            recursion_desired: true,
            domain: Box::new([0]),
            max_fails: 2,
        }
    }
}

impl HealthCheck {
    fn query(&self) -> Vec<u8> {
        let flags = if self.recursion_desired {
            RECURSION_DESIRED
        } else {
            0
        };
        let mut query = vec![0, 0, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(&self.domain);
        query.extend_from_slice(&NS_IN);
        query
    }
}

/// What the checks found.
#[derive(Debug)]
pub(super) struct Health {
    check: HealthCheck,
    how: How,
    failures: AtomicU32,
    checking: AtomicBool,
}

impl Health {
    pub(super) const fn new(check: HealthCheck, how: How) -> Self {
        Self {
            check,
            how,
            failures: AtomicU32::new(0),
            checking: AtomicBool::new(false),
        }
    }

    /// Any reply says that the upstream lives.
    pub(super) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.check.max_fails != 0 && self.failures.load(Ordering::Relaxed) >= self.check.max_fails
    }
}

impl Upstream {
    /// Starts to check this upstream until it answers, unless that is under way already or
    /// `max_fails` is 0. Call it after a query failed. Needs a tokio runtime.
    pub fn check_health(self: &Arc<Self>) {
        let health = &self.health;
        if health.check.max_fails == 0 || health.checking.swap(true, Ordering::AcqRel) {
            return;
        }
        let upstream = Arc::downgrade(self);
        let query = health.check.query();
        let interval = health.check.interval;
        tokio::spawn(async move {
            // Ends with the configuration that named the upstream, too.
            while let Some(upstream) = upstream.upgrade() {
                if upstream.is_healthy_now(&query).await {
                    upstream.health.checking.store(false, Ordering::Release);
                    return;
                }
                drop(upstream);
                sleep(interval).await;
            }
        });
    }

    async fn is_healthy_now(&self, query: &[u8]) -> bool {
        let health = &self.health;
        if self
            .ask(query, health.how, Instant::now() + PROBE_TIMEOUT)
            .await
            .is_ok()
        {
            health.failures.store(0, Ordering::Relaxed);
            return true;
        }
        self.metrics.healthcheck_failures.inc();
        health.failures.fetch_add(1, Ordering::Relaxed);
        false
    }
}
