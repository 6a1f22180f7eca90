//! What a source says that an operator should hear of, as metrics; and what objects ask for that
//! this machine lacks.

use switchyard_cluster::object::{IpvsScheduler, Kind, ObjectName, Service};
use switchyard_cluster::update::{Problem, Update};

use super::Agent;
use crate::backend::Mode;
use crate::metrics::Metrics;

/// Counts what is wrong with an update.
pub(super) fn count(update: &Update, metrics: &Metrics) {
    match update {
        Update::Unreadable(kind, ..) | Update::Odd(kind, ..) => {
            metrics.object_problems.inc(*kind);
        }
        Update::Trouble(kind, trouble) => {
            let in_trouble = u8::from(trouble.is_some());
            metrics.source_trouble.set(*kind, in_trouble.into());
        }
        Update::Malformed(_)
        | Update::ListStarted(_)
        | Update::Upsert(_)
        | Update::Remove(..)
        | Update::ListDone(_) => {}
    }
}

impl Agent {
    /// Says and counts, once for each change of a Service, that it asks for a scheduler that the
    /// kernel lacks. Names that no kernel knows were found when it was read.
    pub(super) fn report_scheduler(&mut self, name: &ObjectName) {
        if self.mode != Mode::Ipvs {
            return;
        }
        let own = self.settings.ipvs.scheduler;
        let service = self.store.service(name);
        let odd = service.and_then(|service| lacking(service, &self.schedulers, own));
        if let Some(odd) = odd {
            self.source_journal.tell(&odd);
            count(&odd, &self.metrics);
        }
    }
}

/// That a Service of ours asks for a scheduler that is not among the kernel's; it gets `own`.
fn lacking(service: &Service, kernel: &[IpvsScheduler], own: IpvsScheduler) -> Option<Update> {
    let asked = service.ipvs_scheduler?;
    if kernel.contains(&asked) || service.proxied_elsewhere {
        return None;
    }
    let has: Vec<&str> = kernel.iter().map(|scheduler| scheduler.as_str()).collect();
    let problem = Problem {
        place: String::new(),
        field: IpvsScheduler::FIELD.to_owned(),
        message: format!(
            "this kernel has no scheduler \"{asked}\" (module ip_vs_{asked}): it has {}; {own} is \
             taken",
            has.join(", ")
        ),
    };
    Some(Update::Odd(Kind::Service, service.name.clone(), problem))
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::decode::{Keep, decode};
    use switchyard_cluster::interner::Interner;
    use switchyard_cluster::object::Object;

    use super::*;

    const KERNEL: [IpvsScheduler; 2] = [IpvsScheduler::RoundRobin, IpvsScheduler::SourceHashing];

    /// What is said of a Service with this scheduler and these labels.
    fn said(scheduler: &str, labels: &str) -> Option<Update> {
        let json = format!(
            r#"{{"metadata": {{"name": "web", "namespace": "shop", "labels": {{{labels}}},
                "annotations": {{"switchyard.dev/ipvs-scheduler": "{scheduler}"}}}}}}"#
        );
        let decoded = decode(
            Kind::Service,
            &json,
            Keep::FOR_PROXY,
            &mut Interner::default(),
        )
        .unwrap();
        let Object::Service(service) = decoded.object else {
            panic!("it is a Service");
        };
        lacking(&service, &KERNEL, IpvsScheduler::RoundRobin)
    }

    #[test]
    fn a_scheduler_that_the_kernel_lacks_is_said_with_those_it_has() {
        let Some(Update::Odd(Kind::Service, name, problem)) = said("mh", "") else {
            panic!("nothing is said");
        };
        assert_eq!(name.to_string(), "shop/web");
        assert_eq!(
            problem.to_string(),
            "metadata.annotations[\"switchyard.dev/ipvs-scheduler\"]: this kernel has no scheduler \
             \"mh\" (module ip_vs_mh): it has rr, sh; rr is taken"
        );
    }

    #[test]
    fn nothing_is_said_of_one_it_has_or_of_services_of_others() {
        assert_eq!(said("sh", ""), None);
        let of_others = r#""service.kubernetes.io/service-proxy-name": "other""#;
        assert_eq!(said("mh", of_others), None);
    }
}
