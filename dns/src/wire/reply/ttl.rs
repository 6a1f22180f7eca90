use super::Reply;
use crate::wire::u32_at;
use crate::wire::walk::record_at;

impl Reply {
    /// The lowest and the highest TTL of all records, in seconds; `None` without records, or
    /// if they are malformed.
    #[must_use]
    pub fn ttl_range(&self) -> Option<(u32, u32)> {
        let (mut lowest, mut highest) = (u32::MAX, 0);
        let walked = self.for_each_ttl(|_, at, _| {
            let ttl = u32_at(&self.octets, at).unwrap_or_default();
            (lowest, highest) = (lowest.min(ttl), highest.max(ttl));
        });
        walked.ok().filter(|()| lowest <= highest)?;
        Some((lowest, highest))
    }

    /// Gives all records this TTL, in seconds; stops at what is malformed.
    pub fn set_ttls(&mut self, ttl: u32) {
        let records = self.counts.iter().map(|count| usize::from(*count)).sum();
        let mut at = self.question_end;
        for _ in 0..records {
            let Ok(place) = record_at(&self.octets, at) else {
                return;
            };
            if let Some(octets) = self.octets.get_mut(place.ttl()..place.ttl() + 4) {
                octets.copy_from_slice(&ttl.to_be_bytes());
            }
            at = place.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::trial;
    use crate::wire::Rcode;

    #[test]
    fn all_records_get_the_ttl() {
        let mut exchange = trial::query("a. A");
        let records = ["an a. 5 A 1.2.3.4", "ns a. 9 NS b.", "ex b. 7 A 1.2.3.4"];
        let _answered = trial::reply(&mut exchange, Rcode::NOERROR, &records);
        assert_eq!(exchange.reply.ttl_range(), Some((5, 9)));
        exchange.reply.set_ttls(70_000);
        assert_eq!(exchange.reply.ttl_range(), Some((70_000, 70_000)));
        let _answered = trial::reply(&mut exchange, Rcode::NOERROR, &[]);
        assert_eq!(exchange.reply.ttl_range(), None);
    }
}
