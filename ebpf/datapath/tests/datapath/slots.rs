//! Where things stand in a block.

use proptest::prelude::*;
use switchyard_datapath::Maps;
use switchyard_datapath::layout::{Address, Endpoint, Header, header_flags};
use switchyard_datapath::select::flow_hash;
use switchyard_datapath::service::{List, Service, block_slots, position, scale};
use switchyard_datapath::table::{Block, Table};

fn endpoint(n: u32) -> Endpoint {
    Endpoint::new(Address::v4(n.wrapping_mul(0x9e37_79b1)), 8080_u16.to_be())
}

fn list(count: u32) -> Vec<Endpoint> {
    (0..count).map(endpoint).collect()
}

fn cluster(table: &Table) -> List {
    Service::load(table, 1).unwrap().cluster()
}

#[test]
fn every_endpoint_is_found_and_no_other() {
    for count in (0..=300).chain([1023, 1024, 1025, 65_534, 65_535]) {
        let mut table = Table::new(1);
        let block = Block {
            cluster: list(count),
            ..Block::default()
        };
        table.write_block(1, &block);
        let list = cluster(&table);
        assert_eq!(list.count, count);
        for at in 0..count {
            let there = *table.endpoint(list.first + at).unwrap();
            assert_eq!(position(&table, list, &there), Some(at), "{at} of {count}");
            let mut other = there;
            other.port = 1;
            assert_eq!(position(&table, list, &other), None);
        }
        for n in count..count + 20 {
            assert_eq!(position(&table, list, &endpoint(n)), None);
        }
    }
}

#[test]
fn a_list_that_ends_behind_the_slots_finds_nothing() {
    let table = Table::new(1);
    let list = List {
        first: u32::MAX - 70_000,
        count: 65_535,
    };
    assert_eq!(position(&table, list, &endpoint(0)), None);
    assert!(Service::load(&table, 1).is_none());
    assert!(Service::load(&table, u32::MAX).is_none());
}

#[test]
fn blocks_take_as_many_slots_as_they_say() {
    let counts = [0, 1, 2, 15, 16, 17, 100];
    for cluster in counts {
        for local in [0, 1, 16] {
            for serving in [0, 3] {
                for maglev in [false, true] {
                    let mut table = Table::new(1);
                    let block = Block {
                        cluster: list(cluster),
                        local: list(local),
                        serving: list(serving),
                        maglev,
                        affinity_s: 5,
                        ranges: 6,
                        ..Block::default()
                    };
                    table.write_block(1, &block);
                    table.write_block(2, &block);
                    let (one, two) = (
                        Service::load(&table, 1).unwrap(),
                        Service::load(&table, 2).unwrap(),
                    );
                    assert_eq!(two.base - one.base, block_slots(one.header));
                    assert_eq!((one.header.service, two.header.service), (1, 2));
                    assert_eq!((one.header.affinity_s, one.header.ranges), (5, 6));
                    let any = one.has(header_flags::ANY_ENDPOINT);
                    assert_eq!(any, cluster + local > 0);
                    // The lists lie one behind the other, each with what was put in.
                    let lists = [
                        (one.cluster(), cluster),
                        (one.local(), local),
                        (one.serving(), serving),
                    ];
                    let mut next = one.base + 1;
                    for (at, count) in lists {
                        assert_eq!((at.first, at.count), (next, count));
                        next += count;
                        for n in 0..count {
                            assert!(position(&table, at, &endpoint(n)).is_some());
                        }
                    }
                }
            }
        }
    }
}

/// Against counting slots one by one.
#[test]
fn slots_of_a_header_are_counted() {
    for count in [0, 1, 300, u16::MAX] {
        for maglev in [0, 1, 15, 16, 17, 251, 65_521] {
            let header = Header {
                cluster: count,
                local: count / 2,
                serving: count / 3,
                maglev,
                ..Header::default()
            };
            let positions = (0..maglev).step_by(16).count();
            let expected = [count, count / 2, count / 3]
                .map(usize::from)
                .iter()
                .sum::<usize>();
            let expected = 1 + expected + positions;
            assert_eq!(usize::try_from(block_slots(&header)).unwrap(), expected);
        }
    }
}

#[test]
fn the_maglev_table_is_read_to_its_last_position() {
    for count in [2, 3, 7, 40] {
        let mut table = Table::new(1);
        let block = Block {
            cluster: list(count),
            local: list(1),
            serving: list(2),
            maglev: true,
            ..Block::default()
        };
        table.write_block(1, &block);
        let service = Service::load(&table, 1).unwrap();
        let size = u64::from(service.header.maglev);
        let mut sorted = list(count);
        sorted.sort_unstable();
        let mut expected = vec![0; usize::try_from(size).unwrap()];
        let mut turns = vec![0; sorted.len()];
        switchyard_datapath::maglev::fill(&sorted, &mut expected, &mut turns);
        for (at, expected) in expected.iter().enumerate() {
            // The least hash that comes to this position.
            let at = u64::try_from(at).unwrap();
            let hash = u32::try_from((at << 32).div_ceil(size)).unwrap();
            assert_eq!(service.maglev(&table, hash), Some(u32::from(*expected)));
        }
        assert!(service.maglev(&table, u32::MAX).is_some());
    }
}

#[test]
fn scaled_bits_reach_all_and_only_positions() {
    for count in (1..=1000).chain([65_535, 65_536, u32::MAX]) {
        assert_eq!(scale(0, count), 0);
        assert_eq!(scale(u32::MAX, count), count - 1);
    }
    assert_eq!(scale(u32::MAX, 0), 0);
    let mut counts = [0_u32; 7];
    for bits in (0..=u32::MAX).step_by(1 << 16) {
        counts[usize::try_from(scale(bits, 7)).unwrap()] += 1;
    }
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
}

proptest! {
    #[test]
    fn scaled_bits_stay_below_the_count_and_in_order(bits: u32, more: u32, count in 1_u32..) {
        prop_assert!(scale(bits, count) < count);
        let (low, high) = (bits.min(more), bits.max(more));
        prop_assert!(scale(low, count) <= scale(high, count));
    }
}

/// Hashes of clients that differ in little are even.
#[test]
fn hashes_of_clients_are_even() {
    let vip = Address::v4(0x0a60_000a_u32.to_be());
    let mut by_port = [0_u32; 10];
    let mut by_address = [0_u32; 10];
    for n in 0..10_000_u16 {
        let client = Address::v4(0x0af4_0001_u32.to_be());
        let hash = flow_hash(&client, n.to_be(), &vip, 80_u16.to_be());
        by_port[usize::try_from(scale(hash, 10)).unwrap()] += 1;
        let client = Address::v4((0x0af4_0000 + u32::from(n)).to_be());
        let hash = flow_hash(&client, 0, &vip, 80_u16.to_be());
        by_address[usize::try_from(scale(hash, 10)).unwrap()] += 1;
    }
    for count in by_port.into_iter().chain(by_address) {
        assert!((880..=1120).contains(&count), "{by_port:?} {by_address:?}");
    }
}
