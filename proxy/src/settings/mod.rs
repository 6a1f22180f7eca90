//! What the operator asked for, checked.

mod check;
mod flags;
mod mode;

pub use flags::Flags;
pub use mode::ProxyMode;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use switchyard_cluster::object::IpvsScheduler;

use crate::backend::ebpf::Forwarding;
use crate::plan::NodePortAddresses;
use check::Check;

/// Where maps and links are pinned unless the operator says otherwise.
pub const BPF_ROOT: &str = "/sys/fs/bpf/switchyard";

/// Everything the agent acts by. Made by [`Settings::from_flags`], which reports all that is
/// wrong at once.
#[derive(Clone, Debug)]
pub struct Settings {
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
    /// Conntrack's limits and time-outs.
    pub conntrack: Conntrack,
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
#[error("{flag}: {value:?}: expected {expected}")]
pub struct SettingError {
    flag: &'static str,
    value: String,
    expected: &'static str,
}

impl Settings {
    /// Checks the flags.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn from_flags(flags: &Flags, host_name: &str) -> Result<Self, Vec<SettingError>> {
        let mut check = Check::default();
        if let Some(file) = &flags.config {
            check.wrong(
                "--config",
                &file.display().to_string(),
                "flags instead: this version reads no configuration file",
            );
        }
        let proxy_mode = check.proxy_mode(&flags.proxy_mode);
        let (sync_period, min_sync_period) = check.sync_periods(proxy_mode, flags);
        let settings = Self {
            proxy_mode,
            ipvs: check.ipvs(flags),
            ebpf: EbpfSettings {
                cgroup_root: flags
                    .cgroup_root
                    .as_deref()
                    .map(|path| check.absolute("--cgroup-root", path)),
                bpf_root: check.absolute("--bpf-root", &flags.bpf_root),
                host_namespace_only: flags.ebpf_host_namespace_only,
                forwarding: check.forwarding(&flags.ebpf_forwarding),
            },
            source: match &flags.manifests {
                Some(directory) => Source::Manifests(directory.clone()),
                None => Source::Api {
                    kubeconfig: flags.kubeconfig.clone(),
                    master: flags.master.clone(),
                },
            },
            node_name: check.node_name(flags.hostname_override.as_deref(), host_name),
            detect_local: check.detect_local(flags),
            node_port_addresses: check.node_port_addresses(&flags.nodeport_addresses, proxy_mode),
            bind_address: (!flags.bind_address.is_unspecified()).then_some(flags.bind_address),
            masquerade_all: flags.masquerade_all,
            masquerade_mark: 1 << flags.iptables_masquerade_bit,
            localhost_node_ports: flags.iptables_localhost_nodeports,
            sync_period,
            min_sync_period,
            healthz_address: check.listen(
                "--healthz-bind-address",
                &flags.healthz_bind_address,
                10256,
            ),
            metrics_address: check.listen(
                "--metrics-bind-address",
                &flags.metrics_bind_address,
                10249,
            ),
            conntrack: Conntrack {
                max_per_core: flags.conntrack_max_per_core,
                min: flags.conntrack_min,
                tcp_established: flags.conntrack_tcp_timeout_established,
                tcp_close_wait: flags.conntrack_tcp_timeout_close_wait,
                tcp_be_liberal: flags.conntrack_tcp_be_liberal,
                udp: flags.conntrack_udp_timeout,
                udp_stream: flags.conntrack_udp_timeout_stream,
            },
        };
        if !matches!(flags.logging_format.as_str(), "text" | "json") {
            check.wrong("--logging-format", &flags.logging_format, "text or json");
        }
        if check.errors.is_empty() {
            Ok(settings)
        } else {
            Err(check.errors)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, Vec<SettingError>> {
        let flags = Flags::try_parse_from([&["switchyard-proxy"], args].concat()).unwrap();
        Settings::from_flags(&flags, "Host\n")
    }

    #[test]
    fn defaults_are_the_references() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.node_name, "host");
        assert_eq!(settings.masquerade_mark, 0x4000);
        assert_eq!(settings.node_port_addresses, NodePortAddresses::All);
        assert_eq!(settings.healthz_address.unwrap().port(), 10256);
        assert_eq!(
            settings.metrics_address.unwrap().to_string(),
            "127.0.0.1:10249"
        );
        assert_eq!(settings.sync_period, Duration::from_secs(30));
        assert_eq!(settings.detect_local, DetectLocal::ClusterCidr(vec![]));
        assert!(settings.localhost_node_ports);
        assert_eq!(settings.proxy_mode, ProxyMode::Iptables);
        assert_eq!(settings.ebpf.cgroup_root, None);
        assert_eq!(settings.ebpf.bpf_root, Path::new(BPF_ROOT));
        assert!(!settings.ebpf.host_namespace_only);
        assert_eq!(settings.ipvs.scheduler, IpvsScheduler::RoundRobin);
        assert!(settings.ipvs.excluded.is_empty() && !settings.ipvs.strict_arp);
    }

