//! IPVS, which the kernels that tests usually run on lack: all but the first test are ignored
//! there, and run in guests by `cargo xtask test --kernels`, or by hand:
//! `cargo xtask vm -- target/debug/deps/privileged-… ipvs --include-ignored`.

mod changes;
mod connections;
mod listing;
mod module;

use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use switchyard_netlink::Protocol;
use switchyard_netlink::ipvs::{
    Destination, Ipvs, IpvsError, SchedulerName, Service, ServiceFlags, ServiceKey,
};

use crate::namespace::{in_own_network, run};

/// Held by every test, and alone by the one that unloads the module.
static MODULE: RwLock<()> = RwLock::new(());

/// Runs a test of IPVS in a network namespace of its own.
fn with_ipvs(test: impl FnOnce() + Send + 'static) {
    let _shared = MODULE.read().unwrap_or_else(PoisonError::into_inner);
    in_own_network(|| {
        // Without any interface the kernel takes no destination for one that can be reached.
        run("ip link set lo up");
        test();
    });
}

fn key(protocol: Protocol, address: &str) -> ServiceKey {
    ServiceKey {
        protocol,
        address: at(address),
    }
}

fn tcp(address: &str) -> ServiceKey {
    key(Protocol::Tcp, address)
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address with a port")
}

fn service(key: ServiceKey) -> Service {
    Service {
        key,
        scheduler: SchedulerName::ROUND_ROBIN,
        persistence: None,
        flags: ServiceFlags::NONE,
    }
}

fn destination(address: &str) -> Destination {
    Destination::masqueraded(at(address), 1)
}

/// What `ipvsadm --restore` would make the table from, in order of the text.
fn saved() -> Vec<String> {
    let mut lines: Vec<_> = run("ipvsadm --save -n")
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_kernel_without_ipvs_is_told_from_one_with_it() {
    in_own_network(|| {
        let opened = Ipvs::open();
        if std::path::Path::new("/proc/net/ip_vs").exists() {
            assert_eq!(opened.unwrap().info().unwrap().version.to_string(), "1.2.1");
            return;
        }
        let error = opened.unwrap_err();
        assert!(matches!(error, IpvsError::Absent), "{error:?}");
        assert_eq!(
            error.to_string(),
            "this kernel has no IPVS: the module ip_vs is not loaded, or not there to be loaded"
        );
    });
}
