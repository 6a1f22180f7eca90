use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use switchyard_netlink::ipvs::{
    Change, Destination, Forwarding, Ipvs, IpvsError, Persistence, SchedulerName, Service,
    ServiceFlags, Timeouts,
};
use switchyard_netlink::{Family, Protocol};

use super::{at, destination, key, saved, service, tcp, with_ipvs};
use crate::namespace::{run, without_net_admin};

#[test]
#[ignore = "needs a kernel with IPVS"]
fn reads_what_the_tool_wrote() {
    with_ipvs(|| {
        for words in [
            "-A -t 10.0.0.1:80 -s wlc -p 120 -M 255.255.255.0",
            "-a -t 10.0.0.1:80 -r 10.1.0.1:80 -g -w 5 -x 100 -y 50",
            "-a -t 10.0.0.1:80 -r 10.1.0.2:80 -i",
            "-a -t 10.0.0.1:80 -r [fd00:1::1]:80 -i", // a mixed pool
            "-A -u [fd00::1]:53 -s mh -b mh-port",
            "-a -u [fd00::1]:53 -r [fd00:1::1]:5353 -m -w 0",
            "-A -t 10.0.0.2:0 -s rr -p 300",
            "-A -f 7 -s rr", // by a firewall mark: not for us
            "-a -f 7 -r 10.1.0.1:0 -g",
        ] {
            run(&format!("ipvsadm {words}"));
        }
        let before = saved();
        let wide = Service {
            scheduler: SchedulerName::new("wlc").unwrap(),
            persistence: Some(Persistence {
                timeout_seconds: 120,
                prefix_bits: 24,
            }),
            ..service(tcp("10.0.0.1:80"))
        };
        let six = Service {
            scheduler: SchedulerName::new("mh").unwrap(),
            flags: ServiceFlags::HASH_PORT,
            ..service(key(Protocol::Udp, "[fd00::1]:53"))
        };
        let every_port = Service {
            persistence: Some(Persistence::per_client(Family::V4, 300)),
            ..service(tcp("10.0.0.2:0"))
        };
        let mut ipvs = Ipvs::open().unwrap();
        let mut services = ipvs.services().unwrap();
        services.sort_by_key(|service| service.key);
        assert_eq!(services, [wide, every_port, six]);

        let mut found = ipvs.destinations(&wide.key).unwrap();
        found.sort_by_key(|listed| listed.destination.address);
        let first = Destination {
            forwarding: Forwarding::DirectRoute,
            weight: 5,
            upper_threshold: 100,
            lower_threshold: 50,
            ..destination("10.1.0.1:80")
        };
        let tunnel = |address| Destination {
            forwarding: Forwarding::Tunnel,
            ..destination(address)
        };
        let expected = [first, tunnel("10.1.0.2:80"), tunnel("[fd00:1::1]:80")];
        assert_eq!(
            found
                .iter()
                .map(|listed| listed.destination)
                .collect::<Vec<_>>(),
            expected
        );
        assert!(found.iter().all(|listed| listed.connections.are_none()));
        let drained = ipvs.destinations(&six.key).unwrap();
        assert_eq!(
            drained[0].destination,
            Destination::masqueraded(at("[fd00:1::1]:5353"), 0)
        );
        assert_eq!(ipvs.destinations(&tcp("10.0.0.3:80")).unwrap(), []);
        assert_eq!(ipvs.service(&tcp("10.0.0.3:80")).unwrap(), None);

        // What was read can be written as it is.
        let again: Vec<_> = services.into_iter().map(Change::SetService).collect();
        assert!(ipvs.apply(&again).unwrap().is_empty());
        assert_eq!(saved(), before);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn thousands_are_written_and_listed_in_parts() {
    const SERVICES: u32 = 1500;
    const DESTINATIONS: u32 = 700;
    with_ipvs(|| {
        let address = |net: u8, number: u32| {
            let first = Ipv4Addr::new(10, net, 0, 1).to_bits();
            SocketAddr::from((Ipv4Addr::from_bits(first + number), 80))
        };
        let keys: Vec<_> = (0..SERVICES)
            .map(|number| switchyard_netlink::ipvs::ServiceKey {
                protocol: Protocol::Udp,
                address: address(0, number),
            })
            .collect();
        let mut changes: Vec<_> = keys
            .iter()
            .map(|key| Change::NewService(service(*key)))
            .collect();
        changes.extend((0..DESTINATIONS).map(|number| {
            Change::NewDestination(
                keys[0],
                Destination::masqueraded(address(1, number), number),
            )
        }));
        let mut ipvs = Ipvs::open().unwrap();
        let failures = ipvs.apply(&changes).unwrap();
        assert!(failures.is_empty(), "{failures:?}");

        let lines = saved();
        assert_eq!(
            lines.iter().filter(|line| line.starts_with("-A")).count(),
            1500
        );
        assert_eq!(
            lines.iter().filter(|line| line.starts_with("-a")).count(),
            700
        );
        let listed = ipvs.services().unwrap();
        assert_eq!(listed.len(), keys.len());
        let listed: BTreeSet<_> = listed.into_iter().map(|service| service.key).collect();
        assert_eq!(listed, keys.iter().copied().collect());
        let listed = ipvs.destinations(&keys[0]).unwrap();
        assert_eq!(listed.len(), 700);
        let weights: BTreeMap<_, _> = listed
            .into_iter()
            .map(|listed| (listed.destination.address, listed.destination.weight))
            .collect();
        let expected: BTreeMap<_, _> = (0..DESTINATIONS)
            .map(|number| (address(1, number), number))
            .collect();
        assert_eq!(weights, expected);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn timeouts_are_set_one_by_one_and_for_this_namespace_only() {
    with_ipvs(|| {
        let mut ipvs = Ipvs::open().unwrap();
        let first = ipvs.timeouts().unwrap();
        let info = ipvs.info().unwrap();
        assert_eq!(info.version.to_string(), "1.2.1");
        assert_eq!(
            run("ipvsadm -Ln").lines().next().unwrap(),
            format!(
                "IP Virtual Server version 1.2.1 (size={})",
                info.connection_buckets
            )
        );
        let wanted = Timeouts {
            tcp: Some(1234),
            tcp_fin: None,
            udp: Some(77),
        };
        ipvs.set_timeouts(&wanted).unwrap();
        let now = ipvs.timeouts().unwrap();
        assert_eq!(
            now,
            Timeouts {
                tcp_fin: first.tcp_fin,
                ..wanted
            }
        );
        let shown = run("ipvsadm -Ln --timeout");
        let fin = first.tcp_fin.unwrap();
        assert_eq!(
            shown.trim(),
            format!("Timeout (tcp tcpfin udp): 1234 {fin} 77")
        );

        let endless = Timeouts {
            tcp: Some(u32::MAX),
            ..Timeouts::default()
        };
        let error = ipvs.set_timeouts(&endless).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "set the time-outs of IPVS to tcp 4294967295 s, tcp fin -, udp -: the kernel"
            ),
            "{error}"
        );
        assert_eq!(ipvs.timeouts().unwrap(), now);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn without_the_right_the_answer_says_which_is_needed() {
    without_net_admin(
        "ipvs::listing::without_the_right_the_answer_says_which_is_needed",
        || {
            let mut ipvs = Ipvs::open().unwrap();
            let key = tcp("10.0.0.1:80");
            let errors: [IpvsError; 5] = [
                ipvs.info().unwrap_err(),
                ipvs.services().unwrap_err(),
                ipvs.destinations(&key).unwrap_err(),
                ipvs.apply_one(Change::NewService(service(key)))
                    .unwrap_err(),
                ipvs.apply_one(Change::DeleteDestination(key, at("10.1.0.1:80")))
                    .unwrap_err(),
            ];
            for error in errors {
                assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
            }
        },
    );
}