    #[test]
    fn each_mode_has_its_own_sync_period() {
        let flags = ["--ipvs-sync-period=5s", "--ipvs-min-sync-period=1s"];
        let of = |mode| settings(&[flags.as_slice(), &[mode]].concat()).unwrap();
        let ipvs = of("--proxy-mode=ipvs");
        assert_eq!(ipvs.sync_period, Duration::from_secs(5));
        assert_eq!(ipvs.min_sync_period, Some(Duration::from_secs(1)));
        let iptables = of("--proxy-mode=iptables");
        assert_eq!(iptables.sync_period, Duration::from_secs(30));
        assert_eq!(iptables.min_sync_period, None);
    }

    #[test]
    fn modes_that_are_not_there_are_named_with_those_that_are() {
        let modes = [
            ("ipvs", ProxyMode::Ipvs),
            ("nftables", ProxyMode::Nftables),
            ("ebpf", ProxyMode::Ebpf),
            ("auto", ProxyMode::Auto),
        ];
        for (name, mode) in modes {
            let settings = settings(&[&format!("--proxy-mode={name}")]).unwrap();
            assert_eq!(settings.proxy_mode, mode);
        }
        for name in ["userspace", ""] {
            let errors = settings(&[&format!("--proxy-mode={name}")]).unwrap_err();
            assert_eq!(
                errors[0].to_string(),
                format!(
                    "--proxy-mode: {name:?}: expected iptables, ipvs, nftables, ebpf or auto, all that \
                     this version has"
                )
            );
        }
    }

    #[test]
    fn flags_are_spelled_as_pflag_takes_them() {
        let settings = settings(&[
            "--masquerade-all",
            "--iptables-localhost-nodeports=false",
            "--iptables-sync-period=1m30s",
            "--nodeport-addresses=0.0.0.0/0,::/0",
            "--healthz-bind-address=",
            "-v=4",
        ])
        .unwrap();
        assert!(settings.masquerade_all);
        assert!(!settings.localhost_node_ports);
        assert_eq!(settings.sync_period, Duration::from_secs(90));
        assert_eq!(settings.node_port_addresses, NodePortAddresses::All);
        assert_eq!(settings.healthz_address, None);
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let errors = settings(&[
            "--cluster-cidr=10.244.0.0/16,nonsense",
            "--detect-local-mode=Guess",
            "--metrics-bind-address=here",
            "--proxy-mode=userspace",
            "--ipvs-scheduler=fair",
            "--ipvs-exclude-cidrs=10.0.0.1",
            "--iptables-min-sync-period=1m",
            "--bpf-root=pins",
        ])
        .unwrap_err();
        let flags: Vec<_> = errors.iter().map(|error| error.flag).collect();
        let expected = [
            "--proxy-mode",
            "--iptables-min-sync-period",
            "--ipvs-scheduler",
            "--ipvs-exclude-cidrs",
            "--bpf-root",
            "--cluster-cidr",
            "--detect-local-mode",
            "--metrics-bind-address",
        ];
        assert_eq!(flags, expected);
    }
}
