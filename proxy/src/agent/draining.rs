//! Flows of ebpf mode while another mode takes what is new: they go on until they are over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::leftovers::{Order, Removal, Wait, wait};
use crate::backend::BackendError;
use crate::backend::ebpf::Drain;
use crate::devices::Devices;

/// From one look whether flows are over to the next: at first, most are short.
const LOOK_AT_FLOWS: Duration = Duration::from_millis(250);
/// The same for those that last.
const LOOK_AT_LASTING_FLOWS: Duration = Duration::from_secs(2);
/// So many looks are the first.
const FIRST_LOOKS: u32 = 40;

/// Whether flows of ebpf mode, which is not in force, are still under way.
#[derive(Clone, Debug)]
pub(super) struct Draining(Arc<AtomicBool>);

impl Draining {
    pub(super) fn new(is_so: bool) -> Self {
        Self(Arc::new(AtomicBool::new(is_so)))
    }

    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Has programs of ebpf mode begin nothing new, and waits until what they have begun is over; false
/// if the agent ends before.
pub(super) fn drain(removal: &Removal, orders: &Receiver<Order>) -> bool {
    let mut drain = match begin(removal) {
        Ok(Some(drain)) => drain,
        Ok(None) => return true,
        Err(error) => {
            cut_off(&error);
            return true;
        }
    };
    tracing::info!("ebpf mode takes no new connections; those it has go on until they are over");
    let mut looks = 0;
    loop {
        match drain.step() {
            Ok(0) => return true,
            Ok(entries) => tracing::debug!(entries, "flows of ebpf mode are still under way"),
            Err(error) => {
                tracing::warn!(%error, "flows of ebpf mode that are over stay for now");
            }
        }
        looks += 1;
        let pause = if looks < FIRST_LOOKS {
            LOOK_AT_FLOWS
        } else {
            LOOK_AT_LASTING_FLOWS
        };
        // Nothing more is ordered meanwhile: the mode in force hands nothing over.
        if matches!(wait(orders, pause), Wait::Ends) {
            return false;
        }
    }
}

fn begin(removal: &Removal) -> Result<Option<Drain>, BackendError> {
    let mut config = removal.ebpf.clone();
    match Devices::list() {
        Ok(devices) => config.devices = Arc::new(devices),
        Err(error) => tracing::warn!(%error, "devices can't be listed"),
    }
    Ok(Drain::begin(&removal.bpf_root, &config, &removal.plans)?)
}

fn cut_off(error: &dyn std::fmt::Display) {
    tracing::warn!(
        %error,
        "connections through programs of ebpf mode can't be kept: they end, and the programs go"
    );
}
