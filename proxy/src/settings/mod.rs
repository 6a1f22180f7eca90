//! What the operator asked for, checked.

mod check;
pub mod configuration;
mod flags;
mod mode;
mod names;

pub use flags::{Flags, Modules, Unused};
pub use mode::ProxyMode;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use switchyard_cluster::object::IpvsScheduler;

use crate::backend::ebpf::Forwarding;
use crate::plan::NodePortAddresses;
use check::Check;
use configuration::Configuration;
use names::Names;

/// Where maps and links are pinned unless the operator says otherwise.
pub const BPF_ROOT: &str = "/sys/fs/bpf/switchyard";

/// Port of `/healthz`.
const HEALTHZ_PORT: u16 = 10_256;
/// Port of `/metrics`.
const METRICS_PORT: u16 = 10_249;

/// Everything the agent acts by. Made by [`Settings::read`], which reports all that is wrong at
/// once.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What is in force, as the reference's file says it.
    pub configuration: Configuration,
    /// How the kernel is to be programmed.
    pub proxy_mode: ProxyMode,
    /// What ipvs mode needs to know, whether or not it is the mode.
    pub ipvs: IpvsSettings,
    /// What ebpf mode needs to know, whether or not it is the mode.
    pub ebpf: EbpfSettings,
    /// Where the cluster is read from.
    pub source: Source,
    /// This node's name.
    pub node_name: String,
    /// How traffic of local pods is recognised.
    pub detect_local: DetectLocal,
    /// Which local addresses accept node ports.
    pub node_port_addresses: NodePortAddresses,
    /// The node's address, where the operator names one.
    pub bind_address: Option<IpAddr>,
    /// Masquerade everything sent to ClusterIPs.
    pub masquerade_all: bool,
    /// The mark that stands for "masquerade this".
    pub masquerade_mark: u32,
    /// Node ports also answer at loopback addresses.
    pub localhost_node_ports: bool,
    /// How often it is checked that the rules are still there.
    pub sync_period: Duration,
    /// Shortest time from one sync to the next; `None`: as long as the last one took.
    pub min_sync_period: Option<Duration>,
    /// Where `/healthz` answers.
    pub healthz_address: Option<SocketAddr>,
    /// Where `/metrics` answers.
    pub metrics_address: Option<SocketAddr>,
    /// Who may read them, and over what.
    pub metrics_guard: MetricsGuard,
    /// Conntrack's limits and time-outs.
    pub conntrack: Conntrack,
    /// How readily the kernel kills this process for memory: -1000 (never) to 1000.
    pub oom_score_adj: i64,
    /// What the log looks like.
    pub logging: Logging,
}

/// What the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// JSON rather than text.
    pub json: bool,
    /// How much is said: 0 and 1 information, 2 to 5 debug, above that trace.
    pub verbosity: u32,
}

/// What the operator should know of what was said, though it does not keep the agent from
/// working.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// Fields of the file that are unknown or given twice.
    pub passed_over: Vec<String>,
    /// Flags that do not count beside a file.
    pub ignored_flags: Vec<String>,
    /// Flags or fields that say something and change nothing here.
    pub without_effect: Vec<String>,
}

impl Notices {
    /// Says it all, a line each.
    pub fn log(&self) {
        if !self.passed_over.is_empty() {
            tracing::warn!(
                fields = self.passed_over.join(", "),
                "fields of the configuration file are unknown or given twice, and do not count"
            );
        }
        if !self.ignored_flags.is_empty() {
            tracing::warn!(
                flags = self.ignored_flags.join(" "),
                "with --config these flags do not count: the file says it"
            );
        }
        if !self.without_effect.is_empty() {
            let names = self.without_effect.join(" ");
            tracing::warn!(names, "these settings have no effect here");
        }
    }
}

/// Flags of ipvs mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsSettings {
    /// How IPVS chooses among the endpoints of Services that ask for nothing else.
    pub scheduler: IpvsScheduler,
    /// Networks whose virtual services are never deleted.
    pub excluded: Vec<IpNet>,
    /// Answer ARP only for addresses of the interface that was asked.
    pub strict_arp: bool,
    /// Time-out of idle TCP connections; zero leaves the kernel's.
    pub tcp_timeout: Duration,
    /// Time-out of TCP connections after a FIN; zero leaves the kernel's.
    pub tcp_fin_timeout: Duration,
    /// Time-out of UDP flows; zero leaves the kernel's.
    pub udp_timeout: Duration,
}

/// Flags of ebpf mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EbpfSettings {
    /// The cgroup2 directory that socket programs attach to; `None` is the machine's.
    pub cgroup_root: Option<PathBuf>,
    /// Where maps and links are pinned.
    pub bpf_root: PathBuf,
    /// Leave the sockets of pods alone.
    pub host_namespace_only: bool,
    /// Who forwards translated packets.
    pub forwarding: Forwarding,
}

/// Who may read the metrics, and over what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsGuard {
    /// The server's certificate and key; without them it speaks no TLS.
    pub tls: Option<switchyard_operation::tls::Files>,
    /// A file with tokens that let in.
    pub token_file: Option<PathBuf>,
    /// The API server says who else may.
    pub delegated: bool,
}

