//! Flags → the configuration they stand for.

use std::net::IpAddr;

use super::{
    ClientConnection, Configuration, ConntrackSection, DetectLocalSection, EbpfSection, Iptables,
    IpvsSection, LogOptions, LogStream, Logging, MetricsSection, Nftables, Switchyard,
};
use crate::settings::{BPF_ROOT, Flags};

impl Configuration {
    /// What the flags say when there is no file. Flags of iptables mode are those of nftables
    /// mode, too.
    #[must_use]
    pub fn of_flags(flags: &Flags) -> Self {
        let unused = &flags.unused;
        Self {
            feature_gates: unused.feature_gates.clone(),
            client_connection: client(flags),
            logging: logging(flags),
            hostname_override: flags.hostname_override.clone().unwrap_or_default(),
            bind_address: flags.bind_address.to_string(),
            healthz_bind_address: address(&flags.healthz_bind_address, flags.healthz_port),
            metrics_bind_address: address(&flags.metrics_bind_address, flags.metrics_port),
            bind_address_hard_fail: flags.bind_address_hard_fail,
            enable_profiling: unused.profiling,
            show_hidden_metrics_for_version: unused.show_hidden_metrics_for_version.clone(),
            mode: flags.proxy_mode.clone(),
            iptables: Iptables {
                masquerade_bit: flags.iptables_masquerade_bit.into(),
                masquerade_all: flags.masquerade_all,
                localhost_node_ports: flags.iptables_localhost_nodeports,
                sync_period: flags.iptables_sync_period,
                min_sync_period: flags.iptables_min_sync_period,
            },
            ipvs: ipvs(flags),
            nftables: Nftables {
                masquerade_bit: flags.iptables_masquerade_bit.into(),
                masquerade_all: flags.masquerade_all,
                sync_period: flags.iptables_sync_period,
                min_sync_period: flags.iptables_min_sync_period,
            },
            detect_local_mode: flags.detect_local_mode.clone(),
            detect_local: DetectLocalSection {
                bridge_interface: flags.pod_bridge_interface.clone(),
                interface_name_prefix: flags.pod_interface_name_prefix.clone(),
            },
            cluster_cidr: flags.cluster_cidr.clone(),
            node_port_addresses: list(&flags.nodeport_addresses),
            oom_score_adj: flags.oom_score_adj,
            conntrack: ConntrackSection {
                max_per_core: flags.conntrack_max_per_core.into(),
                min: flags.conntrack_min.into(),
                tcp_established_timeout: flags.conntrack_tcp_timeout_established,
                tcp_close_wait_timeout: flags.conntrack_tcp_timeout_close_wait,
                tcp_be_liberal: flags.conntrack_tcp_be_liberal,
                udp_timeout: flags.conntrack_udp_timeout,
                udp_stream_timeout: flags.conntrack_udp_timeout_stream,
            },
            config_sync_period: unused.config_sync_period,
            switchyard: switchyard(flags),
            ..Self::default()
        }
    }

    /// What flags say also where there is a file: the node's name, the log, and where the
    /// cluster is read from without an API server.
    pub(in crate::settings) fn overlay(&mut self, flags: &Flags) {
        if let Some(name) = flags
            .hostname_override
            .as_ref()
            .filter(|name| !name.is_empty())
        {
            self.hostname_override = name.trim().to_lowercase();
        }
        if let Some(directory) = &flags.manifests {
            self.switchyard.manifests = Some(directory.clone());
            self.client_connection.kubeconfig = String::new();
        }
        let (given, said) = (logging(flags), &mut self.logging);
        if flags.was_given("v") {
            said.verbosity = given.verbosity;
        }
        if flags.was_given("logging-format") {
            said.format = given.format;
        }
        if flags.was_given("log-flush-frequency") {
            said.flush_frequency = given.flush_frequency;
        }
        if flags.was_given("vmodule") {
            // The first that fits counts.
            said.vmodule.splice(0..0, given.vmodule);
        }
    }
}

fn client(flags: &Flags) -> ClientConnection {
    let unused = &flags.unused;
    let path = flags
        .kubeconfig
        .as_ref()
        .map(|path| path.display().to_string());
    ClientConnection {
        kubeconfig: path.unwrap_or_default(),
        accept_content_types: String::new(),
        content_type: unused.kube_api_content_type.clone(),
        qps: unused.kube_api_qps.clone(),
        burst: unused.kube_api_burst,
    }
}

fn logging(flags: &Flags) -> Logging {
    let unused = &flags.unused;
    let stream = |split_stream, size: &str| LogStream {
        split_stream,
        info_buffer_size: size.to_owned(),
    };
    Logging {
        format: flags.logging_format.clone(),
        flush_frequency: unused.log_flush_frequency,
        verbosity: flags.verbosity.into(),
        vmodule: unused.vmodule.0.clone(),
        options: LogOptions {
            text: stream(
                unused.log_text_split_stream,
                &unused.log_text_info_buffer_size,
            ),
            json: stream(
                unused.log_json_split_stream,
                &unused.log_json_info_buffer_size,
            ),
        },
    }
}

fn ipvs(flags: &Flags) -> IpvsSection {
    IpvsSection {
        sync_period: flags.ipvs_sync_period,
        min_sync_period: flags.ipvs_min_sync_period,
        scheduler: flags.ipvs_scheduler.clone(),
        exclude_cidrs: list(&flags.ipvs_exclude_cidrs),
        strict_arp: flags.ipvs_strict_arp,
        tcp_timeout: flags.ipvs_tcp_timeout,
        tcp_fin_timeout: flags.ipvs_tcpfin_timeout,
        udp_timeout: flags.ipvs_udp_timeout,
    }
}

fn switchyard(flags: &Flags) -> Switchyard {
    let said = |text: &str, usual: &str| (text != usual).then(|| text.to_owned());
    Switchyard {
        manifests: flags.manifests.clone(),
        ebpf: EbpfSection {
            cgroup_root: flags.cgroup_root.clone(),
            bpf_root: Some(flags.bpf_root.clone()).filter(|path| *path != *BPF_ROOT),
            host_namespace_only: flags.ebpf_host_namespace_only,
            forwarding: said(&flags.ebpf_forwarding, "stack"),
        },
        metrics: MetricsSection {
            tls_cert_file: flags.metrics_tls_cert_file.clone(),
            tls_key_file: flags.metrics_tls_key_file.clone(),
            token_file: flags.metrics_token_file.clone(),
            delegated_authorization: flags.metrics_delegated_authorization,
        },
    }
}

fn list(text: &str) -> Vec<String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// What the two flags of an address say together.
fn address(text: &str, port: u16) -> String {
    match text.parse::<IpAddr>() {
        _ if port == 0 => String::new(),
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        Ok(IpAddr::V4(ip)) => format!("{ip}:{port}"),
        Err(_) => text.to_owned(),
    }
}
