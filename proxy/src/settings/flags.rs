//! The command line: the reference's flags, and ours.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _, Parser};
use serde_json::Number;

use super::configuration::{ModuleLevel, Span};

/// A Kubernetes service proxy: takes kube-proxy's place on a node.
///
/// Flags have the names and meanings they have there.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "switchyard-proxy",
    version = crate::version::TEXT.as_str(),
    disable_help_subcommand = true,
    after_help = "Commands, each with a --help of its own: explain, opt-out, completions, man"
)]
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
    /// Configuration file (KubeProxyConfiguration). With it, most flags do not count; a change
    /// of it restarts the agent in place
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the configuration, defaults included, to this file and exit
    #[arg(long, value_name = "FILE")]
    pub write_config_to: Option<PathBuf>,
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
    /// Set the kernel's parameters, which takes more rights than all that comes later, and exit
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub init_only: bool,

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
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = span)]
    pub iptables_sync_period: Span,
    /// Shortest time from one sync to the next; default: as long as the last one took
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub iptables_min_sync_period: Option<Span>,

    /// How often virtual services, sets and rules are compared with what they should be (ipvs
    /// mode)
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = span)]
    pub ipvs_sync_period: Span,
    /// Shortest time from one sync to the next (ipvs mode); default: as long as the last one took
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub ipvs_min_sync_period: Option<Span>,
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
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = span)]
    pub ipvs_tcp_timeout: Span,
    /// Time-out of TCP connections after a FIN in IPVS; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = span)]
    pub ipvs_tcpfin_timeout: Span,
    /// Time-out of UDP flows in IPVS; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = span)]
    pub ipvs_udp_timeout: Span,

    /// Where /healthz and /livez answer; empty: nowhere
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: String,
    /// Where /metrics, /configz and /proxyMode answer; empty: nowhere
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: String,
    /// Deprecated: the port of --healthz-bind-address, if that names none; 0: nowhere
    #[arg(long, value_name = "PORT", default_value_t = super::HEALTHZ_PORT, hide = true)]
    pub healthz_port: u16,
    /// Deprecated: the port of --metrics-bind-address, if that names none; 0: nowhere
    #[arg(long, value_name = "PORT", default_value_t = super::METRICS_PORT, hide = true)]
    pub metrics_port: u16,

    /// End with an error where one of these two addresses can't be listened on, rather than try
    /// again until it can
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub bind_address_hard_fail: bool,

    /// PEM file with the certificate of the metrics server, which then speaks TLS
    #[arg(long, value_name = "FILE")]
    pub metrics_tls_cert_file: Option<PathBuf>,
    /// PEM file with its key
    #[arg(long, value_name = "FILE")]
    pub metrics_tls_key_file: Option<PathBuf>,
    /// File with bearer tokens, one a line, that let in to the metrics server's pages
    #[arg(long, value_name = "FILE")]
    pub metrics_token_file: Option<PathBuf>,
    /// Let in to the metrics server's pages whom the API server lets in (TokenReview and
    /// SubjectAccessReview)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub metrics_delegated_authorization: bool,

    /// Conntrack entries for each CPU core; 0 leaves the kernel's setting
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    pub conntrack_max_per_core: u32,
    /// Conntrack entries at least, whatever the number of cores
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    pub conntrack_min: u32,
    /// Time-out of idle established TCP connections in conntrack; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span)]
    pub conntrack_tcp_timeout_established: Span,
    /// Time-out of TCP connections in CLOSE_WAIT in conntrack; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = span)]
    pub conntrack_tcp_timeout_close_wait: Span,
    /// Let conntrack accept TCP packets outside the window
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub conntrack_tcp_be_liberal: bool,
    /// Time-out of unanswered UDP flows in conntrack; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = span)]
    pub conntrack_udp_timeout: Span,
    /// Time-out of answered UDP flows in conntrack; 0 leaves it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = span)]
    pub conntrack_udp_timeout_stream: Span,

    /// Log format: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub logging_format: String,
    /// Log verbosity: 0 and 1 what changes, from 2 on also why
    #[arg(short = 'v', long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: u8,
    /// How readily the kernel kills this process for memory: -1000 (never) to 1000
    #[arg(long, value_name = "N", default_value_t = -999, allow_hyphen_values = true)]
    pub oom_score_adj: i64,

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
    /// Names of the flags that were given, without dashes.
    #[arg(skip)]
    pub given: Vec<String>,
}

