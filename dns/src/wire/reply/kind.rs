use super::{Reply, Section};
use crate::wire::{Rcode, Rtype};

/// What a reply amounts to: what caches and logs go by (RFC 2308 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Records, or nothing at all without an SOA.
    Success,
    /// The name servers to ask instead.
    Delegation,
    /// The name exists, the type does not: an SOA and no answer.
    Nodata,
    /// The name does not exist.
    Nxdomain,
    /// SERVFAIL or NOTIMP.
    ServerError,
    /// Part of a zone transfer.
    Transfer,
    /// Any other code, or one that the records belie.
    OtherError,
}

impl Kind {
    /// Its name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "NOERROR",
            Self::Delegation => "DELEGATION",
            Self::Nodata => "NODATA",
            Self::Nxdomain => "NXDOMAIN",
            Self::ServerError => "SERVERERROR",
            Self::Transfer => "META",
            Self::OtherError => "OTHERERROR",
        }
    }
}

impl Reply {
    /// What this reply amounts to for whoever asked for `rtype`.
    #[must_use]
    pub fn kind(&self, rtype: Rtype) -> Kind {
        if matches!(rtype, Rtype::AXFR | Rtype::IXFR) {
            return Kind::Transfer;
        }
        match (self.count(Section::Answer) > 0, self.rcode) {
            (true, Rcode::NOERROR) => return Kind::Success,
            (true, Rcode::NXDOMAIN) => return Kind::OtherError,
            _ => {}
        }
        let (mut soa, mut ns) = (false, false);
        let walked = self.for_each_ttl(|section, _, rtype| {
            soa |= section == Section::Authority && rtype == Rtype::SOA;
            ns |= section == Section::Authority && rtype == Rtype::NS;
        });
        match self.rcode {
            _ if walked.is_err() => Kind::OtherError,
            Rcode::NOERROR if soa => Kind::Nodata,
            Rcode::NOERROR if ns => Kind::Delegation,
            Rcode::NOERROR => Kind::Success,
            Rcode::NXDOMAIN => Kind::Nxdomain,
            Rcode::SERVFAIL | Rcode::NOTIMP => Kind::ServerError,
            _ => Kind::OtherError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::trial;

    #[test]
    fn replies_are_what_their_code_and_records_say() {
        let a = "an a. 5 A 1.2.3.4";
        let soa = "ns . 5 SOA a. b. 1 2 3 4 5";
        let ns = "ns . 5 NS a.";
        let cases: [(Rcode, &[&str], Kind); 10] = [
            (Rcode::NOERROR, &[a], Kind::Success),
            (Rcode::NOERROR, &[a, soa], Kind::Success),
            (Rcode::NOERROR, &[], Kind::Success),
            (Rcode::NOERROR, &[soa, ns], Kind::Nodata),
            (Rcode::NOERROR, &[ns], Kind::Delegation),
            (Rcode::NXDOMAIN, &[soa], Kind::Nxdomain),
            (Rcode::NXDOMAIN, &[a], Kind::OtherError),
            (Rcode::SERVFAIL, &[], Kind::ServerError),
            (Rcode::NOTIMP, &[], Kind::ServerError),
            (Rcode::REFUSED, &[], Kind::OtherError),
        ];
        for (rcode, records, kind) in cases {
            let mut exchange = trial::query("a. A");
            let _answered = trial::reply(&mut exchange, rcode, records);
            assert_eq!(exchange.reply.kind(Rtype::A), kind, "{rcode} {records:?}");
            assert_eq!(exchange.reply.kind(Rtype::AXFR), Kind::Transfer);
        }
    }
}
