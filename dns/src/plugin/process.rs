use std::net::SocketAddr;
use std::time::Duration;

/// What server blocks ask of the process as a whole. Several may ask for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSettings {
    /// `health`.
    pub health: Vec<HealthSettings>,
    /// `ready`.
    pub ready: Vec<ReadySettings>,
    /// `prometheus`: where `/metrics` is.
    pub metrics: Vec<SocketAddr>,
    /// `reload`; that of the first block that has it.
    pub reload: Option<ReloadSettings>,
}

/// `health`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Where `/health` is.
    pub address: SocketAddr,
    /// How long to go on answering after the order to stop.
    pub lameduck: Duration,
}

/// `ready`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadySettings {
    /// Where `/ready` is.
    pub address: SocketAddr,
    /// Whether a plugin that was ready once is asked again.
    pub continuously: bool,
}

/// `reload`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadSettings {
    /// From one look at the Corefile to the next.
    pub interval: Duration,
    /// Each look is up to so much later, so that not all replicas reload at once.
    pub jitter: Duration,
}

impl ProcessSettings {
    /// How long to go on answering after the order to stop: the longest that a block wants.
    #[must_use]
    pub fn lameduck(&self) -> Duration {
        let all = self.health.iter().map(|health| health.lameduck);
        all.max().unwrap_or_default()
    }
}
