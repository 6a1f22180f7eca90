//! The command line: the reference's flags, and ours.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};

/// A Kubernetes service proxy: takes kube-proxy's place on a node.
///
/// Flags have the names and meanings they have there.
#[derive(Clone, Debug, Parser)]
#[command(name = "switchyard-proxy", version, disable_help_subcommand = true)]
pub struct Flags {
    /// Read the cluster from YAML and JSON files in this directory and follow their changes;
    /// no API server
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master"])]
    pub manifests: Option<PathBuf>,
    /// kubeconfig file that says how to reach the API server; without it, --master and
    /// --manifests, the Pod's own service account is used
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of the API server; overrides the kubeconfig
    #[arg(long, value_name = "URL")]
    pub master: Option<String>,
    /// Configuration file (KubeProxyConfiguration)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this node; default: the host name
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// How to program the kernel: iptables, nftables, ipvs (nftables or iptables where the kernel
    /// lacks it), ebpf, or auto: the best that works here
    #[arg(long, value_name = "MODE", default_value = "iptables")]
    pub proxy_mode: String,
    /// Remove everything of ours from the kernel and exit
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub cleanup: bool,

    /// Networks of the cluster's pods, one an IP family, separated by a comma
    #[arg(long, value_name = "CIDRS", default_value = "")]
    pub cluster_cidr: String,
    /// How traffic of local pods is recognised: ClusterCIDR, NodeCIDR, BridgeInterface or
    /// InterfaceNamePrefix
    #[arg(long, value_name = "MODE", default_value = "ClusterCIDR")]
    pub detect_local_mode: String,
    /// Bridge of the pods, with --detect-local-mode=BridgeInterface
    #[arg(long, value_name = "NAME", default_value = "")]
    pub pod_bridge_interface: String,
    /// First letters of the pods' interfaces, with --detect-local-mode=InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub pod_interface_name_prefix: String,
    /// Local addresses that accept node ports: networks separated by commas, or `primary`;
    /// default: all, in nftables mode `primary`
    #[arg(long, value_name = "CIDRS", default_value = "")]
    pub nodeport_addresses: String,
    /// Address of the node, where its Node object says none or another
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// Masquerade everything sent to ClusterIPs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub masquerade_all: bool,
    /// Bit of the packet mark that stands for "masquerade this", 0 to 31
    #[arg(long, value_name = "BIT", default_value_t = 14,
          value_parser = clap::value_parser!(u8).range(0..=31))]
    pub iptables_masquerade_bit: u8,
    /// Node ports also answer at the loopback addresses
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", action = ArgAction::Set)]
    pub iptables_localhost_nodeports: bool,
    /// How often it is checked that the rules are still there
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub iptables_sync_period: Duration,
    /// Shortest time from one sync to the next; default: as long as the last one took
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub iptables_min_sync_period: Option<Duration>,

    /// How often virtual services, sets and rules are compared with what they should be (ipvs
    /// mode)
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub ipvs_sync_period: Duration,
    /// Shortest time from one sync to the next (ipvs mode); default: as long as the last one took
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub ipvs_min_sync_period: Option<Duration>,
    /// How IPVS chooses among endpoints: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf
    /// or mh. A Service's annotation switchyard.dev/ipvs-scheduler goes before it
    #[arg(long, value_name = "NAME", default_value = "")]
    pub ipvs_scheduler: String,
    /// Networks whose virtual services are never deleted (ipvs mode), separated by commas
    #[arg(long, value_name = "CIDRS", default_value = "")]
    pub ipvs_exclude_cidrs: String,
    /// Answer ARP only for addresses of the interface that was asked (ipvs mode): arp_ignore 1,
    /// arp_announce 2
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub ipvs_strict_arp: bool,
    /// Time-out of idle TCP connections in IPVS; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub ipvs_tcp_timeout: Duration,
    /// Time-out of TCP connections after a FIN in IPVS; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub ipvs_tcpfin_timeout: Duration,
    /// Time-out of UDP flows in IPVS; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub ipvs_udp_timeout: Duration,

    /// Where /healthz and /livez answer; empty: nowhere
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: String,
    /// Where /metrics and /proxyMode answer; empty: nowhere
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: String,

    /// Conntrack entries for each CPU core; 0 leaves the kernel's setting
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    pub conntrack_max_per_core: u32,
    /// Conntrack entries at least, whatever the number of cores
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    pub conntrack_min: u32,
    /// Time-out of idle established TCP connections in conntrack; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub conntrack_tcp_timeout_established: Duration,
    /// Time-out of TCP connections in CLOSE_WAIT in conntrack; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub conntrack_tcp_timeout_close_wait: Duration,
    /// Let conntrack accept TCP packets outside the window
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub conntrack_tcp_be_liberal: bool,
    /// Time-out of unanswered UDP flows in conntrack; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub conntrack_udp_timeout: Duration,
    /// Time-out of answered UDP flows in conntrack; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub conntrack_udp_timeout_stream: Duration,

    /// Log format: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub logging_format: String,
    /// Log verbosity: 0 to 1 information, 2 to 5 debug, above that trace
    #[arg(short = 'v', long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: u8,

    /// cgroup2 directory that socket programs attach to (ebpf mode); default: the first
    /// cgroup2 file system of /proc/mounts
    #[arg(long, value_name = "PATH")]
    pub cgroup_root: Option<PathBuf>,
    /// Where maps and links are pinned (ebpf mode), on a bpf file system
    #[arg(long, value_name = "PATH", default_value = super::BPF_ROOT)]
    pub bpf_root: PathBuf,
    /// Leave the sockets of pods alone and translate their traffic at their devices (ebpf
    /// mode): for service meshes, Kata and gVisor
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub ebpf_host_namespace_only: bool,
    /// Who forwards packets translated at devices (ebpf mode): `stack`, the kernel's own, or
    /// `direct`, the programs themselves, past FORWARD rules and connection tracking
    #[arg(long, value_name = "HOW", default_value = "stack")]
    pub ebpf_forwarding: String,
    /// Flags that change nothing here.
    #[command(flatten)]
    pub unused: Unused,
}

