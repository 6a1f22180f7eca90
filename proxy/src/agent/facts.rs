//! What rules and maps depend on besides the plans.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, IpvsScheduler};

use super::host;
use crate::addresses::LocalAddresses;
use crate::backend::{ebpf, iptables, ipvs, nftables};
use crate::devices::Devices;
use crate::plan::NodeContext;
use crate::settings::Settings;
use crate::stations::Stations;
use crate::sysctl;

/// All of it, as things are at one moment.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) settings: Arc<Settings>,
    pub(super) node: NodeContext,
    /// The IP families that are programmed.
    pub(super) families: Vec<IpFamily>,
    pub(super) local_addresses: Arc<LocalAddresses>,
    /// None, unless the mode is ebpf.
    pub(super) devices: Arc<Devices>,
    pub(super) stations: Arc<Stations>,
    /// Families with so many endpoints that single ones get no comments.
    pub(super) large: HashSet<IpFamily>,
    /// What the kernel's IPVS has; none, unless the mode is ipvs.
    pub(super) schedulers: Arc<[IpvsScheduler]>,
    /// Where ClusterIPs are allocated from, sorted.
    pub(super) service_cidrs: Vec<IpNet>,
    /// Flows of ebpf mode are still under way.
    pub(super) drains: bool,
}

impl Facts {
    /// What the rules of a family depend on.
    pub(super) fn iptables(&self, family: IpFamily) -> iptables::Config {
        let settings = &self.settings;
        iptables::Config {
            family,
            masquerade_mark: settings.masquerade_mark,
            masquerade_all: settings.masquerade_all,
            detector: self.node.detector.clone(),
            localhost_node_ports: family == IpFamily::V4 && host::localhost_node_ports(settings),
            node_port_addresses: node_port_addresses(&self.node, family, &self.local_addresses),
            // Behind a bridge, connection tracking sees the answers of such flows before they are
            // translated back, and takes what follows for invalid.
            drop_invalid: !self.drains && sysctl::tcp_is_strict(Path::new(sysctl::PROC_SYS)),
            nfacct: true,
            endpoint_comments: !self.large.contains(&family),
            cluster_ip_set: None,
        }
    }

    /// What the table of a family depends on.
    pub(super) fn nftables(&self, family: IpFamily) -> nftables::Config {
        let settings = &self.settings;
        let service_cidrs = self.service_cidrs.iter().copied();
        nftables::Config {
            family,
            masquerade_mark: settings.masquerade_mark,
            masquerade_all: settings.masquerade_all,
            detector: self.node.detector.clone(),
            node_port_addresses: node_port_addresses(&self.node, family, &self.local_addresses),
            service_cidrs: service_cidrs
                .filter(|network| IpFamily::of_net(*network) == family)
                .collect(),
        }
    }

    /// What the virtual services of a family depend on.
    pub(super) fn ipvs(&self, family: IpFamily) -> ipvs::Config {
        let settings = &self.settings;
        let node = ipvs::NodeAddresses::of(&self.local_addresses, ipvs::device_index());
        let accepts = |address: &IpAddr| {
            IpFamily::of(*address) == family
                && self
                    .node
                    .node_port_addresses
                    .accepts(*address, &self.node.ips)
        };
        ipvs::Config {
            family,
            masquerade_mark: settings.masquerade_mark,
            masquerade_all: settings.masquerade_all,
            detector: self.node.detector.clone(),
            node_addresses: node.routable.into_iter().filter(accepts).collect(),
            node_ports_are_restricted: !self.node.node_port_addresses.is_all(family),
            held_elsewhere: Arc::new(node.all),
            scheduler: settings.ipvs.scheduler,
            available: Arc::clone(&self.schedulers),
            excluded: settings.ipvs.excluded.clone(),
        }
    }

    /// What maps and programs depend on.
    pub(super) fn ebpf(&self) -> ebpf::Config {
        let timeouts = &self.settings.conntrack;
        ebpf::Config {
            node: self.node.clone(),
            families: self.families.clone(),
            local_addresses: Arc::clone(&self.local_addresses),
            devices: Arc::clone(&self.devices),
            stations: Arc::clone(&self.stations),
            conntrack: ebpf::ConntrackTimeouts {
                tcp_established: timeouts.tcp_established,
                tcp_close_wait: timeouts.tcp_close_wait,
                udp: timeouts.udp,
                udp_stream: timeouts.udp_stream,
            },
            host_namespace_only: self.settings.ebpf.host_namespace_only,
            forwarding: self.settings.ebpf.forwarding,
        }
    }
}

/// Those of `addresses` that accept node ports in this family; `None` where all do.
pub(super) fn node_port_addresses(
    node: &NodeContext,
    family: IpFamily,
    addresses: &LocalAddresses,
) -> Option<Vec<IpAddr>> {
    (!node.node_port_addresses.is_all(family)).then(|| {
        let of_family = addresses.iter().map(|(address, _)| address);
        of_family
            .filter(|address| IpFamily::of(*address) == family)
            .filter(|address| node.node_port_addresses.accepts(*address, &node.ips))
            .collect()
    })
}
