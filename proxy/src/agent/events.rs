//! What an operator should see at the Node and at Services, beside the log.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use switchyard_cluster::events::{self, About, Event, Events, Writing};
use switchyard_cluster::object::ObjectName;
use switchyard_cluster::source::SourceError;
use switchyard_cluster::source::api;

use crate::backend::Mode;
use crate::metrics::Metrics;
use crate::settings::{ProxyMode, Settings};

/// The reference's word for what is done at the start.
const STARTING: &str = "StartKubeProxy";
/// How long an end by an error, which was told last, waits until that is written.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(3);
/// How long any other end waits.
const FINISH_LIMIT: Duration = Duration::from_millis(200);

/// Tells of what happens. Without an API server nobody listens; the log has it all anyway.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    node: Arc<str>,
    events: Option<Events>,
}

impl Teller {
    /// Of this node, and what must be waited for at the end.
    pub(super) async fn start(
        node: &str,
        options: Option<&api::Options>,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, Option<Writing>), SourceError> {
        let node = node.into();
        let Some(options) = options else {
            return Ok((Self { node, events: None }, None));
        };
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let metrics = Arc::clone(metrics);
        let lost = move || metrics.events_lost.inc(());
        let (events, writing) = events::start(options, &host_name, lost).await?;
        let events = Some(events);
        Ok((Self { node, events }, Some(writing)))
    }

    fn tell(
        &self,
        about: About,
        is_warning: bool,
        [reason, action]: [&'static str; 2],
        note: String,
    ) {
        if let Some(events) = &self.events {
            events.tell(Event {
                about,
                is_warning,
                reason,
                action,
                note,
            });
        }
    }

    fn of_node(&self, is_warning: bool, words: [&'static str; 2], note: String) {
        let node = About::Node(self.node.to_string());
        self.tell(node, is_warning, words, note);
    }

    /// The agent runs.
    pub(super) fn starting(&self, mode: Mode) {
        let version = switchyard_operation::build::VERSION;
        let note = format!("switchyard-proxy {version} starts in {mode} mode");
        self.of_node(false, ["Starting", STARTING], note);
    }

    /// The health server's address is taken.
    pub(super) fn health_failed(&self, error: &dyn Display) {
        let words = ["FailedToStartProxierHealthcheck", STARTING];
        self.of_node(true, words, error.to_string());
    }

    /// The metrics server's address is taken.
    pub(super) fn metrics_failed(&self, error: &dyn Display) {
        let words = ["FailedToStartMetricServer", STARTING];
        self.of_node(true, words, error.to_string());
    }

    /// Another mode runs than the one that was asked for.
    pub(super) fn chosen(&self, settings: &Settings, mode: Mode) {
        let (asked, is_warning) = match (settings.proxy_mode, mode) {
            (ProxyMode::Ipvs, Mode::Nftables | Mode::Iptables) => ("ipvs", true),
            (ProxyMode::Auto, Mode::Nftables | Mode::Iptables) => ("auto", false),
            _ => return,
        };
        let lacks = if is_warning { "ipvs" } else { "ebpf" };
        let note = format!(
            "mode {asked} became {mode}: this machine lacks something for {lacks}, which the \
             agent's log names"
        );
        self.of_node(is_warning, ["ProxyModeFallback", STARTING], note);
    }

    /// A changed configuration can't be used.
    pub(super) fn configuration_refused(&self, errors: &str) {
        let note = format!("the configuration before it stays in force: {errors}");
        self.of_node(true, ["ConfigurationRefused", "Reload"], note);
    }

    /// A health-check node port of a Service can't be listened on.
    pub(super) fn health_check_failed(&self, service: &ObjectName, what: &dyn Display) {
        let words = ["FailedToStartServiceHealthcheck", "Listen"];
        let note = format!("node {}: {what}", self.node);
        self.tell(About::Service(service.clone()), true, words, note);
    }

    /// The kernel does not take a port of a Service.
    pub(super) fn not_programmed(&self, service: &ObjectName, what: &dyn Display) {
        let words = ["FailedToProgramService", "Sync"];
        let note = format!("node {}: {what}", self.node);
        self.tell(About::Service(service.clone()), true, words, note);
    }
}

/// Waits a little for what was told last. Nobody may hold a [`Teller`] any more.
pub(super) async fn finish(writing: Option<Writing>, has_failed: bool) {
    let limit = if has_failed {
        LAST_WORDS_LIMIT
    } else {
        FINISH_LIMIT
    };
    if let Some(writing) = writing {
        writing.finish(limit).await;
    }
}
