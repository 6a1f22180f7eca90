//! Which programs are needed, by whom, and which Debian packages they come in.

/// A program, the Debian package it comes in, and what does not work without it.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    /// The package's service, which must not start.
    pub(super) service: Option<&'static str>,
    pub(super) without: &'static str,
}

const fn program(name: &'static str, package: &'static str, without: &'static str) -> Program {
    Program {
        name,
        package,
        service: None,
        without,
    }
}

/// A program whose package also brings a service of the same name as the package.
const fn server(name: &'static str, package: &'static str, without: &'static str) -> Program {
    Program {
        name,
        package,
        service: Some(package),
        without,
    }
}

/// What tests and demo need.
pub(super) const FOR_TESTS: [Program; 14] = [
    program(
        "iptables",
        "iptables",
        "the iptables mode, its tests and the demo",
    ),
    program(
        "ipset",
        "ipset",
        "rejecting unknown ports of a ClusterIP in iptables mode, and tests of ipset",
    ),
    program("nft", "nftables", "tests that look at nftables"),
    program("conntrack", "conntrack", "tests of connection tracking"),
    program(
        "ip",
        "iproute2",
        "every test in network namespaces, the demo and the bench",
    ),
    program(
        "sysctl",
        "procps",
        "looking at kernel switches by hand in the demo",
    ),
    server(
        "unbound",
        "unbound",
        "tests of `forward` against a real resolver, and the DNS bench",
    ),
    // dnsmasq-base is the program alone; the package dnsmasq would add a service.
    program(
        "dnsmasq",
        "dnsmasq-base",
        "tests of `forward` against a second real resolver, and the DNS bench",
    ),
    program(
        "dig",
        "bind9-dnsutils",
        "tests with dig as client, and DNS in the demo",
    ),
    program(
        "nslookup",
        "bind9-dnsutils",
        "tests with nslookup as client, and DNS in the demo",
    ),
    program("host", "bind9-host", "tests with host as client"),
    program("drill", "ldnsutils", "tests with drill as client"),
    program(
        "musl-gcc",
        "musl-tools",
        "tests with musl's resolver as client",
    ),
    server(
        "promtool",
        "prometheus",
        "the test that Prometheus takes what is served at /metrics",
    ),
];

/// What only `cargo xtask bench dns` needs.
pub(super) const FOR_BENCH: [Program; 3] = [
    program("dnsperf", "dnsperf", "the DNS bench: it sends the queries"),
    server(
        "nsd",
        "nsd",
        "the DNS bench's peer for cluster names, and its authority for outside names",
    ),
    server(
        "knotd",
        "knot",
        "the DNS bench's second peer for cluster names",
    ),
];

/// What only a person at work on the eBPF mode needs.
pub(super) const FOR_LOOKING: [Program; 1] = [program(
    "bpftool",
    "bpftool",
    "looking at loaded eBPF programs and maps by hand",
)];

/// What only `cargo xtask vm` and its guests need.
pub(super) const FOR_VM: [Program; 5] = [
    program(
        "qemu-system-x86_64",
        "qemu-system-x86",
        "`cargo xtask vm`, so nothing is run on other kernels than this machine's",
    ),
    program(
        "busybox",
        "busybox-static",
        "`cargo xtask vm`: its guest has no shell",
    ),
    program(
        "depmod",
        "kmod",
        "`cargo xtask vm`: its guest can load no kernel modules",
    ),
    program(
        "xz",
        "xz-utils",
        "`cargo xtask vm --kernel 6.12`, whose modules are packed with it",
    ),
    server(
        "ipvsadm",
        "ipvsadm",
        "tests of IPVS, which look at it in guests of `cargo xtask vm`",
    ),
];
