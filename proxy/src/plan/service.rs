//! From one Service and its slices to its plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use switchyard_cluster::object::{
    EndpointSlice, IpFamily, Protocol, Service, ServicePort, ServiceType, TrafficPolicy,
};

use super::endpoints::{Candidates, Uses};
use super::{Frontend, HealthCheck, NodeContext, PlanId, PlannedService, ServicePlan};

/// What `service` does on `node`, given its slices in the order of their names.
///
/// Headless Services, ExternalName Services and those with a `service-proxy-name` label do
/// nothing; neither does a family in which the Service has no ClusterIP.
#[must_use]
pub fn plan_service<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    node: &NodeContext,
) -> PlannedService {
    if service.proxied_elsewhere || service.kind == ServiceType::ExternalName {
        return PlannedService::default();
    }
    let slices: Vec<&EndpointSlice> = slices.collect();
    let mut ports = BTreeMap::new();
    let mut health_check = None;
    for family in IpFamily::BOTH {
        let of_family = |address: &&IpAddr| IpFamily::of(**address) == family;
        let Some(cluster_ip) = service.cluster_ips.iter().find(of_family) else {
            continue;
        };
        let mut ready_local = BTreeSet::new();
        for port in &service.ports {
            let candidates = Candidates::collect(&slices, &port.name, port.protocol, family);
            ready_local.extend(candidates.ready_local_addresses(node));
            let plan = plan_port(service, port, *cluster_ip, &candidates, node);
            ports.insert(plan.id.clone(), Arc::new(plan));
        }
        health_check = health_check.max(health_check_of(service, ready_local.len()));
    }
    PlannedService {
        ports: ports.into_values().collect(),
        health_check,
    }
}

/// Load balancers ask only Services of type LoadBalancer with the Local policy.
fn health_check_of(service: &Service, local_endpoints: usize) -> Option<HealthCheck> {
    let wanted = service.kind == ServiceType::LoadBalancer
        && service.external_policy == TrafficPolicy::Local;
    let node_port = service.health_check_node_port.filter(|_| wanted)?;
    Some(HealthCheck {
        node_port,
        local_endpoints,
    })
}

fn plan_port(
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    candidates: &Candidates<'_>,
    node: &NodeContext,
) -> ServicePlan {
    let family = IpFamily::of(cluster_ip);
    let frontends = frontends(service, port, cluster_ip);
    let is_external = frontends.len() > 1;
    let internal_local = service.internal_policy == TrafficPolicy::Local;
    let external_local = is_external && service.external_policy == TrafficPolicy::Local;
    // Even with the external policy Local, pods and the node itself are sent anywhere (the
    // "short circuit"), so whatever is reached from outside needs the cluster list.
    let uses = Uses {
        cluster: !internal_local || is_external,
        local: internal_local || external_local,
        serving: port.protocol == Protocol::Udp,
    };
    let endpoints = candidates.categorize(uses, node);
    let source_ranges = source_ranges(service, family);
    let source_ranges_include_node = source_ranges.as_ref().is_some_and(|ranges| {
        node.ips
            .iter()
            .any(|address| ranges.iter().any(|range| range.contains(address)))
    });
    ServicePlan {
        id: PlanId {
            service: service.name.clone(),
            port_name: Arc::clone(&port.name),
            protocol: port.protocol,
            family,
        },
        port: port.port,
        frontends,
        affinity_timeout_s: service.affinity_timeout_s,
        internal_policy: service.internal_policy,
        external_policy: service.external_policy,
        source_ranges,
        source_ranges_include_node,
        health_check_node_port: health_check_of(service, 0).map(|check| check.node_port),
        ipvs_scheduler: service.ipvs_scheduler,
        cluster: endpoints.cluster,
        local: endpoints.local,
        any_endpoint: endpoints.any,
        serving: endpoints.serving,
    }
}

/// ClusterIP, external IPs, LoadBalancer IPs, node port; an address that stands in two lists
/// counts in the first.
fn frontends(service: &Service, port: &ServicePort, cluster_ip: IpAddr) -> Vec<Frontend> {
    let family = IpFamily::of(cluster_ip);
    let mut seen = vec![cluster_ip];
    let mut fresh = |address: IpAddr| {
        let is_new = IpFamily::of(address) == family
            && !address.is_unspecified()
            && !seen.contains(&address);
        if is_new {
            seen.push(address);
        }
        is_new
    };
    let mut frontends = vec![Frontend::ClusterIp(cluster_ip)];
    for address in &service.external_ips {
        if fresh(*address) {
            frontends.push(Frontend::ExternalIp(*address));
        }
    }
    for ingress in service
        .load_balancer_ips
        .iter()
        .filter(|ingress| !ingress.proxied)
    {
        if fresh(ingress.address) {
            frontends.push(Frontend::LoadBalancerIp(ingress.address));
        }
    }
    frontends.extend(port.node_port.map(Frontend::NodePort));
    frontends
}

/// The ranges of this family. None at all, or one that holds every address, is no
/// restriction; ranges that were given but could not be read let nobody in.
fn source_ranges(service: &Service, family: IpFamily) -> Option<Box<[ipnet::IpNet]>> {
    let given = service.source_ranges.as_deref()?;
    let ranges: Box<[_]> = given
        .iter()
        .copied()
        .filter(|range| IpFamily::of_net(*range) == family)
        .collect();
    let open = ranges.iter().any(|range| range.prefix_len() == 0)
        || (ranges.is_empty() && !given.is_empty());
    (!open).then_some(ranges)
}
