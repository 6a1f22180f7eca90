use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, IpvsScheduler};

use super::{DetectLocal, Flags, IpvsSettings, ProxyMode, SettingError};
use crate::backend::ebpf::Forwarding;
use crate::plan::NodePortAddresses;

/// Gathers what is wrong.
#[derive(Default)]
pub(super) struct Check {
    pub(super) errors: Vec<SettingError>,
}

impl Check {
    pub(super) fn wrong(&mut self, flag: &'static str, value: &str, expected: &'static str) {
        self.errors.push(SettingError {
            flag,
            value: value.to_owned(),
            expected,
        });
    }

    /// The mode asked for.
    pub(super) fn proxy_mode(&mut self, text: &str) -> ProxyMode {
        ProxyMode::of(text).unwrap_or_else(|| {
            self.wrong(
                "--proxy-mode",
                text,
                "iptables, ipvs, nftables, ebpf or auto, all that this version has",
            );
            ProxyMode::Iptables
        })
    }

    /// Who forwards translated packets.
    pub(super) fn forwarding(&mut self, text: &str) -> Forwarding {
        Forwarding::of(text).unwrap_or_else(|| {
            self.wrong("--ebpf-forwarding", text, "stack or direct");
            Forwarding::Stack
        })
    }

    /// A directory, from the root on: the agent's own working directory says nothing.
    pub(super) fn absolute(&mut self, flag: &'static str, path: &Path) -> PathBuf {
        if !path.is_absolute() {
            self.wrong(flag, &path.display().to_string(), "an absolute path");
        }
        path.to_owned()
    }

    pub(super) fn node_name(&mut self, given: Option<&str>, host_name: &str) -> String {
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

    pub(super) fn detect_local(&mut self, flags: &Flags) -> DetectLocal {
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

    /// Which local addresses accept node ports. In nftables mode, if it is named, those of the
    /// Node object unless the operator says otherwise, as with the reference.
    pub(super) fn node_port_addresses(&mut self, text: &str, mode: ProxyMode) -> NodePortAddresses {
        let is_default = text.trim().is_empty() && mode == ProxyMode::Nftables;
        if text.trim() == "primary" || is_default {
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

    /// How often to look, and the shortest time between two writes: each mode has flags of its
    /// own for them.
    pub(super) fn sync_periods(
        &mut self,
        mode: ProxyMode,
        flags: &Flags,
    ) -> (Duration, Option<Duration>) {
        let ipvs = (
            "--ipvs-sync-period",
            flags.ipvs_sync_period,
            "--ipvs-min-sync-period",
            flags.ipvs_min_sync_period,
        );
        let iptables = (
            "--iptables-sync-period",
            flags.iptables_sync_period,
            "--iptables-min-sync-period",
            flags.iptables_min_sync_period,
        );
        for (flag, period, least_flag, least) in [iptables, ipvs] {
            if period.is_zero() {
                self.wrong(flag, "0s", "more than 0");
            }
            if let Some(least) = least.filter(|least| *least > period) {
                let expected = "no more than the sync period";
                self.wrong(least_flag, &format!("{least:?}"), expected);
            }
        }
        match mode {
            ProxyMode::Ipvs => (ipvs.1, ipvs.3),
            ProxyMode::Iptables | ProxyMode::Nftables | ProxyMode::Ebpf | ProxyMode::Auto => {
                (iptables.1, iptables.3)
            }
        }
    }

    /// What ipvs mode needs to know.
    pub(super) fn ipvs(&mut self, flags: &Flags) -> IpvsSettings {
        let name = flags.ipvs_scheduler.as_str();
        let scheduler = match name {
            "" => IpvsScheduler::RoundRobin,
            name => IpvsScheduler::from_name(name).unwrap_or_else(|| {
                self.wrong("--ipvs-scheduler", name, IpvsScheduler::NAMES);
                IpvsScheduler::RoundRobin
            }),
        };
        IpvsSettings {
            scheduler,
            excluded: self.networks("--ipvs-exclude-cidrs", &flags.ipvs_exclude_cidrs),
            strict_arp: flags.ipvs_strict_arp,
            tcp_timeout: flags.ipvs_tcp_timeout,
            tcp_fin_timeout: flags.ipvs_tcpfin_timeout,
            udp_timeout: flags.ipvs_udp_timeout,
        }
    }

    /// `IP:PORT`, `[IP]:PORT`, or an IP alone with the default port; empty is nowhere.
    pub(super) fn listen(
        &mut self,
        flag: &'static str,
        text: &str,
        port: u16,
    ) -> Option<SocketAddr> {
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
