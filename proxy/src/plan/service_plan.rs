use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, IpvsScheduler, ObjectName, Protocol, TrafficPolicy};

/// Which port of which Service, in which IP family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanId {
    /// The Service.
    pub service: ObjectName,
    /// The port's name, `""` where unnamed.
    pub port_name: Arc<str>,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The IP family.
    pub family: IpFamily,
}

/// Whether this is the API server's own Service, which other agents of a node wait for.
#[must_use]
pub fn is_api_server(id: &PlanId) -> bool {
    id.service == ObjectName::new("default", "kubernetes") && id.protocol == Protocol::Tcp
}

/// `namespace/name:port`, without the colon where the port is unnamed.
impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if self.port_name.is_empty() {
            Ok(())
        } else {
            write!(f, ":{}", self.port_name)
        }
    }
}

/// Everything a Service does on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedService {
    /// One plan for each port and family, sorted by id.
    pub ports: Vec<Arc<ServicePlan>>,
    /// The health check for load balancers, where the Service asks for one.
    pub health_check: Option<HealthCheck>,
}

/// What a health-check node port reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HealthCheck {
    /// The port it is asked at.
    pub node_port: u16,
    /// Distinct addresses of ready endpoints on this node, over all ports; of the IP family
    /// that has more, since a dual-stack pod is one endpoint.
    pub local_endpoints: usize,
}

/// What one Service port does with packets, in one IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// Which port this is.
    pub id: PlanId,
    /// The port at the ClusterIP, external and LoadBalancer IPs.
    pub port: u16,
    /// Where the Service is reached: ClusterIP first, then external IPs, LoadBalancer IPs
    /// and the node port. None stands twice, and none belongs to an older Service.
    pub frontends: Vec<Frontend>,
    /// ClientIP affinity and its time-out in seconds.
    pub affinity_timeout_s: Option<u32>,
    /// Which endpoints serve the ClusterIP.
    pub internal_policy: TrafficPolicy,
    /// Which endpoints serve the other frontends.
    pub external_policy: TrafficPolicy,
    /// Who may use LoadBalancer IPs; `None` is everybody.
    pub source_ranges: Option<Box<[IpNet]>>,
    /// One of the node's own addresses is within the source ranges.
    pub source_ranges_include_node: bool,
    /// The port at which load balancers ask for this Service's health, where it has one.
    pub health_check_node_port: Option<u16>,
    /// The scheduler that the Service asks IPVS for, in ipvs mode.
    pub ipvs_scheduler: Option<IpvsScheduler>,
    /// Endpoints anywhere, after conditions, topology and terminating fallback; sorted.
    /// Empty too when no frontend may use them.
    pub cluster: Box<[Target]>,
    /// Endpoints on this node, after conditions and terminating fallback; sorted. Empty too
    /// when neither policy is Local.
    pub local: Box<[Target]>,
    /// There is an endpoint somewhere, even if no list above may use it: then a list that is
    /// empty drops, where it would else reject.
    pub any_endpoint: bool,
    /// UDP only: every endpoint that still serves, whatever policy says. Flows to others
    /// are stale.
    pub serving: Box<[Target]>,
}

/// An address (or node port) at which a Service port is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    /// `spec.clusterIPs`.
    ClusterIp(IpAddr),
    /// `spec.externalIPs`.
    ExternalIp(IpAddr),
    /// `status.loadBalancer.ingress`.
    LoadBalancerIp(IpAddr),
    /// `spec.ports[].nodePort` at the node's addresses.
    NodePort(u16),
}

/// Where a packet may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The endpoint's port.
    pub port: u16,
    /// It runs on this node.
    pub is_local: bool,
}

impl Target {
    /// Address and port.
    #[must_use]
    pub const fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl ServicePlan {
    /// The ClusterIP, unless another Service holds it.
    #[must_use]
    pub fn cluster_ip(&self) -> Option<IpAddr> {
        self.frontends.iter().find_map(|frontend| match frontend {
            Frontend::ClusterIp(address) => Some(*address),
            _ => None,
        })
    }

    /// The node port, where there is one.
    #[must_use]
    pub fn node_port(&self) -> Option<u16> {
        self.frontends.iter().find_map(|frontend| match frontend {
            Frontend::NodePort(port) => Some(*port),
            _ => None,
        })
    }

    /// The external IPs.
    pub fn external_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.frontends.iter().filter_map(|frontend| match frontend {
            Frontend::ExternalIp(address) => Some(*address),
            _ => None,
        })
    }

    /// The LoadBalancer IPs.
    pub fn load_balancer_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.frontends.iter().filter_map(|frontend| match frontend {
            Frontend::LoadBalancerIp(address) => Some(*address),
            _ => None,
        })
    }

    /// Whether anything but the ClusterIP reaches it.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.frontends
            .iter()
            .any(|frontend| !matches!(frontend, Frontend::ClusterIp(_)))
    }

    /// The endpoints a direction's policy lets it use.
    #[must_use]
    pub fn targets(&self, policy: TrafficPolicy) -> &[Target] {
        match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }
}
