//! What a field of the configuration is called where the operator said it.

use std::path::{Path, PathBuf};

/// Fields of the file, and the flags that say the same.
const FLAGS: [(&str, &str); 63] = [
    ("featureGates", "--feature-gates"),
    ("clientConnection.kubeconfig", "--kubeconfig"),
    ("clientConnection.contentType", "--kube-api-content-type"),
    ("clientConnection.qps", "--kube-api-qps"),
    ("clientConnection.burst", "--kube-api-burst"),
    ("logging.format", "--logging-format"),
    ("logging.flushFrequency", "--log-flush-frequency"),
    ("logging.verbosity", "--v"),
    ("logging.vmodule", "--vmodule"),
    ("logging.options", "--log-text-… and --log-json-…"),
    (
        "logging.options.text.infoBufferSize",
        "--log-text-info-buffer-size",
    ),
    (
        "logging.options.json.infoBufferSize",
        "--log-json-info-buffer-size",
    ),
    ("hostnameOverride", "--hostname-override"),
    ("bindAddress", "--bind-address"),
    ("healthzBindAddress", "--healthz-bind-address"),
    ("metricsBindAddress", "--metrics-bind-address"),
    ("bindAddressHardFail", "--bind-address-hard-fail"),
    ("enableProfiling", "--profiling"),
    (
        "showHiddenMetricsForVersion",
        "--show-hidden-metrics-for-version",
    ),
    ("mode", "--proxy-mode"),
    ("iptables.masqueradeBit", "--iptables-masquerade-bit"),
    ("iptables.masqueradeAll", "--masquerade-all"),
    (
        "iptables.localhostNodePorts",
        "--iptables-localhost-nodeports",
    ),
    ("iptables.syncPeriod", "--iptables-sync-period"),
    ("iptables.minSyncPeriod", "--iptables-min-sync-period"),
    ("nftables.masqueradeBit", "--iptables-masquerade-bit"),
    ("nftables.masqueradeAll", "--masquerade-all"),
    ("nftables.syncPeriod", "--iptables-sync-period"),
    ("nftables.minSyncPeriod", "--iptables-min-sync-period"),
    ("ipvs.syncPeriod", "--ipvs-sync-period"),
    ("ipvs.minSyncPeriod", "--ipvs-min-sync-period"),
    ("ipvs.scheduler", "--ipvs-scheduler"),
    ("ipvs.excludeCIDRs", "--ipvs-exclude-cidrs"),
    ("ipvs.strictARP", "--ipvs-strict-arp"),
    ("ipvs.tcpTimeout", "--ipvs-tcp-timeout"),
    ("ipvs.tcpFinTimeout", "--ipvs-tcpfin-timeout"),
    ("ipvs.udpTimeout", "--ipvs-udp-timeout"),
    ("detectLocalMode", "--detect-local-mode"),
    ("detectLocal.bridgeInterface", "--pod-bridge-interface"),
    (
        "detectLocal.interfaceNamePrefix",
        "--pod-interface-name-prefix",
    ),
    ("clusterCIDR", "--cluster-cidr"),
    ("nodePortAddresses", "--nodeport-addresses"),
    ("oomScoreAdj", "--oom-score-adj"),
    ("conntrack.maxPerCore", "--conntrack-max-per-core"),
    ("conntrack.min", "--conntrack-min"),
    (
        "conntrack.tcpEstablishedTimeout",
        "--conntrack-tcp-timeout-established",
    ),
    (
        "conntrack.tcpCloseWaitTimeout",
        "--conntrack-tcp-timeout-close-wait",
    ),
    ("conntrack.tcpBeLiberal", "--conntrack-tcp-be-liberal"),
    ("conntrack.udpTimeout", "--conntrack-udp-timeout"),
    (
        "conntrack.udpStreamTimeout",
        "--conntrack-udp-timeout-stream",
    ),
    ("configSyncPeriod", "--config-sync-period"),
    ("switchyard.manifests", "--manifests"),
    ("switchyard.ebpf.cgroupRoot", "--cgroup-root"),
    ("switchyard.ebpf.bpfRoot", "--bpf-root"),
    (
        "switchyard.ebpf.hostNamespaceOnly",
        "--ebpf-host-namespace-only",
    ),
    ("switchyard.ebpf.forwarding", "--ebpf-forwarding"),
    ("switchyard.metrics.tlsCertFile", "--metrics-tls-cert-file"),
    ("switchyard.metrics.tlsKeyFile", "--metrics-tls-key-file"),
    ("switchyard.metrics.tokenFile", "--metrics-token-file"),
    (
        "switchyard.metrics.delegatedAuthorization",
        "--metrics-delegated-authorization",
    ),
    // No flags, and so never wrong there.
    ("portRange", "portRange"),
    ("winkernel", "winkernel"),
    ("windowsRunAsService", "windowsRunAsService"),
];

/// Flags that count with `--config`, too, without dashes: what to do, the node's name, where the
/// cluster is, and the log.
const BESIDE_A_FILE: [&str; 15] = [
    "config",
    "write-config-to",
    "cleanup",
    "init-only",
    "master",
    "manifests",
    "hostname-override",
    "v",
    "vmodule",
    "logging-format",
    "log-flush-frequency",
    // Without effect, with a file or without.
    "boot-id-file",
    "machine-id-file",
    "log-text-split-stream",
    "log-json-split-stream",
];

/// Where the operator said what is checked.
#[derive(Clone, Debug)]
pub(super) enum Names {
    Flags,
    File(PathBuf),
}

impl Names {
    /// The name of a field: its flag, or file and path. An element of a list is its list's.
    pub(super) fn of(&self, path: &str) -> String {
        match self {
            Self::Flags => flag_of(path).unwrap_or(path).to_owned(),
            Self::File(file) => in_file(file, path),
        }
    }

    /// The name of a field as it stands in a list of such.
    pub(super) fn short(&self, path: &'static str) -> &'static str {
        match self {
            Self::Flags => flag_of(path).unwrap_or(path),
            Self::File(_) => path,
        }
    }
}

fn flag_of(path: &str) -> Option<&'static str> {
    let (path, _) = path.split_once('[').unwrap_or((path, ""));
    let known = FLAGS.iter().find(|(field, _)| *field == path);
    known.map(|(_, flag)| *flag)
}

fn in_file(file: &Path, path: &str) -> String {
    let file = file.display();
    if path.is_empty() {
        format!("{file}")
    } else {
        format!("{file}: {path}")
    }
}

/// Flags that do not count because there is a file.
pub(super) fn ignored(given: &[String]) -> Vec<String> {
    let counts = |flag: &&String| !BESIDE_A_FILE.contains(&flag.as_str());
    given
        .iter()
        .filter(counts)
        .map(|flag| format!("--{flag}"))
        .collect()
}
