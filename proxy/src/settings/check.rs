mod metrics_guard;
mod without_effect;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, IpvsScheduler};

use super::configuration::{Configuration, Span};
use super::names::Names;
use super::{
    BPF_ROOT, Conntrack, DetectLocal, EbpfSettings, IpvsSettings, Logging, ProxyMode, SettingError,
    Source,
};
use crate::backend::ebpf::Forwarding;
use crate::plan::NodePortAddresses;

/// Bits of a packet's mark.
const MARK_BITS: u32 = 32;
/// The reference keeps whole numbers in 32 bits.
const WHOLE_MAX: u32 = 2_147_483_647;
const OOM_SCORE_MAX: i64 = 1000;

/// Gathers what is wrong.
pub(super) struct Check {
    names: Names,
    pub(super) errors: Vec<SettingError>,
}

impl Check {
    pub(super) fn new(names: Names) -> Self {
        Self {
            names,
            errors: Vec::new(),
        }
    }

    /// Each thing is said once, whatever the number of fields that one flag stands for; of a
    /// field of a file only the first, which the others come from.
    pub(super) fn wrong(
        &mut self,
        path: &str,
        value: &str,
        expected: impl Into<Cow<'static, str>>,
    ) {
        let error = SettingError {
            at: self.names.of(path),
            value: value.to_owned(),
            expected: expected.into(),
        };
        let same = |said: &SettingError| match self.names {
            Names::Flags => *said == error,
            Names::File(_) => said.at == error.at,
        };
        if !self.errors.iter().any(same) {
            self.errors.push(error);
        }
    }

    /// The mode asked for.
    pub(super) fn proxy_mode(&mut self, text: &str) -> ProxyMode {
        let name = if text.is_empty() { "iptables" } else { text };
        ProxyMode::of(name).unwrap_or_else(|| {
            self.wrong(
                "mode",
                text,
                "iptables, ipvs, nftables, ebpf or auto, all that this version has",
            );
            ProxyMode::Iptables
        })
    }

    /// What ebpf mode needs to know.
    pub(super) fn ebpf(&mut self, all: &Configuration) -> EbpfSettings {
        let ebpf = &all.switchyard.ebpf;
        let at = |name: &str| format!("switchyard.ebpf.{name}");
        let bpf_root = ebpf.bpf_root.as_deref().unwrap_or(Path::new(BPF_ROOT));
        let cgroup_root = ebpf.cgroup_root.as_deref();
        let forwarding = ebpf.forwarding.as_deref().unwrap_or("stack");
        EbpfSettings {
            cgroup_root: cgroup_root.map(|path| self.absolute(&at("cgroupRoot"), path)),
            bpf_root: self.absolute(&at("bpfRoot"), bpf_root),
            host_namespace_only: ebpf.host_namespace_only,
            forwarding: Forwarding::of(forwarding).unwrap_or_else(|| {
                self.wrong(&at("forwarding"), forwarding, "stack or direct");
                Forwarding::Stack
            }),
        }
    }

    /// A directory, from the root on: the agent's own working directory says nothing.
    fn absolute(&mut self, path: &str, directory: &Path) -> PathBuf {
        if !directory.is_absolute() {
            let given = directory.display().to_string();
            self.wrong(path, &given, "an absolute path");
        }
        directory.to_owned()
    }

    /// Where the cluster is read from.
    pub(super) fn source(&mut self, all: &Configuration, master: Option<&str>) -> Source {
        let kubeconfig = &all.client_connection.kubeconfig;
        let Some(directory) = &all.switchyard.manifests else {
            return Source::Api {
                kubeconfig: (!kubeconfig.is_empty()).then(|| PathBuf::from(kubeconfig)),
                master: master.map(str::to_owned),
            };
        };
        if !kubeconfig.is_empty() {
            let given = directory.display().to_string();
            let expected = "no clientConnection.kubeconfig beside it";
            self.wrong("switchyard.manifests", &given, expected);
        }
        Source::Manifests(directory.clone())
    }

    pub(super) fn node_name(&mut self, given: &str, host_name: &str) -> String {
        let name = if given.is_empty() { host_name } else { given };
        let name = name.trim().to_lowercase();
        if name.is_empty() {
            self.wrong("hostnameOverride", given, "the name of this node");
        }
        name
    }

    /// The node's address; `None` if it is left open.
    pub(super) fn bind_address(&mut self, text: &str) -> Option<IpAddr> {
        let address = text.parse::<IpAddr>().ok();
        if address.is_none() {
            self.wrong("bindAddress", text, "an IP address");
        }
        address.filter(|address| !address.is_unspecified())
    }

