use std::fmt;

/// How IPVS chooses among the endpoints of a Service: every scheduler of the kernel. Other
/// proxy modes don't read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpvsScheduler {
    /// `rr`: each in turn.
    RoundRobin,
    /// `wrr`: each in turn, by weight.
    WeightedRoundRobin,
    /// `lc`: the one with the fewest connections.
    LeastConnections,
    /// `wlc`: the same, by weight.
    WeightedLeastConnections,
    /// `lblc`: one for each destination address, another when it is overloaded.
    LocalityBasedLeastConnections,
    /// `lblcr`: the same with several for each address.
    LocalityBasedLeastConnectionsReplicated,
    /// `dh`: by a hash of the destination address.
    DestinationHashing,
    /// `sh`: by a hash of the client's address.
    SourceHashing,
    /// `sed`: where the shortest delay is expected.
    ShortestExpectedDelay,
    /// `nq`: an idle one, else as `sed`.
    NeverQueue,
    /// `fo`: the one of the highest weight.
    WeightedFailover,
    /// `ovf`: the same, until it has as many connections as weight.
    WeightedOverflow,
    /// `mh`: Maglev hashing of the client's address and port. Linux 4.18.
    MaglevHashing,
}

impl IpvsScheduler {
    /// All of them, in the order of the kernel's documentation.
    pub const ALL: [Self; 13] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::LeastConnections,
        Self::WeightedLeastConnections,
        Self::LocalityBasedLeastConnections,
        Self::LocalityBasedLeastConnectionsReplicated,
        Self::DestinationHashing,
        Self::SourceHashing,
        Self::ShortestExpectedDelay,
        Self::NeverQueue,
        Self::WeightedFailover,
        Self::WeightedOverflow,
        Self::MaglevHashing,
    ];

    /// All names, for messages.
    pub const NAMES: &'static str = "rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf or mh";

    /// The field of a Service that names one.
    pub const FIELD: &'static str = "metadata.annotations[\"switchyard.dev/ipvs-scheduler\"]";

    /// The kernel's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnections => "lc",
            Self::WeightedLeastConnections => "wlc",
            Self::LocalityBasedLeastConnections => "lblc",
            Self::LocalityBasedLeastConnectionsReplicated => "lblcr",
            Self::DestinationHashing => "dh",
            Self::SourceHashing => "sh",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::WeightedFailover => "fo",
            Self::WeightedOverflow => "ovf",
            Self::MaglevHashing => "mh",
        }
    }

    /// From the kernel's name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|scheduler| scheduler.as_str() == name)
    }
}

impl fmt::Display for IpvsScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_all_are_named() {
        for scheduler in IpvsScheduler::ALL {
            assert_eq!(
                IpvsScheduler::from_name(scheduler.as_str()),
                Some(scheduler)
            );
        }
        let names = IpvsScheduler::ALL.map(IpvsScheduler::as_str);
        assert_eq!(names.join(", "), IpvsScheduler::NAMES.replace(" or", ","));
        assert_eq!(IpvsScheduler::from_name("RR"), None);
    }
}
