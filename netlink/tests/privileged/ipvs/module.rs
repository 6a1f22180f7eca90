use std::process::Command;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use switchyard_netlink::ipvs::{Change, Ipvs, IpvsError};

use super::{MODULE, service, tcp};
use crate::namespace::{in_own_network, run};

/// Namespaces of tests before keep the module for a moment.
const PATIENCE: Duration = Duration::from_secs(20);

/// Unloads the module and its schedulers.
fn unload() {
    let start = Instant::now();
    loop {
        let modules: Vec<String> = run("lsmod")
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| name.starts_with("ip_vs"))
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
        thread::sleep(Duration::from_millis(100));
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
        unload();
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
