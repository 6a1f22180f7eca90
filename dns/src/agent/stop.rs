use std::time::Duration;

use super::service::Service;

/// How long queries under way may take once no more are taken.
const GRACE: Duration = Duration::from_secs(5);

/// The way out.
pub(super) struct Stop {
    service: Service,
}

impl Stop {
    pub(super) const fn new(service: Service) -> Self {
        Self { service }
    }

    /// `/ready` says no from now on; for the lameduck time everything else goes on, the
    /// following of the cluster included; then queries under way are finished.
    pub(super) async fn run(self) {
        let Service {
            listeners,
            endpoints,
            generation,
            ..
        } = self.service;
        generation.readiness.stop();
        let lameduck = generation.process.lameduck();
        if !lameduck.is_zero() {
            tracing::info!("plugin/health: Going into lameduck mode for {lameduck:?}");
            tokio::time::sleep(lameduck).await;
        }
        if !listeners.stop(GRACE).await {
            tracing::warn!("some queries were not answered within {GRACE:?}");
        }
        drop((endpoints, generation));
    }
}