/// Flags of the reference that change nothing here. They are accepted, so that a DaemonSet's
/// arguments keep working, and named in one log line.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Unused {
    /// No effect: changes arrive by watch, there is no informer to resynchronise
    #[arg(long, value_name = "DURATION", hide = true)]
    pub config_sync_period: Option<String>,
    /// No effect
    #[arg(long, value_name = "LIST", hide = true)]
    pub feature_gates: Option<String>,
    /// No effect
    #[arg(long, value_name = "N", hide = true)]
    pub kube_api_burst: Option<String>,
    /// No effect
    #[arg(long, value_name = "N", hide = true)]
    pub kube_api_qps: Option<String>,
    /// No effect
    #[arg(long, value_name = "TYPE", hide = true)]
    pub kube_api_content_type: Option<String>,
    /// No effect yet
    #[arg(long, value_name = "N", hide = true, allow_hyphen_values = true)]
    pub oom_score_adj: Option<String>,
    /// No effect
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide = true)]
    pub profiling: Option<String>,
    /// No effect
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide = true)]
    pub bind_address_hard_fail: Option<String>,
    /// No effect
    #[arg(long, value_name = "VERSION", hide = true)]
    pub show_hidden_metrics_for_version: Option<String>,
    /// No effect
    #[arg(long, value_name = "LIST", hide = true)]
    pub vmodule: Option<String>,
    /// No effect
    #[arg(long, value_name = "DURATION", hide = true)]
    pub log_flush_frequency: Option<String>,
}

impl Unused {
    /// The names of those that were given.
    #[must_use]
    pub fn given(&self) -> Vec<&'static str> {
        let Self {
            config_sync_period,
            feature_gates,
            kube_api_burst,
            kube_api_qps,
            kube_api_content_type,
            oom_score_adj,
            profiling,
            bind_address_hard_fail,
            show_hidden_metrics_for_version,
            vmodule,
            log_flush_frequency,
        } = self;
        let all = [
            ("--config-sync-period", config_sync_period),
            ("--feature-gates", feature_gates),
            ("--kube-api-burst", kube_api_burst),
            ("--kube-api-qps", kube_api_qps),
            ("--kube-api-content-type", kube_api_content_type),
            ("--oom-score-adj", oom_score_adj),
            ("--profiling", profiling),
            ("--bind-address-hard-fail", bind_address_hard_fail),
            (
                "--show-hidden-metrics-for-version",
                show_hidden_metrics_for_version,
            ),
            ("--vmodule", vmodule),
            ("--log-flush-frequency", log_flush_frequency),
        ];
        all.into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| name)
            .collect()
    }
}

/// A duration as Go writes it: `1h0m0s`, `30s`, `500ms`, `0`.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; expected a duration such as 30s, 1h0m0s or 500ms"))
}
