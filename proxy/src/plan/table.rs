//! The plans of all Services, and who owns an address that several claim.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use switchyard_cluster::object::{IpFamily, ObjectName, Protocol};
use switchyard_cluster::store::Store;

use super::{
    Frontend, HealthCheck, NodeContext, PlanId, PlannedService, ServicePlan, plan_service,
};

/// The plans of all Services, ready for a backend.
///
/// When two Service ports claim the same address and port, the Service that was created
/// first keeps it (by name where both are of one second) and the other's plan is published
/// without it, until the first lets go.
#[derive(Debug, Default)]
pub struct PlanTable {
    services: HashMap<ObjectName, PlannedService>,
    claims: HashMap<ClaimKey, Vec<Claim>>,
    published: HashSet<Published>,
}

/// A plan that is found by the id within it: a second id would cost seven times the entry.
#[derive(Clone, Debug)]
struct Published(Arc<ServicePlan>);

impl Borrow<PlanId> for Published {
    fn borrow(&self) -> &PlanId {
        &self.0.id
    }
}

impl Hash for Published {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for Published {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Published {}

/// One plan before and after an update; never the same on both sides.
#[derive(Clone, Debug)]
pub struct PlanChange {
    /// Which plan.
    pub id: PlanId,
    /// As it was; `None` if it is new.
    pub old: Option<Arc<ServicePlan>>,
    /// As it is; `None` if it is gone.
    pub new: Option<Arc<ServicePlan>>,
}

/// A Service port that does without an address because an older one holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The port that does without.
    pub loser: PlanId,
    /// What it does without.
    pub frontend: Frontend,
    /// Who has it.
    pub owner: PlanId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClaimKey {
    /// `None` is "the node's addresses".
    address: Option<IpAddr>,
    family: IpFamily,
    protocol: Protocol,
    port: u16,
}

#[derive(Clone, Debug)]
struct Claim {
    created_unix_s: i64,
    plan: Arc<ServicePlan>,
}

impl PlanTable {
    /// Replaces the plan of a Service (a default one removes it) and returns what changed,
    /// including plans of other Services that gained or lost an address by it.
    pub fn update(
        &mut self,
        name: &ObjectName,
        created_unix_s: i64,
        service: PlannedService,
    ) -> Vec<PlanChange> {
        let old = self.services.remove(name);
        let mut touched: BTreeSet<PlanId> = BTreeSet::new();
        for plan in old.iter().flat_map(|old| &old.ports) {
            touched.insert(plan.id.clone());
            for key in claim_keys(plan) {
                self.withdraw(key, &plan.id, &mut touched);
            }
        }
        for plan in &service.ports {
            touched.insert(plan.id.clone());
            for key in claim_keys(plan) {
                self.claim(
                    key,
                    Claim {
                        created_unix_s,
                        plan: Arc::clone(plan),
                    },
                    &mut touched,
                );
            }
        }
        if !service.ports.is_empty() {
            self.services.insert(name.clone(), service);
        }
        touched
            .into_iter()
            .filter_map(|id| self.publish(id))
            .collect()
    }

    /// Plans a Service anew from what the store knows of it (nothing removes its plan) and
    /// returns what changed, as [`Self::update`] does.
    pub fn replan(
        &mut self,
        store: &Store,
        name: &ObjectName,
        node: &NodeContext,
    ) -> Vec<PlanChange> {
        let Some(service) = store.service(name) else {
            return self.update(name, 0, PlannedService::default());
        };
        let slices = store.slices(name).map(Arc::as_ref);
        self.update(
            name,
            service.created_unix_s,
            plan_service(service, slices, node),
        )
    }

    /// Every published plan, in no particular order.
    pub fn plans(&self) -> impl Iterator<Item = &Arc<ServicePlan>> {
        self.published.iter().map(|published| &published.0)
    }

    /// One published plan.
    #[must_use]
    pub fn plan(&self, id: &PlanId) -> Option<&Arc<ServicePlan>> {
        Some(&self.published.get(id)?.0)
    }

    /// The names of all Services that have a plan.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    /// The health checks that load balancers may ask for.
    pub fn health_checks(&self) -> impl Iterator<Item = (&ObjectName, HealthCheck)> {
        self.services
            .iter()
            .filter_map(|(name, planned)| Some((name, planned.health_check?)))
    }

