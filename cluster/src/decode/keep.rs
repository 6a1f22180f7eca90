/// How much of the endpoints of a slice is kept: a big cluster has a hundred thousand of
/// them, and each consumer needs another part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Keep {
    /// Endpoints that are not ready.
    pub unready: bool,
    /// Names of nodes, and topology hints.
    pub nodes: bool,
    /// Names of zones.
    pub zones: bool,
    /// Hostnames.
    pub hostnames: bool,
    /// Names of the pods behind them.
    pub pod_names: bool,
}

impl Keep {
    /// Everything there is.
    pub const ALL: Self = Self {
        unready: true,
        nodes: true,
        zones: true,
        hostnames: true,
        pod_names: true,
    };

    /// What a service proxy reads: no names that only DNS gives.
    pub const FOR_PROXY: Self = Self {
        hostnames: false,
        pod_names: false,
        ..Self::ALL
    };

    /// What a DNS server reads where nothing else is asked for: ready endpoints and their
    /// hostnames.
    pub const FOR_DNS: Self = Self {
        unready: false,
        nodes: false,
        zones: false,
        hostnames: true,
        pod_names: false,
    };
}
