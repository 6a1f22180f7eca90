//! From a plan to what stands in the maps: values to values.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, Protocol, TrafficPolicy};
use switchyard_datapath::layout::{
    Address, ENDPOINTS_MAX, Endpoint, FrontendKey, Header, Kind, MAGLEV_PER_SLOT, SCTP, TCP, UDP,
    address_flags, header_flags,
};
use switchyard_datapath::maglev;

use super::slot::Slot;
use crate::plan::{Frontend, ServicePlan, Target};

/// What one Service port is in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiled {
    /// Where it is reached.
    pub(super) frontends: Vec<(FrontendKey, Kind)>,
    /// Its addresses, with [`address_flags`].
    pub(super) addresses: Vec<(Address, u32)>,
    /// Who may use its LoadBalancer IPs, as prefix lengths and networks; `None` is everybody.
    pub(super) ranges: Option<Vec<(u32, Address)>>,
    header: Header,
    cluster: Vec<Endpoint>,
    local: Vec<Endpoint>,
    serving: Vec<Endpoint>,
}

/// Why a plan has no form in the maps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CompileError {
    /// Positions in lists are 16 bits wide.
    #[error("{count} endpoints: a Service port may have {ENDPOINTS_MAX} in ebpf mode")]
    TooManyEndpoints {
        /// How many it has.
        count: usize,
    },
    /// The checksum of SCTP is over all of the packet.
    #[error(
        "SCTP port {port} with target port {target}: ebpf mode can change the address of SCTP \
         packets but not the port; use the same port"
    )]
    SctpPort {
        /// The port it is reached at.
        port: u16,
        /// The endpoint's port.
        target: u16,
    },
}

/// The number of a protocol in IP headers.
pub(super) const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => SCTP,
    }
}

/// An endpoint as it stands in lists.
pub(super) fn endpoint(target: &Target) -> Endpoint {
    Endpoint::new(Address::from(target.address), target.port.to_be())
}

/// The form of a plan.
///
/// # Errors
/// When the maps can't say what the plan does.
pub(super) fn compile(plan: &ServicePlan) -> Result<Compiled, CompileError> {
    check(plan)?;
    let serving = match plan.id.protocol {
        Protocol::Udp => sorted(&plan.serving),
        Protocol::Tcp | Protocol::Sctp => Vec::new(),
    };
    let (cluster, local) = (sorted(&plan.cluster), sorted(&plan.local));
    let ranges = plan
        .source_ranges
        .as_deref()
        .map(|ranges| ranges.iter().map(range).collect());
    let maglev = if plan.is_external() {
        maglev::size(count(&cluster).into())
    } else {
        0
    };
    Ok(Compiled {
        frontends: plan
            .frontends
            .iter()
            .map(|at| frontend(plan, *at))
            .collect(),
        addresses: addresses(plan),
        ranges,
        header: Header {
            cluster: count(&cluster),
            local: count(&local),
            serving: count(&serving),
            flags: flags(plan),
            affinity_s: plan.affinity_timeout_s.unwrap_or(0),
            ranges: 0,
            maglev,
            service: 0,
            reserved: [0; 2],
        },
        cluster,
        local,
        serving,
    })
}

fn check(plan: &ServicePlan) -> Result<(), CompileError> {
    let longest = plan
        .cluster
        .len()
        .max(plan.local.len())
        .max(plan.serving.len());
    if u32::try_from(longest).map_or(true, |count| count > ENDPOINTS_MAX) {
        return Err(CompileError::TooManyEndpoints { count: longest });
    }
    if plan.id.protocol == Protocol::Sctp {
        let ports = plan.frontends.iter().map(|frontend| match frontend {
            Frontend::NodePort(port) => *port,
            _ => plan.port,
        });
        for port in ports {
            let targets = plan.cluster.iter().chain(&plan.local);
            if let Some(other) = targets.into_iter().find(|target| target.port != port) {
                let target = other.port;
                return Err(CompileError::SctpPort { port, target });
            }
        }
    }
    Ok(())
}