impl Flags {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// With what to print: what is wrong with it, or the help that it asks for.
    pub fn from_arguments(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let command = Self::command();
        let matches = command.clone().try_get_matches_from(arguments)?;
        let mut flags = Self::from_arg_matches(&matches)?;
        flags.note_given(&command, &matches);
        Ok(flags)
    }

    /// Notes which flags were given, for a command that has these flags among its own.
    pub fn note_given(&mut self, command: &Command, matches: &ArgMatches) {
        let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let given = command
            .get_arguments()
            .filter(|flag| is_given(flag.get_id().as_str()));
        self.given = given
            .filter_map(|flag| flag.get_long())
            .map(str::to_owned)
            .collect();
    }

    /// Whether a flag was given, by its name without dashes.
    #[must_use]
    pub fn was_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }
}

/// Flags of the reference that change nothing here. They are accepted, so that a DaemonSet's
/// arguments keep working, checked, and named in one log line if they say something.
#[derive(Clone, Debug, clap::Args)]
pub struct Unused {
    /// No effect: changes arrive by watch, there is no informer to resynchronise
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = span, hide = true)]
    pub config_sync_period: Span,
    /// No effect
    #[arg(long, value_name = "LIST", default_value = "", value_parser = gates, hide = true)]
    pub feature_gates: BTreeMap<String, bool>,
    /// No effect
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        allow_hyphen_values = true,
        hide = true
    )]
    pub kube_api_burst: i64,
    /// No effect
    #[arg(
        long,
        value_name = "N",
        default_value = "5",
        allow_hyphen_values = true,
        hide = true
    )]
    pub kube_api_qps: Number,
    /// No effect
    #[arg(
        long,
        value_name = "TYPE",
        hide = true,
        default_value = "application/vnd.kubernetes.protobuf"
    )]
    pub kube_api_content_type: String,
    /// No effect
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, hide = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub profiling: bool,
    /// No effect
    #[arg(long, value_name = "VERSION", default_value = "", hide = true)]
    pub show_hidden_metrics_for_version: String,
    /// No effect
    #[arg(long, value_name = "LIST", default_value = "", value_parser = modules, hide = true)]
    pub vmodule: Modules,
    /// No effect
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = span, hide = true)]
    pub log_flush_frequency: Span,
    /// No effect
    #[arg(long, value_name = "BYTES", default_value = "0", hide = true)]
    pub log_text_info_buffer_size: String,
    /// No effect
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, hide = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub log_text_split_stream: bool,
    /// No effect
    #[arg(long, value_name = "BYTES", default_value = "0", hide = true)]
    pub log_json_info_buffer_size: String,
    /// No effect
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, hide = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub log_json_split_stream: bool,
    /// No effect
    #[arg(long, value_name = "FILES", hide = true)]
    pub boot_id_file: Option<String>,
    /// No effect
    #[arg(long, value_name = "FILES", hide = true)]
    pub machine_id_file: Option<String>,
}

/// A duration as Go writes it: `1h0m0s`, `30s`, `500ms`, `0`; none that is less than none.
fn span(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    match span.duration() {
        Some(_) => Ok(span),
        None => Err("expected 0s or more".to_owned()),
    }
}

/// Pairs of a name and what it stands for, separated by commas.
fn pairs(list: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let parts = list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(|part| match part.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (part, None),
    })
}

fn gates(list: &str) -> Result<BTreeMap<String, bool>, String> {
    let gate = |(name, value): (&str, Option<&str>)| {
        let value = value.and_then(|value| value.parse().ok());
        let on = value.ok_or("expected pairs such as SomeFeature=true,Another=false")?;
        Ok((name.to_owned(), on))
    };
    pairs(list).map(gate).collect()
}

/// What `--vmodule` says.
#[derive(Clone, Debug, Default)]
pub struct Modules(pub Vec<ModuleLevel>);

fn modules(list: &str) -> Result<Modules, String> {
    let module = |(pattern, level): (&str, Option<&str>)| {
        let level = level.and_then(|level| level.parse().ok());
        let verbosity = level.ok_or("expected pairs such as proxier=4,controller*=2")?;
        Ok(ModuleLevel {
            file_pattern: pattern.to_owned(),
            verbosity,
        })
    };
    pairs(list)
        .map(module)
        .collect::<Result<_, String>>()
        .map(Modules)
}
