use switchyard_netlink::Family;
use switchyard_netlink::Protocol;
use switchyard_netlink::ipvs::{
    CHANGES_PER_SEND_MAX, Change, ChangeError, Destination, Forwarding, Ipvs, Persistence,
    SchedulerName, Service, ServiceFlags,
};

use super::{at, destination, key, saved, service, tcp, with_ipvs};
use crate::namespace::run;

#[test]
#[ignore = "needs a kernel with IPVS"]
fn services_and_destinations_are_what_the_tool_sees() {
    with_ipvs(|| {
        let v4 = tcp("10.0.0.1:80");
        let v6 = key(Protocol::Udp, "[fd00::1]:53");
        let sctp = key(Protocol::Sctp, "10.0.0.1:80");
        let six = Service {
            persistence: Some(Persistence {
                timeout_seconds: 10_800,
                prefix_bits: 64,
            }),
            flags: ServiceFlags::ONE_PACKET,
            ..service(v6)
        };
        let hashed = Service {
            scheduler: SchedulerName::new("sh").unwrap(),
            persistence: Some(Persistence::per_client(Family::V4, 60)),
            flags: ServiceFlags::HASH_FALLBACK.with(ServiceFlags::HASH_PORT),
            ..service(sctp)
        };
        let heavy = Destination {
            weight: 100,
            forwarding: Forwarding::DirectRoute,
            ..destination("10.1.0.2:80")
        };
        let changes = [
            Change::NewService(service(v4)),
            Change::NewDestination(v4, destination("10.1.0.1:8080")),
            Change::NewDestination(v4, heavy),
            Change::NewService(six),
            Change::NewDestination(v6, destination("[fd00:1::1]:5353")),
            Change::NewService(hashed),
        ];
        let mut ipvs = Ipvs::open().unwrap();
        let failures = ipvs.apply(&changes).unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        let expected = [
            "-A --sctp-service 10.0.0.1:80 -s sh -p 60 -b sh-fallback,sh-port",
            "-A -t 10.0.0.1:80 -s rr",
            "-A -u [fd00::1]:53 -s rr -p 10800 -M 64 -o",
            "-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1",
            "-a -t 10.0.0.1:80 -r 10.1.0.2:80 -g -w 100",
            "-a -u [fd00::1]:53 -r [fd00:1::1]:5353 -m -w 1",
        ];
        assert_eq!(saved(), expected);
        for wanted in [service(v4), six, hashed] {
            assert_eq!(ipvs.service(&wanted.key).unwrap(), Some(wanted));
        }

        let changes = [
            Change::SetService(Service {
                scheduler: SchedulerName::new("wrr").unwrap(),
                persistence: Some(Persistence::per_client(Family::V4, 300)),
                ..service(v4)
            }),
            Change::SetDestination(v4, Destination::masqueraded(at("10.1.0.1:8080"), 0)),
            Change::DeleteDestination(v4, at("10.1.0.2:80")),
            Change::DeleteService(v6),
            Change::SetService(service(sctp)),
        ];
        let failures = ipvs.apply(&changes).unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        let expected = [
            "-A --sctp-service 10.0.0.1:80 -s rr",
            "-A -t 10.0.0.1:80 -s wrr -p 300",
            "-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 0",
        ];
        assert_eq!(saved(), expected);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn every_scheduler_is_found_and_an_unknown_one_is_named() {
    with_ipvs(|| {
        let mut ipvs = Ipvs::open().unwrap();
        let probe = tcp("198.51.100.0:20000");
        let found = ipvs.schedulers(&probe).unwrap();
        assert_eq!(found, SchedulerName::KNOWN);
        assert_eq!(saved(), <[&str; 0]>::default());

        let unknown = Service {
            scheduler: SchedulerName::new("nosuch").unwrap(),
            ..service(probe)
        };
        let error = ipvs.apply_one(Change::NewService(unknown)).unwrap_err();
        let text = "the virtual service tcp 198.51.100.0:20000 cannot have the scheduler nosuch: \
                    this kernel does not have it (module ip_vs_nosuch)";
        assert_eq!(error.to_string(), text);

        // Somebody's service is not touched, with whatever scheduler.
        ipvs.apply_one(Change::NewService(service(probe))).unwrap();
        let error = ipvs.apply_one(Change::SetService(unknown)).unwrap_err();
        assert_eq!(error.to_string(), text);
        let error = ipvs.schedulers(&probe).unwrap_err();
        let text = "there is a virtual service tcp 198.51.100.0:20000 already";
        assert_eq!(error.to_string(), text);
        assert_eq!(saved(), ["-A -t 198.51.100.0:20000 -s rr"]);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn each_refusal_names_its_object_and_stops_nothing() {
    with_ipvs(|| {
        let (there, gone) = (tcp("10.0.0.1:80"), tcp("10.0.0.2:80"));
        let six = tcp("[fd00::1]:80");
        let weighty = Destination::masqueraded(at("10.1.0.9:80"), u32::MAX);
        let crossed = Destination {
            upper_threshold: 1,
            lower_threshold: 2,
            ..destination("10.1.0.9:80")
        };
        let all_of_them = Service {
            persistence: Some(Persistence {
                timeout_seconds: 1,
                prefix_bits: 0,
            }),
            ..service(six)
        };
        let of = "the virtual service tcp 10.0.0.1:80";
        let range = "its weight or thresholds are out of range";
        let address = "its address is none that one host has, or of another family";
        let changes: Vec<(Change, String)> =
            vec![
            (Change::NewService(service(there)), String::new()),
            (
                Change::NewService(service(there)),
                "there is a virtual service tcp 10.0.0.1:80 already".to_owned(),
            ),
            (
                Change::SetService(service(gone)),
                "there is no virtual service tcp 10.0.0.2:80".to_owned(),
            ),
            (
                Change::DeleteService(gone),
                "there is no virtual service tcp 10.0.0.2:80".to_owned(),
            ),
            (
                Change::NewDestination(gone, destination("10.1.0.1:80")),
                "there is no virtual service tcp 10.0.0.2:80".to_owned(),
            ),
            (Change::NewDestination(there, destination("10.1.0.1:80")), String::new()),
            (
                Change::NewDestination(there, destination("10.1.0.1:80")),
                format!("{of} has a destination 10.1.0.1:80 already"),
            ),
            (
                Change::SetDestination(there, destination("10.1.0.2:80")),
                format!("{of} has no destination 10.1.0.2:80"),
            ),
            (
                Change::DeleteDestination(there, at("10.1.0.2:80")),
                format!("{of} has no destination 10.1.0.2:80"),
            ),
            (
                Change::NewDestination(there, destination("224.0.0.1:80")),
                format!("{of} does not take the destination 224.0.0.1:80: {address}"),
            ),
            (
                Change::NewDestination(there, destination("[fd00::9]:80")),
                format!("{of} does not take the destination [fd00::9]:80: {address}"),
            ),
            (
                Change::NewDestination(there, weighty),
                format!("{of} does not take the destination 10.1.0.9:80: {range}"),
            ),
            (
                Change::SetDestination(there, crossed),
                format!("{of} does not take the destination 10.1.0.9:80: {range}"),
            ),
            (
                Change::NewService(all_of_them),
                "the virtual service tcp [fd00::1]:80 cannot be: the kernel takes its scheduler, \
                 port, flags or persistence for invalid"
                    .to_owned(),
            ),
            (Change::NewDestination(there, destination("10.1.0.3:80")), String::new()),
        ];
        let mut ipvs = Ipvs::open().unwrap();
        let only: Vec<_> = changes.iter().map(|(change, _)| *change).collect();
        let failures = ipvs.apply(&only).unwrap();
        let found: Vec<_> = failures
            .iter()
            .map(|failure| (failure.index, failure.error.to_string()))
            .collect();
        let expected: Vec<_> = changes
            .into_iter()
            .enumerate()
            .filter(|(_, (_, text))| !text.is_empty())
            .map(|(index, (_, text))| (index, text))
            .collect();
        assert_eq!(found, expected);
        let expected = [
            "-A -t 10.0.0.1:80 -s rr",
            "-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -w 1",
            "-a -t 10.0.0.1:80 -r 10.1.0.3:80 -m -w 1",
        ];
        assert_eq!(saved(), expected);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn all_changes_of_several_batches_may_be_refused() {
    with_ipvs(|| {
        let key = tcp("10.0.0.1:80");
        let count = 3 * CHANGES_PER_SEND_MAX + 1;
        let mut changes = vec![Change::NewDestination(key, destination("10.1.0.1:80")); count];
        let made = CHANGES_PER_SEND_MAX + 7;
        changes[made] = Change::NewService(service(key));
        changes[made + 2] = Change::DeleteService(key);
        let mut ipvs = Ipvs::open().unwrap();
        let failures = ipvs.apply(&changes).unwrap();
        let found: Vec<_> = failures.iter().map(|failure| failure.index).collect();
        let expected: Vec<_> = (0..count)
            .filter(|at| !(made..made + 3).contains(at))
            .collect();
        assert_eq!(found, expected);
        assert!(
            failures
                .iter()
                .all(|failure| matches!(failure.error, ChangeError::ServiceMissing { .. })),
        );
        assert!(ipvs.apply(&[]).unwrap().is_empty());
        assert_eq!(run("ipvsadm --save -n"), "");
    });
}
