//! Tables by which all nodes choose alike.

use switchyard_datapath::layout::{Address, Endpoint};
use switchyard_datapath::maglev::{fill, size};

/// Sorted endpoints, as the agent has them.
fn endpoints(count: u32) -> Vec<Endpoint> {
    let address = |n: u32| Address::v4((0x0af4_0000 + n * 7).to_be());
    let mut all: Vec<_> = (0..count)
        .map(|n| Endpoint::new(address(n), 8080_u16.to_be()))
        .collect();
    all.sort_unstable();
    all
}

fn table(endpoints: &[Endpoint], size: u32) -> Vec<u16> {
    let mut table = vec![u16::MAX; usize::try_from(size).unwrap()];
    fill(endpoints, &mut table, &mut vec![9; endpoints.len()]);
    table
}

#[test]
fn every_position_is_taken_and_shares_are_even() {
    for count in 2..=300 {
        let endpoints = endpoints(count);
        let size = size(count);
        assert!(size >= count * 100);
        let mut shares = vec![0_u32; endpoints.len()];
        for position in table(&endpoints, size) {
            shares[usize::from(position)] += 1;
        }
        let share = f64::from(size) / f64::from(count);
        for taken in shares {
            assert!(
                (f64::from(taken) - share).abs() <= share * 0.02 + 1.0,
                "{count}: {taken}"
            );
        }
    }
}

#[test]
fn the_order_in_which_endpoints_came_does_not_matter() {
    for count in [2, 3, 10, 99, 300] {
        let sorted = endpoints(count);
        let expected = table(&sorted, size(count));
        let mut shuffled = sorted.clone();
        shuffled.reverse();
        shuffled.rotate_left(usize::try_from(count / 3).unwrap());
        shuffled.sort_unstable();
        assert_eq!(table(&shuffled, size(count)), expected);
    }
}

/// Of the flows of endpoints that stay, while the table keeps its size.
#[test]
fn few_flows_move_when_an_endpoint_goes() {
    for count in (2..=300).step_by(13) {
        let before = endpoints(count);
        let size = size(count);
        for lost in [0, before.len() / 2, before.len() - 1] {
            let mut after = before.clone();
            let gone = after.remove(lost);
            let (old, new) = (table(&before, size), table(&after, size));
            let moved = old.iter().zip(&new).filter(|(old, new)| {
                let old = before[usize::from(**old)];
                old != gone && old != after[usize::from(**new)]
            });
            let moved = u32::try_from(moved.count()).unwrap();
            assert!(
                moved <= size / 20,
                "{moved} of {size} moved, {count} endpoints"
            );
        }
    }
}

#[test]
fn ports_make_endpoints_different() {
    let address = Address::v4(0x0af4_0001_u32.to_be());
    let both = [80_u16, 81].map(|port| Endpoint::new(address, port.to_be()));
    let shares = table(&both, 251).iter().filter(|at| **at == 0).count();
    assert!((125..=126).contains(&shares));
}

#[test]
fn sizes_that_leave_nothing_to_choose() {
    let mut table = [7; 5];
    fill(&[], &mut table, &mut []);
    assert_eq!(table, [7; 5]);
    fill(&endpoints(2), &mut table, &mut [0]);
    assert_eq!(table, [7; 5], "no room for the turns");
    fill(&endpoints(1), &mut table, &mut [0]);
    assert_eq!(table, [0; 5]);
    let mut one = [7];
    fill(&endpoints(1), &mut one, &mut [0]);
    assert_eq!(one, [0]);
    fill(&endpoints(1), &mut [], &mut [0]);
}