/// A list's length; `check` has seen that it fits.
fn count(endpoints: &[Endpoint]) -> u16 {
    u16::try_from(endpoints.len()).unwrap_or(u16::MAX)
}

fn sorted(targets: &[Target]) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = targets.iter().map(endpoint).collect();
    endpoints.sort_unstable();
    endpoints
}

fn flags(plan: &ServicePlan) -> u16 {
    let mut flags = 0;
    for (flag, is_set) in [
        (
            header_flags::INTERNAL_LOCAL,
            plan.internal_policy == TrafficPolicy::Local,
        ),
        (
            header_flags::EXTERNAL_LOCAL,
            plan.external_policy == TrafficPolicy::Local,
        ),
        (header_flags::ANY_ENDPOINT, plan.any_endpoint),
        (
            header_flags::RANGES_INCLUDE_NODE,
            plan.source_ranges_include_node,
        ),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    flags
}

fn frontend(plan: &ServicePlan, frontend: Frontend) -> (FrontendKey, Kind) {
    let (address, port, kind) = match frontend {
        Frontend::ClusterIp(address) => (Address::from(address), plan.port, Kind::ClusterIp),
        Frontend::ExternalIp(address) => (Address::from(address), plan.port, Kind::External),
        Frontend::LoadBalancerIp(address) => {
            (Address::from(address), plan.port, Kind::LoadBalancer)
        }
        Frontend::NodePort(port) => (any_address(plan.id.family), port, Kind::External),
    };
    let key = FrontendKey {
        address,
        port: port.to_be(),
        protocol: protocol_number(plan.id.protocol),
        reserved: 0,
    };
    (key, kind)
}

/// The address of node ports.
const fn any_address(family: IpFamily) -> Address {
    match family {
        IpFamily::V4 => Address::v4(0),
        IpFamily::V6 => Address::ANY,
    }
}

fn addresses(plan: &ServicePlan) -> Vec<(Address, u32)> {
    let address = |frontend: &Frontend| match frontend {
        Frontend::ClusterIp(address) => Some((*address, address_flags::CLUSTER_IP)),
        Frontend::ExternalIp(address) | Frontend::LoadBalancerIp(address) => {
            Some((*address, address_flags::EXTERNAL))
        }
        Frontend::NodePort(_) => None,
    };
    let known = plan.frontends.iter().filter_map(address);
    known
        .map(|(address, flag)| (Address::from(address), flag))
        .collect()
}

/// A network as the trie has it: an IPv4 prefix counts from bit 96.
pub(super) fn range(network: &IpNet) -> (u32, Address) {
    let bits = u32::from(network.prefix_len());
    match network.network() {
        IpAddr::V4(_) => (96 + bits, Address::from(network.network())),
        IpAddr::V6(_) => (bits, Address::from(network.network())),
    }
}

impl Compiled {
    /// The Service's block, for its index and the set of its source ranges.
    pub(super) fn block(&self, service: u32, ranges: u32) -> Vec<Slot> {
        let header = Header {
            service,
            ranges,
            ..self.header
        };
        let mut block = vec![Slot::from(header)];
        let lists = [&self.cluster, &self.local, &self.serving];
        block.extend(lists.into_iter().flatten().copied().map(Slot::from));
        block.extend(self.maglev());
        block
    }

    /// How many slots the block takes.
    pub(super) fn slots(&self) -> u32 {
        switchyard_datapath::service::block_slots(&self.header)
    }

    fn maglev(&self) -> Vec<Slot> {
        let Ok(size) = usize::try_from(self.header.maglev) else {
            return Vec::new();
        };
        let per_slot = usize::try_from(MAGLEV_PER_SLOT).unwrap_or(1);
        let mut table = vec![0_u16; size];
        maglev::fill(&self.cluster, &mut table, &mut vec![0; self.cluster.len()]);
        table.chunks(per_slot).map(Slot::maglev).collect()
    }
}
