//! Changing virtual services, and what is made of a refusal.

use std::collections::{BTreeSet, HashMap};

use switchyard_netlink::ipvs::{Change, ChangeError, Failure, ServiceKey};

use super::apply::Ipvs;
use super::difference::difference;
use super::error::IpvsModeError;
use super::form::{Present, Wanted};
use super::read;
use crate::backend::Refusal;
use crate::plan::PlanId;

/// All services as they should be.
#[derive(Debug, Default)]
pub(super) struct Services {
    pub(super) wanted: Wanted,
    /// Whose each service is.
    pub(super) owners: HashMap<ServiceKey, PlanId>,
}

impl Ipvs {
    /// Makes changes. What is to go and is not there is gone.
    ///
    /// # Errors
    /// [`IpvsModeError::Refused`] with the first refusal; all other changes are made.
    pub(super) fn change_services(&mut self, changes: &[Change]) -> Result<(), IpvsModeError> {
        let mut failures = self.kernel.apply(changes)?;
        failures.retain(|failure| !is_gone(changes.get(failure.index), &failure.error));
        let failed = failures.len();
        match failures.into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(IpvsModeError::Refused {
                failed,
                of: changes.len(),
                first: failure.error,
            }),
        }
    }

    /// Makes changes; the plan of one that is refused is noted, and no failure. A service that
    /// is not as it was listed is looked at once more, by itself: the kernel's list leaves out
    /// services, or has them twice, where those of other network namespaces change meanwhile.
    pub(super) fn change_blaming(
        &mut self,
        changes: &[Change],
        services: &Services,
    ) -> Result<(), IpvsModeError> {
        let failures = self.kernel.apply(changes)?;
        let otherwise = listed_otherwise(changes, &failures);
        self.blame(changes, failures, &services.owners, &otherwise);
        if otherwise.is_empty() {
            return Ok(());
        }
        let changes = self.look_again(&otherwise, &services.wanted)?;
        tracing::debug!(
            services = otherwise.len(),
            changes = changes.len(),
            "virtual services were not as the kernel had listed them: looked at by themselves"
        );
        let failures = self.kernel.apply(&changes)?;
        self.blame(&changes, failures, &services.owners, &BTreeSet::new());
        Ok(())
    }

    fn blame(
        &mut self,
        changes: &[Change],
        failures: Vec<Failure>,
        owners: &HashMap<ServiceKey, PlanId>,
        but_for: &BTreeSet<ServiceKey>,
    ) {
        for failure in failures {
            let key = changes.get(failure.index).map(Change::service);
            let key = key.filter(|key| !but_for.contains(key));
            if let Some(id) = key.and_then(|key| owners.get(&key)) {
                let message = failure.error.to_string();
                self.refused
                    .entry(id.clone())
                    .or_insert(Refusal { message });
            }
        }
    }

    /// What these services need to be as they should be, as each is now.
    fn look_again(
        &mut self,
        keys: &BTreeSet<ServiceKey>,
        wanted: &Wanted,
    ) -> Result<Vec<Change>, IpvsModeError> {
        let mut present = Present::new();
        for key in keys {
            if let Some(service) = self.kernel.service(key)? {
                present.insert(*key, read::held_service(&mut self.kernel, service)?);
            }
            self.draining.remove(key);
        }
        let theirs = keys.iter().filter_map(|key| wanted.get_key_value(key));
        let theirs = theirs.map(|(key, wanted)| (*key, wanted.clone())).collect();
        let mut changes = difference(&present, &theirs, &[]);
        self.draining.append(&mut changes.draining);
        changes.coming.append(&mut changes.going);
        Ok(changes.coming)
    }
}

/// Whether a change was to remove what the kernel says is not there.
const fn is_gone(change: Option<&Change>, error: &ChangeError) -> bool {
    match change {
        Some(Change::DeleteService(_)) => matches!(error, ChangeError::ServiceMissing { .. }),
        Some(Change::DeleteDestination(..)) => matches!(
            error,
            ChangeError::ServiceMissing { .. } | ChangeError::DestinationMissing { .. }
        ),
        _ => false,
    }
}

/// The services that were refused for nothing but being there, or not.
fn listed_otherwise(changes: &[Change], failures: &[Failure]) -> BTreeSet<ServiceKey> {
    let (mut otherwise, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for failure in failures {
        let Some(change) = changes.get(failure.index) else {
            continue;
        };
        let is_otherwise = matches!(
            failure.error,
            ChangeError::ServiceExists { .. }
                | ChangeError::ServiceMissing { .. }
                | ChangeError::DestinationExists { .. }
                | ChangeError::DestinationMissing { .. }
        );
        let list = if is_otherwise {
            &mut otherwise
        } else {
            &mut refused
        };
        list.insert(change.service());
    }
    // The destinations of a service that can't be made find no service.
    otherwise.retain(|key| !refused.contains(key));
    otherwise
}

#[cfg(test)]
mod tests {
    use switchyard_netlink::Protocol;
    use switchyard_netlink::ipvs::{SchedulerName, Service, ServiceFlags};

    use super::super::form::in_use;
    use super::*;

    fn key(address: &str) -> ServiceKey {
        ServiceKey {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
        }
    }

    fn service(key: ServiceKey) -> Service {
        Service {
            key,
            scheduler: SchedulerName::ROUND_ROBIN,
            persistence: None,
            flags: ServiceFlags::NONE,
        }
    }

    #[test]
    fn what_is_there_or_not_against_the_list_is_looked_at_again_and_nothing_else() {
        let [there, gone, refused] = ["10.96.0.1:80", "10.96.0.2:80", "10.96.0.3:80"].map(key);
        let endpoint = "10.1.0.1:80".parse().unwrap();
        let changes = [
            Change::NewService(service(there)),
            Change::NewDestination(there, in_use(endpoint)),
            Change::SetDestination(gone, in_use(endpoint)),
            Change::NewService(service(refused)),
            Change::NewDestination(refused, in_use(endpoint)),
        ];
        let failure = |index, error| Failure { index, error };
        let unknown = ChangeError::UnknownScheduler {
            service: refused,
            scheduler: SchedulerName::ROUND_ROBIN,
        };
        let failures = [
            failure(0, ChangeError::ServiceExists { service: there }),
            failure(2, ChangeError::ServiceMissing { service: gone }),
            failure(3, unknown),
            failure(4, ChangeError::ServiceMissing { service: refused }),
        ];
        assert_eq!(
            listed_otherwise(&changes, &failures),
            BTreeSet::from([there, gone])
        );
    }

    #[test]
    fn removing_what_is_not_there_is_done() {
        let (service, destination) = (key("10.96.0.1:80"), "10.1.0.1:80".parse().unwrap());
        let no_service = ChangeError::ServiceMissing { service };
        let no_destination = ChangeError::DestinationMissing {
            service,
            destination,
        };
        let delete = Change::DeleteDestination(service, destination);
        assert!(is_gone(Some(&delete), &no_service) && is_gone(Some(&delete), &no_destination));
        assert!(is_gone(Some(&Change::DeleteService(service)), &no_service));
        let set = Change::SetDestination(service, in_use(destination));
        assert!(!is_gone(Some(&set), &no_destination));
    }
}
