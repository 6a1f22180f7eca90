//! Modules that have to be there before IPVS is asked for their scheduler.
//!
//! IPVS loads a scheduler's module while it holds the lock of all its tables. The modules of
//! `lblc` and `lblcr` join network namespaces when they are loaded, and wait for namespaces that
//! are being taken down, which wait for that lock: the three wait for ever, and with them
//! everybody who makes or leaves a network namespace (seen with Linux 6.1 and 6.12). So these two are
//! loaded another way first, and a kernel that can't be brought to it is not asked for them.

use std::path::Path;

use nix::net::if_::if_nametoindex;

use super::change::Change;
use super::error::ChangeError;
use super::scheduler::SchedulerName;

/// Where it shows that a network namespace has them, by module or built in.
const SWITCHES: [(&str, &str); 2] = [
    ("lblc", "/proc/sys/net/ipv4/vs/lblc_expiration"),
    ("lblcr", "/proc/sys/net/ipv4/vs/lblcr_expiration"),
];

/// That the kernel can be asked for a change without harm. Loads what that takes, with
/// CAP_SYS_MODULE.
pub(super) fn check(change: &Change) -> Result<(), ChangeError> {
    match change.scheduler() {
        Some(scheduler) if !is_safe(scheduler) => Err(ChangeError::SchedulerNotLoaded {
            service: change.service(),
            scheduler,
        }),
        _ => Ok(()),
    }
}

fn is_safe(scheduler: SchedulerName) -> bool {
    let name = scheduler.as_str();
    let Some((_, switch)) = SWITCHES.iter().find(|(of, _)| *of == name) else {
        return true;
    };
    let switch = Path::new(switch);
    if !switch.exists() {
        // There is no such interface, so the kernel loads a module of that name, with no lock
        // held. What comes of it shows below.
        let _ = if_nametoindex(format!("ip_vs_{name}").as_str());
    }
    switch.exists()
}
