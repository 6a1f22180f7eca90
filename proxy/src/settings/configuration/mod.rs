//! The reference's configuration file: `KubeProxyConfiguration`, v1alpha1, with its names and
//! defaults, and a section of our own.
//!
//! Whatever the operator says, by flags or by a file, becomes a [`Configuration`] first, and is
//! checked as one. What is in force can be written as one, too, so `--write-config-to` and
//! `/configz` say the same.

mod adopt;
mod defaults;
pub(super) mod quantity;
mod read;
mod sections;
mod span;
mod write;

pub use read::{MAX_FILE_BYTES, Read, Trouble, read};
pub use sections::{
    ClientConnection, ConntrackSection, DetectLocalSection, EbpfSection, Iptables, IpvsSection,
    LogOptions, LogStream, Logging, MetricsSection, ModuleLevel, Nftables, Switchyard, Winkernel,
};
pub use span::Span;
pub use write::yaml;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

/// What `apiVersion` must say.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// What `kind` must say.
pub const KIND: &str = "KubeProxyConfiguration";
/// The key of the one configuration that `/configz` shows.
const CONFIGZ_KEY: &str = "kubeproxy.config.k8s.io";

/// Every field of the file. A field that is not given has the value of [`Configuration::default`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct Configuration {
    /// [`KIND`].
    pub kind: String,
    /// [`API_VERSION`].
    pub api_version: String,
    /// Features of the reference to turn on or off. No effect.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, bool>,
    /// How the API server is reached.
    pub client_connection: ClientConnection,
    /// What the log looks like.
    pub logging: Logging,
    /// This node's name; empty: the host's.
    pub hostname_override: String,
    /// The node's address, unless unspecified. Nothing is bound to it.
    pub bind_address: String,
    /// Where `/healthz` and `/livez` answer; empty, by flags only: nowhere.
    #[serde(default)] // which one is the default depends on `bindAddress`
    pub healthz_bind_address: String,
    /// Where `/metrics` and the like answer; empty, by flags only: nowhere.
    #[serde(default)]
    pub metrics_bind_address: String,
    /// End where an address can't be listened on, rather than try again.
    pub bind_address_hard_fail: bool,
    /// Serve the Go runtime's profiles. No effect.
    pub enable_profiling: bool,
    /// The version of which hidden metrics are shown. No effect.
    pub show_hidden_metrics_for_version: String,
    /// How the kernel is programmed; empty: `iptables`.
    pub mode: String,
    /// iptables mode, and all others but ipvs and nftables.
    pub iptables: Iptables,
    /// ipvs mode.
    pub ipvs: IpvsSection,
    /// nftables mode.
    pub nftables: Nftables,
    /// Windows. No effect.
    pub winkernel: Winkernel,
    /// How traffic of local pods is recognised; empty: `ClusterCIDR`.
    pub detect_local_mode: String,
    /// What the modes that go by interfaces need.
    pub detect_local: DetectLocalSection,
    /// The pods' networks, one an IP family, separated by a comma.
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    /// Local addresses that accept node ports: networks, or `primary` alone.
    #[serde(serialize_with = "null_if_empty")]
    pub node_port_addresses: Vec<String>,
    /// How readily the kernel kills this process for memory: -1000 (never) to 1000.
    pub oom_score_adj: i64,
    /// Conntrack's limits and time-outs.
    pub conntrack: ConntrackSection,
    /// How often the reference's informers resynchronise. No effect.
    pub config_sync_period: Span,
    /// Ports of a mode that the reference no longer has. No effect.
    pub port_range: String,
    /// Windows. No effect.
    #[serde(skip_serializing_if = "is_false")]
    pub windows_run_as_service: bool,
    /// What is ours.
    #[serde(skip_serializing_if = "Switchyard::is_default")]
    pub switchyard: Switchyard,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            kind: KIND.to_owned(),
            api_version: API_VERSION.to_owned(),
            feature_gates: BTreeMap::new(),
            client_connection: ClientConnection::default(),
            logging: Logging::default(),
            hostname_override: String::new(),
            bind_address: defaults::BIND_ADDRESS.to_owned(),
            healthz_bind_address: defaults::HEALTHZ_ADDRESS.to_owned(),
            metrics_bind_address: defaults::METRICS_ADDRESS.to_owned(),
            bind_address_hard_fail: false,
            enable_profiling: false,
            show_hidden_metrics_for_version: String::new(),
            mode: String::new(),
            iptables: Iptables::default(),
            ipvs: IpvsSection::default(),
            nftables: Nftables::default(),
            winkernel: Winkernel::default(),
            detect_local_mode: String::new(),
            detect_local: DetectLocalSection::default(),
            cluster_cidr: String::new(),
            node_port_addresses: Vec::new(),
            oom_score_adj: defaults::OOM_SCORE_ADJ,
            conntrack: ConntrackSection::default(),
            config_sync_period: defaults::CONFIG_SYNC_PERIOD,
            port_range: String::new(),
            windows_run_as_service: false,
            switchyard: Switchyard::default(),
        }
    }
}

impl Configuration {
    /// As `/configz` shows it.
    ///
    /// # Errors
    /// None that can come from these types.
    pub fn configz(&self) -> serde_json::Result<String> {
        serde_json::to_string(&BTreeMap::from([(CONFIGZ_KEY, self)]))
    }

    /// Fields that say something and change nothing here.
    #[must_use]
    pub fn without_effect(&self) -> Vec<&'static str> {
        let default = Self::default();
        let (client, usual) = (&self.client_connection, &default.client_connection);
        let all = [
            ("featureGates", !self.feature_gates.is_empty()),
            (
                "clientConnection.acceptContentTypes",
                client.accept_content_types != usual.accept_content_types,
            ),
            (
                "clientConnection.contentType",
                client.content_type != usual.content_type,
            ),
            ("clientConnection.qps", client.qps != usual.qps),
            ("clientConnection.burst", client.burst != usual.burst),
            (
                "logging.flushFrequency",
                self.logging.flush_frequency != default.logging.flush_frequency,
            ),
            ("logging.vmodule", !self.logging.vmodule.is_empty()),
            (
                "logging.options",
                self.logging.options != default.logging.options,
            ),
            ("enableProfiling", self.enable_profiling),
            (
                "showHiddenMetricsForVersion",
                !self.show_hidden_metrics_for_version.is_empty(),
            ),
            ("winkernel", self.winkernel != default.winkernel),
            (
                "configSyncPeriod",
                self.config_sync_period != default.config_sync_period,
            ),
            ("portRange", !self.port_range.is_empty()),
            ("windowsRunAsService", self.windows_run_as_service),
        ];
        let says = all.into_iter().filter(|(_, says)| *says);
        says.map(|(name, _)| name).collect()
    }
}

/// Go writes an empty list that nobody made as `null`.
fn null_if_empty<S: Serializer>(list: &[String], to: S) -> Result<S::Ok, S::Error> {
    match list {
        [] => to.serialize_none(),
        list => list.serialize(to),
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}
