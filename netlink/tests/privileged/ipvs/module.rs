use std::process::Command;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use switchyard_netlink::ipvs::{Change, ChangeError, Ipvs, IpvsError, SchedulerName, Service};

use super::{MODULE, saved, service, tcp};
use crate::namespace::{in_own_network, run, without_right};

/// Namespaces of tests before keep the module for a moment.
const PATIENCE: Duration = Duration::from_secs(20);

/// Unloads those of the modules of IPVS that `is_meant`.
fn unload(is_meant: impl Fn(&str) -> bool) {
    let start = Instant::now();
    loop {
        let modules: Vec<String> = run("lsmod")
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| name.starts_with("ip_vs") && is_meant(name))
            .map(str::to_owned)
            .collect();
        if modules.is_empty() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "still loaded: {modules:?}");
        // Some refuse until others are gone.
        for module in modules {
            let _ = Command::new("rmmod").arg(module).output();
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_lblc(module: &str) -> bool {
    module.starts_with("ip_vs_lblc")
}

fn lblc() -> Service {
    Service {
        scheduler: SchedulerName::new("lblc").unwrap(),
        ..service(tcp("10.0.0.1:80"))
    }
}

#[test]
#[ignore = "needs a kernel with IPVS as a module"]
fn a_module_that_went_is_not_taken_for_a_missing_scheduler() {
    let _alone = MODULE.write().unwrap_or_else(PoisonError::into_inner);
    in_own_network(|| {
        let mut ipvs = Ipvs::open().unwrap();
        let key = tcp("10.0.0.1:80");
        ipvs.apply_one(Change::NewService(service(key))).unwrap();
        ipvs.apply_one(Change::DeleteService(key)).unwrap();
        unload(|_| true);
        let error = ipvs
            .apply_one(Change::NewService(service(key)))
            .unwrap_err();
        assert!(matches!(error, IpvsError::Gone), "{error:?}");
        let error = ipvs.services().unwrap_err();
        assert!(matches!(error, IpvsError::Gone), "{error:?}");
        // Opened anew, it is there again.
        let mut ipvs = Ipvs::open().unwrap();
        assert_eq!(ipvs.services().unwrap(), []);
    });
}

/// Without the care that the crate takes this hangs the kernel, and the guest with it.
#[test]
#[ignore = "needs a kernel with IPVS as a module"]
fn a_scheduler_is_loaded_while_namespaces_are_taken_down() {
    const ROUNDS: usize = 3;
    const NAMESPACES: usize = 4;
    let _alone = MODULE.write().unwrap_or_else(PoisonError::into_inner);
    in_own_network(|| {
        let mut ipvs = Ipvs::open().unwrap();
        for _ in 0..ROUNDS {
            unload(is_lblc);
            let leave = |_| {
                thread::spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET).unwrap();
                    let mut ipvs = Ipvs::open().unwrap();
                    let service = service(tcp("10.0.0.1:80"));
                    ipvs.apply_one(Change::NewService(service)).unwrap();
                })
            };
            let leaving: Vec<_> = (0..NAMESPACES).map(leave).collect();
            for thread in leaving {
                thread.join().unwrap();
            }
            ipvs.apply_one(Change::NewService(lblc())).unwrap();
            assert_eq!(saved(), ["-A -t 10.0.0.1:80 -s lblc"]);
            ipvs.apply_one(Change::DeleteService(lblc().key)).unwrap();
        }
    });
}

#[test]
#[ignore = "needs a kernel with IPVS as a module"]
fn without_the_right_to_load_modules_the_kernel_is_not_asked_for_what_may_hang() {
    let _alone = MODULE.write().unwrap_or_else(PoisonError::into_inner);
    without_right(
        "sys_module",
        "ipvs::module::without_the_right_to_load_modules_the_kernel_is_not_asked_for_what_may_hang",
        || unload(is_lblc),
        || {
            let mut ipvs = Ipvs::open().unwrap();
            let other = service(tcp("10.0.0.2:80"));
            let changes = [
                Change::NewService(other),
                Change::NewService(lblc()),
                Change::SetService(lblc()),
                Change::NewService(other),
            ];
            let failures = ipvs.apply(&changes).unwrap();
            let found: Vec<_> = failures.iter().map(|failure| failure.index).collect();
            assert_eq!(found, [1, 2, 3]);
            assert_eq!(
                failures[0].error.to_string(),
                "the virtual service tcp 10.0.0.1:80 cannot have the scheduler lblc: its module \
                 ip_vs_lblc is not loaded, and the kernel could hang if it was loaded for a \
                 service; `modprobe ip_vs_lblc` loads it, if the kernel has it"
            );
            assert!(matches!(
                failures[2].error,
                ChangeError::ServiceExists { service } if service == other.key
            ));
            // Alone there is nothing to be sent.
            assert!(ipvs.apply_one(Change::NewService(lblc())).is_err());
            assert_eq!(saved(), ["-A -t 10.0.0.2:80 -s rr"]);
            let found = ipvs.schedulers(&tcp("198.51.100.0:20000")).unwrap();
            assert_eq!(found.len(), SchedulerName::KNOWN.len() - 2);
        },
    );
}
