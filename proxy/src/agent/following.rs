//! What of the node is followed where the mode needs it.

use std::io;
use std::sync::Arc;

use super::choice::Choice;
use super::error::{StartError, system};
use crate::backend::ebpf::Forwarding;
use crate::devices::DeviceWatch;
use crate::rtnetlink::{Listed, RtnetlinkError, Watch};
use crate::settings::Settings;
use crate::stations::StationWatch;

/// Devices are followed where the mode needs them.
pub(super) fn devices(choice: &Choice) -> Result<Option<DeviceWatch>, StartError> {
    match choice {
        Choice::Iptables(_) | Choice::Ipvs(..) | Choice::Nftables(_) => Ok(None),
        Choice::Ebpf(_) => DeviceWatch::open().map(Some).map_err(|error| {
            system(
                "listing the node's network devices",
                io::Error::other(error),
            )
        }),
    }
}

/// What is behind bridges is followed where packets are handed over past them.
pub(super) fn stations(
    choice: &Choice,
    settings: &Settings,
) -> Result<Option<StationWatch>, StartError> {
    let is_wanted = settings.ebpf.forwarding == Forwarding::Direct;
    match choice {
        Choice::Ebpf(_) if is_wanted => StationWatch::open()
            .map(Some)
            .map_err(|error| system("listing what is behind bridges", io::Error::other(error))),
        _ => Ok(None),
    }
}

/// What there is now; nothing, where it is not followed.
pub(super) fn current<T: Listed>(watch: Option<&Watch<T>>) -> Arc<T> {
    watch.map_or_else(Arc::default, |watch| Arc::clone(watch.current()))
}

/// Never, where it is not followed.
pub(super) async fn news<T: Listed>(
    watch: Option<&mut Watch<T>>,
) -> Result<Arc<T>, RtnetlinkError> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