    /// Networks one by one, with a place in the list where there is more than one.
    fn networks(&mut self, path: &str, list: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (at, text) in list.iter().enumerate() {
            match text.trim().parse() {
                Ok(network) => networks.push(network),
                Err(_) => self.wrong(
                    &format!("{path}[{at}]"),
                    text,
                    "a network such as 10.244.0.0/16 or fd00:244::/32",
                ),
            }
        }
        networks
    }

    pub(super) fn detect_local(&mut self, all: &Configuration) -> DetectLocal {
        let list: Vec<String> = all
            .cluster_cidr
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect();
        let networks = self.networks("clusterCIDR", &list);
        for family in IpFamily::BOTH {
            let of_family = |network: &&IpNet| IpFamily::of_net(**network) == family;
            if networks.iter().filter(of_family).count() > 1 {
                self.wrong("clusterCIDR", &all.cluster_cidr, "one network an IP family");
            }
        }
        match all.detect_local_mode.as_str() {
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" => {
                let name = &all.detect_local.bridge_interface;
                self.interface("detectLocal.bridgeInterface", name);
                DetectLocal::BridgeInterface(name.clone())
            }
            "InterfaceNamePrefix" => {
                let prefix = &all.detect_local.interface_name_prefix;
                self.interface("detectLocal.interfaceNamePrefix", prefix);
                DetectLocal::InterfaceNamePrefix(prefix.clone())
            }
            mode => {
                if !matches!(mode, "" | "ClusterCIDR") {
                    self.wrong(
                        "detectLocalMode",
                        mode,
                        "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
                    );
                }
                DetectLocal::ClusterCidr(networks)
            }
        }
    }

    /// Linux takes at most 15 bytes without blanks and slashes (IFNAMSIZ).
    fn interface(&mut self, path: &str, name: &str) {
        let bad = |c: char| c.is_whitespace() || c == '/' || c == '"' || c == '+';
        if name.is_empty() || name.len() > 15 || name.contains(bad) {
            self.wrong(path, name, "an interface name of 1 to 15 letters");
        }
    }

    /// Which local addresses accept node ports. In nftables mode, if it is named, those of the
    /// Node object unless the operator says otherwise, as with the reference.
    pub(super) fn node_port_addresses(
        &mut self,
        list: &[String],
        mode: ProxyMode,
    ) -> NodePortAddresses {
        const PRIMARY: &str = "primary";
        match list {
            [] if mode == ProxyMode::Nftables => return NodePortAddresses::Primary,
            [word] if word == PRIMARY => return NodePortAddresses::Primary,
            list if list.iter().any(|word| word == PRIMARY) => {
                let expected = "networks, or primary alone";
                self.wrong("nodePortAddresses", &list.join(","), expected);
                return NodePortAddresses::Primary;
            }
            _ => {}
        }
        let networks = self.networks("nodePortAddresses", list);
        let everything = IpFamily::BOTH
            .iter()
            .all(|family| NodePortAddresses::Cidrs(networks.clone()).is_all(*family));
        if everything {
            NodePortAddresses::All
        } else {
            NodePortAddresses::Cidrs(networks)
        }
    }

    /// How often to look, and the shortest time between two writes: each mode has fields of its
    /// own for them.
    pub(super) fn sync_periods(
        &mut self,
        mode: ProxyMode,
        all: &Configuration,
    ) -> (Duration, Option<Duration>) {
        let (iptables, ipvs, nftables) = (&all.iptables, &all.ipvs, &all.nftables);
        let of_iptables = self.periods("iptables", iptables.sync_period, iptables.min_sync_period);
        let of_ipvs = self.periods("ipvs", ipvs.sync_period, ipvs.min_sync_period);
        let of_nftables = self.periods("nftables", nftables.sync_period, nftables.min_sync_period);
        match mode {
            ProxyMode::Ipvs => of_ipvs,
            ProxyMode::Nftables => of_nftables,
            ProxyMode::Iptables | ProxyMode::Ebpf | ProxyMode::Auto => of_iptables,
        }
    }

    fn periods(
        &mut self,
        section: &str,
        period: Span,
        least: Option<Span>,
    ) -> (Duration, Option<Duration>) {
        let (at, least_at) = (
            format!("{section}.syncPeriod"),
            format!("{section}.minSyncPeriod"),
        );
        if period <= Span::ZERO {
            self.wrong(&at, &period.to_string(), "more than 0");
        } else if let Some(least) = least.filter(|least| *least > period) {
            self.wrong(
                &least_at,
                &least.to_string(),
                "no more than the sync period",
            );
        }
        let least = least.map(|least| self.duration(&least_at, least));
        (period.duration().unwrap_or_default(), least)
    }

    fn duration(&mut self, path: &str, span: Span) -> Duration {
        span.duration().unwrap_or_else(|| {
            self.wrong(path, &span.to_string(), "0s or more");
            Duration::ZERO
        })
    }

    /// The mark that stands for "masquerade this", in a mode.
    pub(super) fn masquerade_mark(&mut self, mode: ProxyMode, all: &Configuration) -> u32 {
        let iptables = self.mark("iptables.masqueradeBit", all.iptables.masquerade_bit);
        let nftables = self.mark("nftables.masqueradeBit", all.nftables.masquerade_bit);
        if mode == ProxyMode::Nftables {
            nftables
        } else {
            iptables
        }
    }

    fn mark(&mut self, path: &str, bit: i64) -> u32 {
        let fits = u32::try_from(bit).ok().filter(|bit| *bit < MARK_BITS);
        fits.map_or_else(
            || {
                self.wrong(path, &bit.to_string(), "0 to 31");
                0
            },
            |bit| 1 << bit,
        )
    }

    /// What ipvs mode needs to know.
    pub(super) fn ipvs(&mut self, all: &Configuration) -> IpvsSettings {
        let ipvs = &all.ipvs;
        let name = ipvs.scheduler.as_str();
        let scheduler = match name {
            "" => IpvsScheduler::RoundRobin,
            name => IpvsScheduler::from_name(name).unwrap_or_else(|| {
                self.wrong("ipvs.scheduler", name, IpvsScheduler::NAMES);
                IpvsScheduler::RoundRobin
            }),
        };
        IpvsSettings {
            scheduler,
            excluded: self.networks("ipvs.excludeCIDRs", &ipvs.exclude_cidrs),
            strict_arp: ipvs.strict_arp,
            tcp_timeout: self.duration("ipvs.tcpTimeout", ipvs.tcp_timeout),
            tcp_fin_timeout: self.duration("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout),
            udp_timeout: self.duration("ipvs.udpTimeout", ipvs.udp_timeout),
        }
    }

    /// `IP:PORT`, `[IP]:PORT`, or an IP alone with the default port; empty is nowhere.
    pub(super) fn listen(&mut self, path: &str, text: &str, port: u16) -> Option<SocketAddr> {
        if text.is_empty() {
            return None;
        }
        let alone = |text: &str| {
            text.parse()
                .ok()
                .map(|ip: IpAddr| SocketAddr::new(ip, port))
        };
        let address = text.parse().ok().or_else(|| alone(text));
        let address = address.filter(|address| address.port() != 0);
        if address.is_none() {
            self.wrong(
                path,
                text,
                "an address and port such as 0.0.0.0:10256, or nothing",
            );
        }
        address
    }

    /// Conntrack's limits and time-outs.
    pub(super) fn conntrack(&mut self, all: &Configuration) -> Conntrack {
        let conntrack = &all.conntrack;
        let at = |name: &str| format!("conntrack.{name}");
        let mut time = |name: &str, span| self.duration(&at(name), span);
        let tcp_established = time("tcpEstablishedTimeout", conntrack.tcp_established_timeout);
        let tcp_close_wait = time("tcpCloseWaitTimeout", conntrack.tcp_close_wait_timeout);
        let udp = time("udpTimeout", conntrack.udp_timeout);
        let udp_stream = time("udpStreamTimeout", conntrack.udp_stream_timeout);
        Conntrack {
            max_per_core: self.whole("conntrack.maxPerCore", conntrack.max_per_core),
            min: self.whole("conntrack.min", conntrack.min),
            tcp_established,
            tcp_close_wait,
            tcp_be_liberal: conntrack.tcp_be_liberal,
            udp,
            udp_stream,
        }
    }

    fn whole(&mut self, path: &str, number: i64) -> u32 {
        let fits = u32::try_from(number).ok().filter(|fits| *fits <= WHOLE_MAX);
        fits.unwrap_or_else(|| {
            let expected = format!("a whole number from 0 to {WHOLE_MAX}");
            self.wrong(path, &number.to_string(), expected);
            0
        })
    }

    /// How readily the kernel kills this process.
    pub(super) fn oom_score_adj(&mut self, given: i64) -> i64 {
        if !(-OOM_SCORE_MAX..=OOM_SCORE_MAX).contains(&given) {
            self.wrong("oomScoreAdj", &given.to_string(), "-1000 to 1000");
        }
        given
    }

    /// What the log looks like.
    pub(super) fn logging(&mut self, all: &Configuration) -> Logging {
        let logging = &all.logging;
        if !matches!(logging.format.as_str(), "text" | "json") {
            self.wrong("logging.format", &logging.format, "text or json");
        }
        Logging {
            json: logging.format == "json",
            verbosity: self.whole("logging.verbosity", logging.verbosity),
        }
    }
}
