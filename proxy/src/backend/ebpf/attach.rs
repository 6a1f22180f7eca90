//! The programs' places: at a cgroup and at devices. Where a program of an earlier load is, the
//! new one takes its place in one step.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use switchyard_kernel::{AttachType, Link, LinkTarget};

use super::EbpfError;
use super::filter;
use super::pins::Pins;
use super::programs::{ETHERNET_PROGRAMS, Loaded, PLAIN_PROGRAMS, SOCKET_PROGRAMS};
use crate::devices::{Device, Devices, LinkLayer};

const SOCKET_PLACES: [AttachType; 9] = [
    AttachType::Connect4,
    AttachType::Connect6,
    AttachType::SendMsg4,
    AttachType::SendMsg6,
    AttachType::RecvMsg4,
    AttachType::RecvMsg6,
    AttachType::GetPeerName4,
    AttachType::GetPeerName6,
    AttachType::SockRelease,
];
const DEVICE_PLACES: [AttachType; 2] = [AttachType::TcxIngress, AttachType::TcxEgress];

/// Everything that is attached.
#[derive(Debug)]
pub(super) struct Attached {
    cgroup: PathBuf,
    pins: Pins,
    uses_tcx: bool,
    sockets: Vec<Link>,
    devices: BTreeMap<u32, Vec<Link>>,
    /// Devices that could not be attached to, as they were last said.
    refused: HashSet<u32>,
}

impl Attached {
    /// Nothing is attached yet by this agent.
    pub(super) fn none(cgroup: PathBuf, pins: Pins, uses_tcx: bool) -> Self {
        Self {
            cgroup,
            pins,
            uses_tcx,
            sockets: Vec::new(),
            devices: BTreeMap::new(),
            refused: HashSet::new(),
        }
    }

    /// Whether an earlier run's programs are at the cgroup.
    pub(super) fn is_inherited(&self) -> bool {
        let mut names = SOCKET_PROGRAMS.iter();
        names.any(|name| Link::open(&self.pins.links().join(name)).is_ok())
    }

    /// Puts these programs in all places: at the cgroup, and at devices.
    pub(super) fn attach(
        &mut self,
        loaded: &mut Loaded,
        devices: &Devices,
    ) -> Result<(), EbpfError> {
        self.pins.restore()?;
        let cgroup = File::open(&self.cgroup).map_err(self.of_cgroup())?;
        let number = cgroup.metadata().map_err(self.of_cgroup())?.ino();
        let mut links = Vec::new();
        for (name, place) in SOCKET_PROGRAMS.into_iter().zip(SOCKET_PLACES) {
            let target = LinkTarget::Cgroup(cgroup.as_fd());
            links.push(self.place(loaded, name, name, (target, number), place)?);
        }
        self.sockets = links;
        self.devices.clear();
        self.refused.clear();
        self.attach_devices(loaded, devices)
    }

    fn of_cgroup(&self) -> impl FnOnce(std::io::Error) -> EbpfError + use<> {
        EbpfError::system(format!("the cgroup2 directory {}", self.cgroup.display()))
    }