    /// The addresses that ports of a Service do without, and who has them.
    #[must_use]
    pub fn conflicts(&self, service: &ObjectName) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        let Some(planned) = self.services.get(service) else {
            return conflicts;
        };
        for plan in &planned.ports {
            for frontend in &plan.frontends {
                if let Some(owner) = self.owner(claim_key(plan, *frontend))
                    && owner.id != plan.id
                {
                    conflicts.push(Conflict {
                        loser: plan.id.clone(),
                        frontend: *frontend,
                        owner: owner.id.clone(),
                    });
                }
            }
        }
        conflicts
    }

    fn owner(&self, key: ClaimKey) -> Option<&Arc<ServicePlan>> {
        Some(&self.claims.get(&key)?.first()?.plan)
    }

    fn withdraw(&mut self, key: ClaimKey, id: &PlanId, touched: &mut BTreeSet<PlanId>) {
        let Some(claims) = self.claims.get_mut(&key) else {
            return;
        };
        claims.retain(|claim| claim.plan.id != *id);
        if let Some(heir) = claims.first() {
            touched.insert(heir.plan.id.clone());
        } else {
            self.claims.remove(&key);
        }
    }

    fn claim(&mut self, key: ClaimKey, new: Claim, touched: &mut BTreeSet<PlanId>) {
        let claims = self
            .claims
            .entry(key)
            .or_insert_with(|| Vec::with_capacity(1));
        let rank = |claim: &Claim| (claim.created_unix_s, claim.plan.id.clone());
        let at = claims.partition_point(|claim| rank(claim) < rank(&new));
        if let Some(displaced) = claims.first().filter(|_| at == 0) {
            touched.insert(displaced.plan.id.clone());
        }
        claims.insert(at, new);
    }

    /// Works out the published form of one plan anew.
    fn publish(&mut self, id: PlanId) -> Option<PlanChange> {
        let planned = self.services.get(&id.service);
        let raw = planned.and_then(|planned| {
            let ports = &planned.ports;
            ports.iter().find(|plan| plan.id == id)
        });
        let new = raw.map(|raw| self.owned_part(raw));
        if self.plan(&id) == new.as_ref() {
            return None; // the one that others already share stays
        }
        let old = match &new {
            Some(new) => self.published.replace(Published(Arc::clone(new))),
            None => self.published.take(&id),
        };
        let old = old.map(|old| old.0);
        Some(PlanChange { id, old, new })
    }

