//! Tables by which every node chooses the same endpoint for the same packet, and most flows
//! keep theirs when an endpoint comes or goes (Eisenbud et al., "Maglev", NSDI 2016, §3.4).

use crate::layout::Endpoint;

/// Sizes of tables: primes, each about twice the one before.
const SIZES: [u32; 9] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];

/// Marks a position that nobody has taken.
const FREE: u16 = u16::MAX;

/// The positions in the table of a Service with `endpoints` endpoints: at least a hundred for
/// each, so that no endpoint gets 1 % more than its share (as far as the largest size goes);
/// none where there is nothing to choose, or where there are more endpoints than any table has
/// positions.
#[must_use]
pub fn size(endpoints: u32) -> u32 {
    let [.., largest] = SIZES;
    if endpoints < 2 || endpoints > largest {
        return 0;
    }
    let enough = |size: &u32| *size >= endpoints.saturating_mul(100);
    SIZES.iter().copied().find(enough).unwrap_or(largest)
}

/// Fills `table` with positions of `endpoints`. `turns` is room for as many numbers as there
/// are endpoints. The result depends on the endpoints' addresses and ports alone, provided
/// they come sorted.
///
/// The table's length is a [`size`], or another prime. Nothing is written if there are no
/// endpoints, or more than positions.
pub fn fill(endpoints: &[Endpoint], table: &mut [u16], turns: &mut [u32]) {
    let Ok(size) = u32::try_from(table.len()) else {
        return;
    };
    if endpoints.is_empty() || endpoints.len() > table.len() || endpoints.len() > turns.len() {
        return;
    }
    if let [_] = endpoints {
        table.fill(0);
        return;
    }
    table.fill(FREE);
    turns.fill(0);
    let mut taken = 0;
    loop {
        for (number, (endpoint, turn)) in endpoints.iter().zip(turns.iter_mut()).enumerate() {
            let order = Order::of(endpoint, size);
            take_next(table, &order, turn, number);
            taken += 1;
            if taken == size {
                return;
            }
        }
    }
}

/// The order in which an endpoint takes positions: a walk through all of them.
struct Order {
    offset: u32,
    skip: u32,
    size: u32,
}

impl Order {
    fn of(endpoint: &Endpoint, size: u32) -> Self {
        Self {
            offset: hash(endpoint, 0x5bd1_e995) % size,
            skip: hash(endpoint, 0x1b87_3593) % (size - 1) + 1,
            size,
        }
    }

    fn at(&self, turn: u32) -> usize {
        let walked = u64::from(self.offset) + u64::from(turn) * u64::from(self.skip);
        usize::try_from(walked % u64::from(self.size)).unwrap_or(0)
    }
}

fn take_next(table: &mut [u16], order: &Order, turn: &mut u32, number: usize) {
    while *turn < order.size {
        let position = table.get_mut(order.at(*turn));
        *turn += 1;
        if let Some(position) = position
            && *position == FREE
        {
            *position = u16::try_from(number).unwrap_or(FREE);
            return;
        }
    }
}

/// Of the endpoint's bytes as they stand in packets, so the same on every machine (FNV-1a, then
/// mixed).
fn hash(endpoint: &Endpoint, seed: u32) -> u32 {
    let mut hash = 0x811c_9dc5 ^ seed;
    let words = endpoint
        .address
        .0
        .iter()
        .flat_map(|word| word.to_ne_bytes());
    for byte in words.chain(endpoint.port.to_ne_bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x2c1b_3c6d);
    hash ^ (hash >> 13)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Address;
    use std::vec;
    use std::vec::Vec;

    fn endpoints(count: u32) -> Vec<Endpoint> {
        let mut all: Vec<Endpoint> = (0..count)
            .map(|n| Endpoint::new(Address::v4((0x0af4_0000 + n).to_be()), 8080_u16.to_be()))
            .collect();
        all.sort_unstable();
        all
    }

    fn table(endpoints: &[Endpoint], size: u32) -> Vec<u16> {
        let mut table = vec![0; size.try_into().unwrap()];
        fill(endpoints, &mut table, &mut vec![0; endpoints.len()]);
        table
    }

    #[test]
    fn every_position_is_taken_and_shares_are_even() {
        for count in [2_u32, 3, 7, 10, 50, 300] {
            let endpoints = endpoints(count);
            let size = size(count);
            let mut shares = vec![0_u32; endpoints.len()];
            for position in table(&endpoints, size) {
                shares[usize::from(position)] += 1;
            }
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(
                most - least <= 1 || f64::from(*most) < f64::from(*least) * 1.02,
                "{count}: {least} to {most}"
            );
        }
    }

    #[test]
    fn losing_one_of_ten_moves_few_flows_of_the_others() {
        let before = endpoints(10);
        let mut after = before.clone();
        after.remove(4);
        let (old, new) = (table(&before, 1021), table(&after, 1021));
        let moved = old
            .iter()
            .zip(&new)
            .filter(|(old, new)| before[usize::from(**old)] != after[usize::from(**new)])
            .filter(|(old, _)| **old != 4)
            .count();
        assert!(moved < 1021 / 20, "{moved} of 1021 moved");
    }

    #[test]
    fn sizes_fit() {
        assert_eq!((size(0), size(1), size(2)), (0, 0, 251));
        assert_eq!((size(10), size(11)), (1021, 2039));
        assert_eq!(size(60_000), 65_521);
        // More endpoints than positions: the table is left alone, hashes choose evenly.
        let mut small = [7, 7];
        fill(&endpoints(3), &mut small, &mut [0; 3]);
        assert_eq!(small, [7, 7]);
    }
}