    /// Puts programs at devices that have none, and forgets devices that are gone.
    pub(super) fn attach_devices(
        &mut self,
        loaded: &mut Loaded,
        devices: &Devices,
    ) -> Result<(), EbpfError> {
        let gone = |index: &u32| devices.get(*index).is_none();
        self.refused.retain(|index| !gone(index));
        let lost: Vec<u32> = self.devices.keys().copied().filter(gone).collect();
        for index in &lost {
            self.devices.remove(index);
            self.unpin(*index);
        }
        // It may be there still, as a port of a bridge.
        if !self.uses_tcx && !lost.is_empty() {
            filter::sweep(|index| !lost.contains(&index));
        }
        for device in devices.iter() {
            if self.devices.contains_key(&device.index) {
                continue;
            }
            match self.attach_device(loaded, device) {
                Ok(links) => {
                    self.devices.insert(device.index, links);
                    if self.refused.remove(&device.index) {
                        tracing::info!(
                            device = %device.name,
                            "packets at this device are translated now"
                        );
                    }
                }
                Err(error) if self.refused.insert(device.index) => tracing::warn!(
                    device = %device.name, %error,
                    "packets at this device are not translated"
                ),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn attach_device(&self, loaded: &mut Loaded, device: &Device) -> Result<Vec<Link>, EbpfError> {
        let names = match device.link_layer {
            LinkLayer::Ethernet => ETHERNET_PROGRAMS,
            LinkLayer::Ip => PLAIN_PROGRAMS,
            LinkLayer::Other(kind) => {
                tracing::debug!(device = %device.name, kind, "no IP packets of ours go here");
                return Ok(Vec::new());
            }
        };
        loaded.verify(&names)?;
        let mut links = Vec::new();
        for (name, place) in names.into_iter().zip(DEVICE_PLACES) {
            if self.uses_tcx {
                let pin = pin_name(device.index, place);
                let target = LinkTarget::Device(device.index);
                let number = u64::from(device.index);
                links.push(self.place(loaded, name, &pin, (target, number), place)?);
            } else {
                filter::attach(loaded.classifier(name)?, &device.name, place, name)?;
            }
        }
        Ok(links)
    }

    /// Puts a program in a place: over the one that is there, or as a new one.
    fn place(
        &self,
        loaded: &Loaded,
        program: &'static str,
        pin: &str,
        (target, number): (LinkTarget<'_>, u64),
        place: AttachType,
    ) -> Result<Link, EbpfError> {
        let path = self.pins.link(pin)?;
        let descriptor = loaded.program(program)?;
        if let Ok(link) = Link::open(&path) {
            let is_here = link.info().is_ok_and(|info| match target {
                LinkTarget::Cgroup(_) => info.target == number,
                LinkTarget::Device(index) => info.device() == index,
            });
            if is_here && link.update(descriptor).is_ok() {
                return Ok(link);
            }
        }
        let what = || format!("attaching {program} ({pin})");
        let link = Link::create(descriptor, target, place).map_err(EbpfError::system(what()))?;
        // Until the old one goes both are there: what the first has translated is none of the
        // second's business.
        let _ = fs::remove_file(&path);
        link.pin(&path).map_err(EbpfError::system(format!(
            "giving {program} its name {}",
            path.display()
        )))?;
        Ok(link)
    }

    fn unpin(&self, device: u32) {
        for place in DEVICE_PLACES {
            if let Ok(path) = self.pins.link(&pin_name(device, place)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Has the next [`Attached::attach_devices`] put filters anew where they are: what somebody
    /// else removed can't be told from what is there.
    pub(super) fn renew_filters(&mut self) {
        if !self.uses_tcx {
            self.devices.clear();
        }
    }

    /// Whether a device has no programs though it should.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Removes pins and filters of devices that are gone, or are no longer ours to attach to.
    pub(super) fn sweep(&self) {
        if !self.uses_tcx {
            filter::sweep(|index| self.devices.contains_key(&index));
        }
        for path in files(self.pins.links()) {
            let Ok(link) = Link::open(&path) else {
                continue;
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let of_device = name.split_once('-').is_some_and(|(index, _)| {
                index
                    .parse()
                    .is_ok_and(|index| !self.devices.contains_key(&index))
            });
            drop(link);
            if of_device && name.starts_with(|first: char| first.is_ascii_digit()) {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Whether all that was attached still is: every link leads to its device or cgroup.
    pub(super) fn is_whole(&self) -> bool {
        let sockets = self
            .sockets
            .iter()
            .all(|link| link.info().is_ok_and(|info| info.target != 0));
        let devices = self.devices.iter().all(|(index, links)| {
            links
                .iter()
                .all(|link| link.info().is_ok_and(|info| info.device() == *index))
        });
        let pinned = |name: &str| {
            self.pins
                .link(name)
                .is_ok_and(|path| fs::symlink_metadata(path).is_ok())
        };
        sockets && devices && SOCKET_PROGRAMS.iter().all(|name| pinned(name))
    }
}

/// Ends what is attached at the cgroup, and removes the pins.
pub(super) fn detach_sockets(pins: &Pins) {
    for name in SOCKET_PROGRAMS {
        if let Ok(path) = pins.link(name)
            && let Ok(link) = Link::open(&path)
        {
            // Where this fails, and with the pin gone, it is detached a moment later.
            drop(link.detach());
            let _ = fs::remove_file(&path);
        }
    }
}

fn pin_name(device: u32, place: AttachType) -> String {
    let direction = if place == AttachType::TcxIngress {
        "in"
    } else {
        "out"
    };
    format!("{device}-{direction}")
}

/// Whether programs of this agent or an earlier one may be attached: what cleans up removes the
/// directory last.
#[must_use]
pub fn is_attached(bpf_root: &Path) -> bool {
    Pins::existing(bpf_root).links().is_dir()
}

/// The files in a directory.
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
