//! What the operator asked for, checked.

mod flags;

pub use flags::Flags;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use switchyard_cluster::object::IpFamily;

use crate::plan::NodePortAddresses;

/// Everything the agent acts by. Made by [`Settings::from_flags`], which reports all that is
/// wrong at once.
#[derive(Clone, Debug)]
pub struct Settings {
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
        if flags.proxy_mode != "iptables" {
            check.wrong(
                "--proxy-mode",
                &flags.proxy_mode,
                "iptables, all that this version has",
            );
        }
        let settings = Self {
            source: match &flags.manifests {
                Some(directory) => Source::Manifests(directory.clone()),
                None => Source::Api {
                    kubeconfig: flags.kubeconfig.clone(),
                    master: flags.master.clone(),
                },
            },
            node_name: check.node_name(flags.hostname_override.as_deref(), host_name),
            detect_local: check.detect_local(flags),
            node_port_addresses: check.node_port_addresses(&flags.nodeport_addresses),
            bind_address: (!flags.bind_address.is_unspecified()).then_some(flags.bind_address),
            masquerade_all: flags.masquerade_all,
            masquerade_mark: 1 << flags.iptables_masquerade_bit,
            localhost_node_ports: flags.iptables_localhost_nodeports,
            sync_period: check.sync_period(flags),
            min_sync_period: flags.iptables_min_sync_period,
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

#[derive(Default)]
struct Check {
    errors: Vec<SettingError>,
}

impl Check {
    fn wrong(&mut self, flag: &'static str, value: &str, expected: &'static str) {
        self.errors.push(SettingError {
            flag,
            value: value.to_owned(),
            expected,
        });
    }

    fn node_name(&mut self, given: Option<&str>, host_name: &str) -> String {
        let name = given.unwrap_or(host_name).trim().to_lowercase();
        if name.is_empty() {
            self.wrong("--hostname-override", &name, "the name of this node");
        }
        name
    }

    fn networks(&mut self, flag: &'static str, text: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            match part.parse() {
                Ok(network) => networks.push(network),
                Err(_) => {
                    self.wrong(
                        flag,
                        part,
                        "a network such as 10.244.0.0/16 or fd00:244::/32",
                    );
                }
            }
        }
        networks
    }

    fn detect_local(&mut self, flags: &Flags) -> DetectLocal {
        let networks = self.networks("--cluster-cidr", &flags.cluster_cidr);
        for family in IpFamily::BOTH {
            let of_family = |network: &&IpNet| IpFamily::of_net(**network) == family;
            if networks.iter().filter(of_family).count() > 1 {
                self.wrong(
                    "--cluster-cidr",
                    &flags.cluster_cidr,
                    "one network an IP family",
                );
            }
        }
        match flags.detect_local_mode.as_str() {
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" => {
                let name = &flags.pod_bridge_interface;
                self.interface("--pod-bridge-interface", name);
                DetectLocal::BridgeInterface(name.clone())
            }
            "InterfaceNamePrefix" => {
                let prefix = &flags.pod_interface_name_prefix;
                self.interface("--pod-interface-name-prefix", prefix);
                DetectLocal::InterfaceNamePrefix(prefix.clone())
            }
            mode => {
                if !matches!(mode, "" | "ClusterCIDR") {
                    self.wrong(
                        "--detect-local-mode",
                        mode,
                        "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
                    );
                }
                DetectLocal::ClusterCidr(networks)
            }
        }
    }

    /// Linux takes at most 15 bytes without blanks and slashes (IFNAMSIZ).
    fn interface(&mut self, flag: &'static str, name: &str) {
        let bad = |c: char| c.is_whitespace() || c == '/' || c == '"' || c == '+';
        if name.is_empty() || name.len() > 15 || name.contains(bad) {
            self.wrong(flag, name, "an interface name of 1 to 15 letters");
        }
    }

    fn node_port_addresses(&mut self, text: &str) -> NodePortAddresses {
        if text.trim() == "primary" {
            return NodePortAddresses::Primary;
        }
        let networks = self.networks("--nodeport-addresses", text);
        let everything = IpFamily::BOTH
            .iter()
            .all(|family| NodePortAddresses::Cidrs(networks.clone()).is_all(*family));
        if everything {
            NodePortAddresses::All
        } else {
            NodePortAddresses::Cidrs(networks)
        }
    }

    fn sync_period(&mut self, flags: &Flags) -> Duration {
        let (period, least) = (flags.iptables_sync_period, flags.iptables_min_sync_period);
        if period.is_zero() {
            self.wrong("--iptables-sync-period", "0s", "more than 0");
        }
        if least.is_some_and(|least| least > period) {
            self.wrong(
                "--iptables-min-sync-period",
                &format!("{least:?}"),
                "no more than --iptables-sync-period",
            );
        }
        period
    }

    /// `IP:PORT`, `[IP]:PORT`, or an IP alone with the default port; empty is nowhere.
    fn listen(&mut self, flag: &'static str, text: &str, port: u16) -> Option<SocketAddr> {
        if text.is_empty() {
            return None;
        }
        let alone = |text: &str| {
            text.parse()
                .ok()
                .map(|ip: IpAddr| SocketAddr::new(ip, port))
        };
        let address = text.parse().ok().or_else(|| alone(text));
        if address.is_none() {
            self.wrong(
                flag,
                text,
                "an address and port such as 0.0.0.0:10256, or nothing",
            );
        }
        address
    }
}

#[cfg(test)]
mod tests {
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
            "--iptables-min-sync-period=1m",
        ])
        .unwrap_err();
        let flags: Vec<_> = errors.iter().map(|error| error.flag).collect();
        let expected = [
            "--proxy-mode",
            "--cluster-cidr",
            "--detect-local-mode",
            "--iptables-min-sync-period",
            "--metrics-bind-address",
        ];
        assert_eq!(flags, expected);
    }
}
