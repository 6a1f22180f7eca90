use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::{Span, defaults, is_false, null_if_empty, quantity, span};

/// `clientConnection`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct ClientConnection {
    /// File that says how to reach the API server; empty: as the Pod's service account.
    pub kubeconfig: String,
    /// No effect: the client says itself what it can read.
    pub accept_content_types: String,
    /// No effect.
    pub content_type: String,
    /// Requests a second. No effect: there are too few to limit.
    pub qps: Number,
    /// Requests at once. No effect.
    pub burst: i64,
}

impl Default for ClientConnection {
    fn default() -> Self {
        Self {
            kubeconfig: String::new(),
            accept_content_types: String::new(),
            content_type: defaults::CONTENT_TYPE.to_owned(),
            qps: Number::from(defaults::QPS),
            burst: defaults::BURST,
        }
    }
}

/// `logging`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct Logging {
    /// `text` or `json`.
    pub format: String,
    /// No effect: every line is written at once.
    #[serde(deserialize_with = "span::nanoseconds_or_text")]
    pub flush_frequency: Span,
    /// How much is said: 0 and 1 information, 2 to 5 debug, above that trace.
    pub verbosity: i64,
    /// Verbosity of single source files. No effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vmodule: Vec<ModuleLevel>,
    /// No effect.
    pub options: LogOptions,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            format: defaults::LOG_FORMAT.to_owned(),
            flush_frequency: defaults::LOG_FLUSH_FREQUENCY,
            verbosity: 0,
            vmodule: Vec::new(),
            options: LogOptions::default(),
        }
    }
}

/// One of `logging.vmodule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "filePattern and verbosity"
)]
pub struct ModuleLevel {
    /// Which source files.
    pub file_pattern: String,
    /// How much they say.
    pub verbosity: i64,
}

/// `logging.options`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct LogOptions {
    /// Where the format is text.
    pub text: LogStream,
    /// Where the format is JSON.
    pub json: LogStream,
}

/// How one format is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct LogStream {
    /// Errors to one stream, all else to the other.
    #[serde(skip_serializing_if = "is_false")]
    pub split_stream: bool,
    /// Bytes kept back, as a quantity.
    #[serde(deserialize_with = "quantity::read")]
    pub info_buffer_size: String,
}

impl Default for LogStream {
    fn default() -> Self {
        Self {
            split_stream: false,
            info_buffer_size: "0".to_owned(),
        }
    }
}

/// `iptables`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct Iptables {
    /// Bit of the mark that stands for "masquerade this". Of ipvs and ebpf mode, too.
    pub masquerade_bit: i64,
    /// Masquerade everything sent to ClusterIPs. Of ipvs and ebpf mode, too.
    pub masquerade_all: bool,
    /// Node ports also answer at loopback addresses.
    pub localhost_node_ports: bool,
    /// How often it is checked that the rules are still there.
    pub sync_period: Span,
    /// Shortest time from one sync to the next; `None`: as long as the last one took, and a
    /// second at most.
    pub min_sync_period: Option<Span>,
}

impl Default for Iptables {
    fn default() -> Self {
        Self {
            masquerade_bit: defaults::MASQUERADE_BIT,
            masquerade_all: false,
            localhost_node_ports: true,
            sync_period: defaults::SYNC_PERIOD,
            min_sync_period: None,
        }
    }
}

/// `ipvs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct IpvsSection {
    /// As in [`Iptables`].
    pub sync_period: Span,
    /// As in [`Iptables`].
    pub min_sync_period: Option<Span>,
    /// How IPVS chooses among endpoints; empty: `rr`.
    pub scheduler: String,
    /// Networks whose virtual services are never deleted.
    #[serde(rename = "excludeCIDRs", serialize_with = "null_if_empty")]
    pub exclude_cidrs: Vec<String>,
    /// Answer ARP only for addresses of the interface that was asked.
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    /// Time-out of idle TCP connections; zero leaves it.
    pub tcp_timeout: Span,
    /// Time-out of TCP connections after a FIN; zero leaves it.
    pub tcp_fin_timeout: Span,
    /// Time-out of UDP flows; zero leaves it.
    pub udp_timeout: Span,
}

