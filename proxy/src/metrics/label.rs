use crate::backend::ebpf::{DropReason, MapName};
use switchyard_cluster::object::{IpFamily, Kind, Protocol};

/// What tells the series of one metric apart. A label is a type, so that a handle can't be
/// asked for a series that does not exist.
pub trait Label: Copy {
    /// The label names, in the order of [`Label::values`].
    const NAMES: &'static [&'static str];
    /// One value for each name.
    type Values: AsRef<[&'static str]>;
    /// The values of one series.
    fn values(self) -> Self::Values;
}

/// A metric of one series.
impl Label for () {
    const NAMES: &'static [&'static str] = &[];
    type Values = [&'static str; 0];
    fn values(self) -> Self::Values {
        []
    }
}

impl Label for IpFamily {
    const NAMES: &'static [&'static str] = &["ip_family"];
    type Values = [&'static str; 1];
    fn values(self) -> Self::Values {
        [self.as_str()]
    }
}

impl Label for Kind {
    const NAMES: &'static [&'static str] = &["kind"];
    type Values = [&'static str; 1];
    fn values(self) -> Self::Values {
        [self.as_str()]
    }
}

impl Label for Protocol {
    const NAMES: &'static [&'static str] = &["protocol"];
    type Values = [&'static str; 1];
    fn values(self) -> Self::Values {
        [self.as_str()]
    }
}

impl Label for MapName {
    const NAMES: &'static [&'static str] = &["map"];
    type Values = [&'static str; 1];
    fn values(self) -> Self::Values {
        [self.as_str()]
    }
}

impl Label for DropReason {
    const NAMES: &'static [&'static str] = &["reason"];
    type Values = [&'static str; 1];
    fn values(self) -> Self::Values {
        [self.as_str()]
    }
}

/// A table of iptables that we write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `filter`.
    Filter,
    /// `nat`.
    Nat,
}

impl Label for (Table, IpFamily) {
    const NAMES: &'static [&'static str] = &["table", "ip_family"];
    type Values = [&'static str; 2];
    fn values(self) -> Self::Values {
        let table = match self.0 {
            Table::Filter => "filter",
            Table::Nat => "nat",
        };
        [table, self.1.as_str()]
    }
}

/// Which of a Service's two traffic policies is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `internalTrafficPolicy`.
    Internal,
    /// `externalTrafficPolicy`.
    External,
}

impl Label for (Direction, IpFamily) {
    const NAMES: &'static [&'static str] = &["traffic_policy", "ip_family"];
    type Values = [&'static str; 2];
    fn values(self) -> Self::Values {
        let policy = match self.0 {
            Direction::Internal => "internal",
            Direction::External => "external",
        };
        [policy, self.1.as_str()]
    }
}

/// The HTTP status of an answer about our health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthCode {
    /// 200.
    Ok,
    /// 503.
    Unavailable,
}

impl Label for HealthCode {
    const NAMES: &'static [&'static str] = &["code"];
    type Values = [&'static str; 1];
    fn values(self) -> Self::Values {
        match self {
            Self::Ok => ["200"],
            Self::Unavailable => ["503"],
        }
    }
}