    fn owned_part(&self, raw: &Arc<ServicePlan>) -> Arc<ServicePlan> {
        let owns = |frontend: &Frontend| {
            self.owner(claim_key(raw, *frontend))
                .is_none_or(|owner| owner.id == raw.id)
        };
        if raw.frontends.iter().all(owns) {
            return Arc::clone(raw);
        }
        let mut part = ServicePlan::clone(raw);
        part.frontends.retain(owns);
        Arc::new(part)
    }
}

fn claim_key(plan: &ServicePlan, frontend: Frontend) -> ClaimKey {
    let (address, port) = match frontend {
        Frontend::ClusterIp(address)
        | Frontend::ExternalIp(address)
        | Frontend::LoadBalancerIp(address) => (Some(address), plan.port),
        Frontend::NodePort(port) => (None, port),
    };
    ClaimKey {
        address,
        family: plan.id.family,
        protocol: plan.id.protocol,
        port,
    }
}

fn claim_keys(plan: &ServicePlan) -> impl Iterator<Item = ClaimKey> {
    plan.frontends
        .iter()
        .map(|frontend| claim_key(plan, *frontend))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Target;
    use super::super::generated::{Generated, cluster, node, table};
    use super::*;

    fn plan(name: &str, address: &str) -> PlannedService {
        let address: IpAddr = address.parse().unwrap();
        let id = PlanId {
            service: ObjectName::new("ns", name),
            port_name: "p".into(),
            protocol: Protocol::Tcp,
            family: IpFamily::of(address),
        };
        let plan = ServicePlan {
            id,
            port: 80,
            frontends: vec![Frontend::ExternalIp(address)],
            affinity_timeout_s: None,
            internal_policy: Default::default(),
            external_policy: Default::default(),
            source_ranges: None,
            source_ranges_include_node: false,
            health_check_node_port: None,
            ipvs_scheduler: None,
            cluster: Box::default(),
            local: Box::default(),
            any_endpoint: false,
            serving: Box::default(),
        };
        PlannedService {
            ports: vec![Arc::new(plan)],
            health_check: None,
        }
    }

    fn holders(table: &PlanTable) -> Vec<&str> {
        let holds = |plan: &&Arc<ServicePlan>| !plan.frontends.is_empty();
        table
            .plans()
            .filter(holds)
            .map(|plan| &*plan.id.service.name)
            .collect()
    }

    /// What each Service port and each endpoint costs.
    #[test]
    fn plans_are_small() {
        assert!(size_of::<Target>() <= 20, "{}", size_of::<Target>());
        assert!(size_of::<Frontend>() <= 20, "{}", size_of::<Frontend>());
        let plan = size_of::<ServicePlan>();
        assert!(plan <= 200, "{plan}");
        assert_eq!(size_of::<Published>(), size_of::<usize>());
        let service = size_of::<(ObjectName, PlannedService)>();
        assert!(service <= 80, "{service}");
        let claim = size_of::<(ClaimKey, Vec<Claim>)>();
        assert!(claim <= 48, "{claim}");
    }

    #[test]
    fn the_older_service_keeps_an_address_and_the_younger_inherits_it() {
        let (old, young) = (
            ObjectName::new("ns", "z-old"),
            ObjectName::new("ns", "a-young"),
        );
        let mut table = PlanTable::default();
        table.update(&young, 200, plan("a-young", "203.0.113.1"));
        assert_eq!(holders(&table), ["a-young"]);
        // Both change: one gains the address, the other loses it.
        assert_eq!(
            table.update(&old, 100, plan("z-old", "203.0.113.1")).len(),
            2
        );
        assert_eq!(holders(&table), ["z-old"]);
        let conflict = table.conflicts(&young).pop().unwrap();
        assert_eq!(conflict.owner.service, old);
        assert!(table.conflicts(&old).is_empty());
        assert_eq!(table.update(&old, 0, PlannedService::default()).len(), 2);
        assert_eq!(holders(&table), ["a-young"]);
        assert!(table.conflicts(&young).is_empty());
    }

    #[test]
    fn what_comes_again_unchanged_changes_nothing() {
        let name = ObjectName::new("ns", "a");
        let mut table = PlanTable::default();
        assert_eq!(table.update(&name, 1, plan("a", "203.0.113.1")).len(), 1);
        assert_eq!(table.update(&name, 1, plan("a", "203.0.113.1")).len(), 0);
    }

    fn published(table: &PlanTable) -> HashMap<PlanId, Arc<ServicePlan>> {
        let plans = table.plans();
        plans
            .map(|plan| (plan.id.clone(), Arc::clone(plan)))
            .collect()
    }

    proptest! {
        /// The order in which Services arrive, change and go leaves no trace, and the changes
        /// that were reported add up to what is published.
        #[test]
        fn history_leaves_no_trace(
            before in cluster(), after in cluster(), node in node(), reversed in any::<bool>(),
        ) {
            let mut table_with_past = table(&before, &node);
            let mut followed = published(&table_with_past);
            let gone = before.iter().map(|generated| (generated, false));
            let mut here: Vec<(&Generated, bool)> =
                after.iter().map(|generated| (generated, true)).collect();
            if reversed {
                here.reverse();
            }
            for (Generated { service, slices }, stays) in gone.chain(here) {
                let planned = if stays {
                    plan_service(service, slices.iter(), &node)
                } else {
                    PlannedService::default()
                };
                let changes =
                    table_with_past.update(&service.name, service.created_unix_s, planned);
                for change in changes {
                    prop_assert_ne!(&change.old, &change.new);
                    prop_assert_eq!(followed.get(&change.id), change.old.as_ref());
                    match change.new {
                        Some(new) => drop(followed.insert(change.id, new)),
                        None => drop(followed.remove(&change.id)),
                    }
                }
            }
            prop_assert_eq!(&published(&table_with_past), &published(&table(&after, &node)));
            prop_assert_eq!(&published(&table_with_past), &followed);
        }
    }
}
