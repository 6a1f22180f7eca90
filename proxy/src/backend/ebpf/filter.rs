//! Programs at devices by filters of traffic control (clsact), for kernels before 6.6.
//!
//! A filter has no descriptor and no pin: it stays at its device until it is removed, and is
//! known by its priority and handle. Two handles take turns, so that a new program is there
//! before the old one goes; a packet that meets both is translated once.

use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::net::if_::if_nameindex;
use switchyard_kernel::AttachType;

use super::EbpfError;

/// Before other filters, which see what we made of a packet.
const PRIORITY: u16 = 2;
/// `Sy`, and a number.
const HANDLES: [TcHandle; 2] = [TcHandle::new(0x5379, 1), TcHandle::new(0x5379, 2)];

/// Puts a program at a device, and removes the one an earlier load put there.
pub(super) fn attach(
    program: &mut SchedClassifier,
    device: &str,
    place: AttachType,
    name: &'static str,
) -> Result<(), EbpfError> {
    // It may be there already.
    let _ = qdisc_add_clsact(device);
    let [first, second] = HANDLES;
    let new = match add(program, device, place, first) {
        Ok(()) => first,
        Err(_) => {
            add(program, device, place, second)
                .map_err(|error| EbpfError::program(name, &error))?;
            second
        }
    };
    let old = if new == first { second } else { first };
    remove(device, place, old);
    Ok(())
}

fn add(
    program: &mut SchedClassifier,
    device: &str,
    place: AttachType,
    handle: TcHandle,
) -> Result<(), aya::programs::ProgramError> {
    let options = NlOptions {
        priority: PRIORITY,
        handle,
        ..NlOptions::default()
    };
    let options = TcAttachOptions::Netlink(options);
    let id = program.attach_with_options(device, direction(place), options)?;
    // Dropped, it would be detached: it is to stay when the agent ends.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Removes the filter of a handle, if it is there.
fn remove(device: &str, place: AttachType, handle: TcHandle) {
    let attached = SchedClassifierLink::attached(device, direction(place), PRIORITY, handle, None);
    if let Ok(link) = attached {
        drop(aya::programs::links::Link::detach(link));
    }
}

/// Removes all filters of ours from devices that are not to have any, ports of bridges among them.
pub(super) fn sweep(is_wanted: impl Fn(u32) -> bool) {
    let interfaces = match if_nameindex() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "devices can't be listed: filters stay at those that had them");
            return;
        }
    };
    for interface in &interfaces {
        if is_wanted(interface.index()) {
            continue;
        }
        let name = interface.name().to_string_lossy();
        for place in [AttachType::TcxIngress, AttachType::TcxEgress] {
            for handle in HANDLES {
                remove(&name, place, handle);
            }
        }
    }
}

const fn direction(place: AttachType) -> TcAttachType {
    match place {
        AttachType::TcxIngress => TcAttachType::Ingress,
        _ => TcAttachType::Egress,
    }
}