impl Default for IpvsSection {
    fn default() -> Self {
        Self {
            sync_period: defaults::SYNC_PERIOD,
            min_sync_period: None,
            scheduler: String::new(),
            exclude_cidrs: Vec::new(),
            strict_arp: false,
            tcp_timeout: Span::ZERO,
            tcp_fin_timeout: Span::ZERO,
            udp_timeout: Span::ZERO,
        }
    }
}

/// `nftables`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct Nftables {
    /// As in [`Iptables`], for this mode.
    pub masquerade_bit: i64,
    /// As in [`Iptables`], for this mode.
    pub masquerade_all: bool,
    /// As in [`Iptables`].
    pub sync_period: Span,
    /// As in [`Iptables`].
    pub min_sync_period: Option<Span>,
}

impl Default for Nftables {
    fn default() -> Self {
        Self {
            masquerade_bit: defaults::MASQUERADE_BIT,
            masquerade_all: false,
            sync_period: defaults::SYNC_PERIOD,
            min_sync_period: None,
        }
    }
}

/// `winkernel`. No effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct Winkernel {
    /// Windows.
    pub network_name: String,
    /// Windows.
    pub source_vip: String,
    /// Windows.
    #[serde(rename = "enableDSR")]
    pub enable_dsr: bool,
    /// Windows.
    pub root_hns_endpoint_name: String,
    /// Windows.
    pub forward_health_check_vip: bool,
}

/// `detectLocal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct DetectLocalSection {
    /// Bridge of the pods.
    pub bridge_interface: String,
    /// First letters of the pods' interfaces.
    pub interface_name_prefix: String,
}

/// `conntrack`. Zero leaves what the kernel has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct ConntrackSection {
    /// Entries for each CPU core.
    pub max_per_core: i64,
    /// Entries at least.
    pub min: i64,
    /// Time-out of idle established TCP connections.
    pub tcp_established_timeout: Span,
    /// Time-out in `CLOSE_WAIT`.
    pub tcp_close_wait_timeout: Span,
    /// Accept TCP packets outside the window.
    pub tcp_be_liberal: bool,
    /// Time-out of unanswered UDP flows.
    pub udp_timeout: Span,
    /// Time-out of answered UDP flows.
    pub udp_stream_timeout: Span,
}

impl Default for ConntrackSection {
    fn default() -> Self {
        Self {
            max_per_core: defaults::CONNTRACK_MAX_PER_CORE,
            min: defaults::CONNTRACK_MIN,
            tcp_established_timeout: defaults::TCP_ESTABLISHED,
            tcp_close_wait_timeout: defaults::TCP_CLOSE_WAIT,
            tcp_be_liberal: false,
            udp_timeout: Span::ZERO,
            udp_stream_timeout: Span::ZERO,
        }
    }
}

/// `switchyard`: what the reference does not have. Left out where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct Switchyard {
    /// Directory to read the cluster from, in place of an API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<PathBuf>,
    /// ebpf mode.
    #[serde(skip_serializing_if = "EbpfSection::is_default")]
    pub ebpf: EbpfSection,
    /// Who may read the metrics, and over what.
    #[serde(skip_serializing_if = "MetricsSection::is_default")]
    pub metrics: MetricsSection,
}

impl Switchyard {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `switchyard.ebpf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct EbpfSection {
    /// The cgroup2 directory that socket programs attach to; `None`: the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_root: Option<PathBuf>,
    /// Where maps and links are pinned; `None`: the usual place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_root: Option<PathBuf>,
    /// Leave the sockets of pods alone.
    #[serde(skip_serializing_if = "is_false")]
    pub host_namespace_only: bool,
    /// Who forwards translated packets: `stack` (also if `None`) or `direct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<String>,
}

impl EbpfSection {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `switchyard.metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    expecting = "a section of fields"
)]
pub struct MetricsSection {
    /// Certificate of the metrics server, which then speaks TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key_file: Option<PathBuf>,
    /// File with bearer tokens that let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Let in whom the API server lets in.
    #[serde(skip_serializing_if = "is_false")]
    pub delegated_authorization: bool,
}

impl MetricsSection {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
