//! Records that change places without being decoded.

use super::{Reply, Section, is_address};
use crate::wire::Rtype;
use crate::wire::walk::record_at;

/// Records one behind the other that may change places: the same type and length, and the
/// same pointer to before them as owner, so that nothing points into what moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: usize,
    octets: usize,
    number: usize,
}

/// Whether a reply could be shuffled as it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffled {
    /// It was, or there was nothing to do.
    InPlace,
    /// Records would have to change places that are not alike: decode it.
    No,
}

impl Reply {
    /// Puts the addresses of each name in answer and additional section into a random order.
    /// `below` gives a random number below its argument, each with the same probability.
    /// Nothing is changed where that needs decoding: where in the answer other records stand
    /// behind addresses, or where there is more than one MX.
    pub fn shuffle_addresses(&mut self, mut below: impl FnMut(usize) -> usize) -> Shuffled {
        if !self.addresses_lie_well() {
            return Shuffled::No;
        }
        let mut at = self.question_end;
        for (section, count) in self.sections() {
            let mut left = usize::from(count);
            while left > 0 {
                let Ok(place) = record_at(&self.octets, at) else {
                    return Shuffled::No;
                };
                let run = (section != Section::Authority && is_address(&place))
                    .then(|| self.run_from(place, left))
                    .flatten();
                let Some((start, octets, number)) = run else {
                    (at, left) = (place.end, left - 1);
                    continue;
                };
                let run = Run {
                    start,
                    octets,
                    number,
                };
                self.shuffle_run(run, &mut below);
                (at, left) = (start + octets * number, left - number);
            }
        }
        Shuffled::InPlace
    }

    fn shuffle_run(&mut self, run: Run, below: &mut impl FnMut(usize) -> usize) {
        let end = run.start + run.octets * run.number;
        let Some(records) = self.octets.get_mut(run.start..end) else {
            return;
        };
        for index in (1..run.number).rev() {
            let other = below(index + 1);
            if other < index {
                let (head, tail) = records.split_at_mut(index * run.octets);
                let from = other * run.octets;
                if let (Some(one), Some(two)) = (
                    head.get_mut(from..from + run.octets),
                    tail.get_mut(..run.octets),
                ) {
                    one.swap_with_slice(two);
                }
            }
        }
    }

    /// Whether the answer has CNAMEs first and addresses last, and at most one MX; and every
    /// address of several has a pointer as owner.
    fn addresses_lie_well(&self) -> bool {
        let (mut rank, mut exchangers) = (0, 0);
        let mut well = true;
        let mut at = self.question_end;
        for (section, count) in self.sections() {
            for _ in 0..count {
                let Ok(place) = record_at(&self.octets, at) else {
                    return false;
                };
                at = place.end;
                let its_rank = match place.rtype {
                    Rtype::CNAME => 0,
                    Rtype::A | Rtype::AAAA => 2,
                    Rtype::MX => 3,
                    _ => 1,
                };
                if section == Section::Answer {
                    well &= its_rank >= rank;
                    rank = its_rank;
                    exchangers += usize::from(its_rank == 3);
                    let plain = its_rank == 2 && place.fixed - place.start != 2;
                    well &= !(plain && count > 1);
                }
            }
        }
        well && exchangers < 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::trial;
    use crate::wire::Rcode;

    fn after(
        question: &str,
        records: &[&str],
        pick: fn(usize) -> usize,
    ) -> (Shuffled, Vec<String>) {
        let mut exchange = trial::query(question);
        let _answered = trial::reply(&mut exchange, Rcode::NOERROR, records);
        let shuffled = exchange.reply.shuffle_addresses(pick);
        let records = [Section::Answer, Section::Additional].map(|section| {
            let records = trial::section(&exchange, section);
            let data = records
                .iter()
                .filter_map(|record| record.split(' ').next_back());
            data.map(str::to_owned).collect::<Vec<_>>()
        });
        (shuffled, records.concat())
    }

    #[test]
    fn addresses_of_one_name_change_places_and_nothing_else_does() {
        let records = [
            "an a. 5 CNAME b.",
            "an b. 5 A 1.0.0.1",
            "an b. 5 A 1.0.0.2",
            "an b. 5 A 1.0.0.3",
            "ex b. 5 A 2.0.0.1",
            "ex b. 5 A 2.0.0.2",
            "ex a. 5 A 2.0.0.3",
        ];
        // The first always goes last.
        let (shuffled, order) = after("a. A", &records, |_| 0);
        assert_eq!(shuffled, Shuffled::InPlace);
        let expected = "b. 1.0.0.2 1.0.0.3 1.0.0.1 2.0.0.2 2.0.0.1 2.0.0.3";
        assert_eq!(order.join(" "), expected);
    }

    #[test]
    fn what_is_out_of_order_is_left_to_others() {
        let (shuffled, order) = after("a. A", &["an b. 5 A 1.0.0.1", "an a. 5 CNAME b."], |_| 0);
        assert_eq!(shuffled, Shuffled::No);
        assert_eq!(order.len(), 2);
        let exchangers = ["an a. 5 MX 1 x.", "an a. 5 MX 1 y."];
        assert_eq!(after("a. MX", &exchangers, |_| 0).0, Shuffled::No);
    }
}
