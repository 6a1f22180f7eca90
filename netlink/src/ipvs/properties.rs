//! What is written is read as it was, and what a kernel never says does no harm.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::sample::select;

use super::any_bytes::read_everything;
use super::destination::{Destination, Forwarding, ListedDestination};
use super::scheduler::SchedulerName;
use super::service::{Persistence, Service, ServiceFlags, ServiceKey};
use crate::family::Family;
use crate::messages::{any_attributes, damaged};
use crate::protocol::Protocol;
use crate::writer::Writer;

fn any_address(family: Family) -> impl Strategy<Value = SocketAddr> {
    (any::<[u8; 4]>(), any::<[u8; 16]>(), any::<u16>()).prop_map(move |(v4, v6, port)| {
        let address: IpAddr = match family {
            Family::V4 => v4.into(),
            Family::V6 => v6.into(),
        };
        SocketAddr::new(address, port)
    })
}

fn any_family() -> impl Strategy<Value = Family> {
    select(&Family::BOTH[..])
}

fn any_service() -> impl Strategy<Value = Service> {
    let key = any_family().prop_flat_map(|family| {
        (select(&Protocol::ALL[..]), any_address(family))
            .prop_map(|(protocol, address)| ServiceKey { protocol, address })
    });
    let flags = [
        ServiceFlags::NONE,
        ServiceFlags::ONE_PACKET,
        ServiceFlags::HASH_FALLBACK.with(ServiceFlags::HASH_PORT),
    ];
    let persistence = proptest::option::of((any::<u32>(), 0_u8..=128));
    let scheduler = select(&SchedulerName::KNOWN[..]);
    (key, scheduler, persistence, select(flags.to_vec())).prop_map(
        |(key, scheduler, persistence, flags)| {
            let persistence = persistence.map(|(timeout_seconds, bits)| Persistence {
                timeout_seconds,
                prefix_bits: match key.family() {
                    Family::V4 => bits.min(32),
                    Family::V6 => bits,
                },
            });
            Service {
                key,
                scheduler,
                persistence,
                flags,
            }
        },
    )
}

fn any_destination() -> impl Strategy<Value = Destination> {
    let methods = [
        Forwarding::Masquerade,
        Forwarding::Local,
        Forwarding::Tunnel,
        Forwarding::DirectRoute,
        Forwarding::Bypass,
    ];
    (
        any_family().prop_flat_map(any_address),
        select(methods.to_vec()),
        any::<[u32; 3]>(),
    )
        .prop_map(
            |(address, forwarding, [weight, upper, lower])| Destination {
                address,
                forwarding,
                weight,
                upper_threshold: upper,
                lower_threshold: lower,
            },
        )
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.bytes().unwrap().to_vec()
}

proptest! {
    #[test]
    fn a_service_is_read_as_it_was_written(service in any_service()) {
        let bytes = written(|writer| service.write(writer));
        prop_assert_eq!(Service::read(&bytes), Ok(Some(service)));
    }

    #[test]
    fn a_destination_is_read_as_it_was_written(destination in any_destination()) {
        let bytes = written(|writer| destination.write(writer));
        // Its own family counts, not its service's.
        for family in Family::BOTH {
            let read = ListedDestination::read(&bytes, family).map(|listed| listed.destination);
            prop_assert_eq!(read, Ok(destination));
        }
    }

    #[test]
    fn whatever_comes_is_read_or_refused(bytes in any_attributes()) {
        read_everything(&bytes);
    }

    #[test]
    fn a_damaged_service_is_read_or_refused(
        bytes in any_service().prop_flat_map(|service| {
            damaged(written(|writer| service.write(writer)))
        })
    ) {
        read_everything(&bytes);
    }

    #[test]
    fn a_damaged_destination_is_read_or_refused(
        bytes in any_destination().prop_flat_map(|destination| {
            damaged(written(|writer| destination.write(writer)))
        })
    ) {
        read_everything(&bytes);
    }
}