/// Where the cluster is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// The API server.
    Api {
        /// The kubeconfig; without it the Pod's service account.
        kubeconfig: Option<PathBuf>,
        /// The server's address, over what the kubeconfig says.
        master: Option<String>,
    },
}

/// `detectLocalMode` and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// Pods are within these networks, one an IP family.
    ClusterCidr(Vec<IpNet>),
    /// Pods of this node are within its `spec.podCIDRs`.
    NodeCidr,
    /// Pods are behind this bridge.
    BridgeInterface(String),
    /// Pods' interfaces begin with this.
    InterfaceNamePrefix(String),
}

/// Conntrack's limits and time-outs, as flags give them; zero leaves the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Entries for each CPU core.
    pub max_per_core: u32,
    /// Entries at least.
    pub min: u32,
    /// Time-out of idle established TCP connections.
    pub tcp_established: Duration,
    /// Time-out in CLOSE_WAIT.
    pub tcp_close_wait: Duration,
    /// Accept TCP packets outside the window.
    pub tcp_be_liberal: bool,
    /// Time-out of unanswered UDP flows.
    pub udp: Duration,
    /// Time-out of answered UDP flows.
    pub udp_stream: Duration,
}

/// One flag or field that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {value:?}: expected {expected}")]
pub struct SettingError {
    /// The flag, or file and path of the field.
    at: String,
    value: String,
    expected: Cow<'static, str>,
}

impl Settings {
    /// Reads and checks what the operator says: by a file, if the flags name one, else by flags.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn read(flags: &Flags, host_name: &str) -> Result<(Self, Notices), Vec<SettingError>> {
        let Some(file) = &flags.config else {
            let said = Configuration::of_flags(flags);
            let settings = Self::check(&said, Check::new(Names::Flags), flags, host_name)?;
            return Ok((settings, Notices::of(&said, &Names::Flags, flags)));
        };
        let names = Names::File(file.clone());
        let mut check = Check::new(names.clone());
        let read = configuration::read(file);
        let troubles = match &read {
            Ok(read) => &read.troubles,
            Err(troubles) => troubles,
        };
        for trouble in troubles {
            check.wrong(&trouble.path, &trouble.value, trouble.expected.clone());
        }
        let Ok(read) = read else {
            return Err(check.errors);
        };
        let mut said = read.configuration;
        said.overlay(flags);
        let settings = Self::check(&said, check, flags, host_name)?;
        let notices = Notices {
            passed_over: read.passed_over,
            ignored_flags: names::ignored(&flags.given),
            ..Notices::of(&said, &names, flags)
        };
        Ok((settings, notices))
    }

    fn check(
        said: &Configuration,
        mut check: Check,
        flags: &Flags,
        host_name: &str,
    ) -> Result<Self, Vec<SettingError>> {
        let proxy_mode = check.proxy_mode(&said.mode);
        let (sync_period, min_sync_period) = check.sync_periods(proxy_mode, said);
        let (healthz, metrics) = (&said.healthz_bind_address, &said.metrics_bind_address);
        let is_nftables = proxy_mode == ProxyMode::Nftables;
        let settings = Self {
            configuration: said.in_force(),
            proxy_mode,
            ipvs: check.ipvs(said),
            ebpf: check.ebpf(said),
            source: check.source(said, flags.master.as_deref()),
            node_name: check.node_name(&said.hostname_override, host_name),
            detect_local: check.detect_local(said),
            node_port_addresses: check.node_port_addresses(&said.node_port_addresses, proxy_mode),
            bind_address: check.bind_address(&said.bind_address),
            masquerade_all: if is_nftables {
                said.nftables.masquerade_all
            } else {
                said.iptables.masquerade_all
            },
            masquerade_mark: check.masquerade_mark(proxy_mode, said),
            localhost_node_ports: said.iptables.localhost_node_ports,
            sync_period,
            min_sync_period,
            healthz_address: check.listen("healthzBindAddress", healthz, HEALTHZ_PORT),
            metrics_address: check.listen("metricsBindAddress", metrics, METRICS_PORT),
            metrics_guard: check.metrics_guard(said),
            conntrack: check.conntrack(said),
            oom_score_adj: check.oom_score_adj(said.oom_score_adj),
            logging: check.logging(said),
        };
        check.without_effect(said);
        if check.errors.is_empty() {
            Ok(settings.with_ports())
        } else {
            Err(check.errors)
        }
    }

    /// The addresses in force have ports, whether or not the operator named them.
    fn with_ports(mut self) -> Self {
        let written = |address: Option<SocketAddr>| {
            address.map_or_else(String::new, |address| address.to_string())
        };
        self.configuration.healthz_bind_address = written(self.healthz_address);
        self.configuration.metrics_bind_address = written(self.metrics_address);
        self
    }
}

impl Notices {
    fn of(said: &Configuration, names: &Names, flags: &Flags) -> Self {
        let of_fields = said.without_effect().into_iter();
        let of_fields = of_fields.map(|path| names.short(path).to_owned());
        let of_no_field = ["boot-id-file", "machine-id-file"].into_iter();
        let of_no_field = of_no_field
            .filter(|name| flags.was_given(name))
            .map(|name| format!("--{name}"));
        Self {
            without_effect: of_fields.chain(of_no_field).collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod flag_tests;
#[cfg(test)]
mod tests;
