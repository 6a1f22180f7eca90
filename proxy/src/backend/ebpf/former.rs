//! What an agent with an earlier layout of the maps left, carried over: no connection ends because
//! the agent is another.
//!
//! Maps whose layout is the same are pinned under the new path as well, before any program is
//! loaded; the entries of those whose layout is another are copied before the new programs take
//! over, and once more after, since the old ones went on until then. The old pins go last, so this
//! can be broken off anywhere and done again.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use switchyard_datapath::layout::{FLOW_VALUE_BYTES_V1, FlowKey, FlowValue, map_names};

use super::EbpfError;
use super::attach::files;
use super::flows::Flows;
use super::pins::{Expected, Pins, Unfit};
use super::programs::{HASH, SHARED, expected};

/// The schema that is carried over.
const SCHEMA: u32 = 1;
/// FLOWS of that schema.
const FLOWS: Expected = expected::<FlowKey, [u8; FLOW_VALUE_BYTES_V1]>(HASH);

/// The maps of an earlier schema.
#[derive(Debug)]
pub(super) struct Former {
    directory: PathBuf,
    flows: Option<OwnedFd>,
}

impl Former {
    /// Looks for what an agent of an earlier schema left under `root`, and pins under the path of
    /// this one what is still of use there.
    pub(super) fn find(root: &Path, pins: &Pins) -> Result<Option<Self>, EbpfError> {
        let directory = root.join(format!("v{SCHEMA}"));
        if !directory.is_dir() {
            return Ok(None);
        }
        for (name, expected) in SHARED {
            let (old, new) = (directory.join(name), pins.maps().join(name));
            let is_wanted = name != map_names::FLOWS && fs::symlink_metadata(&new).is_err();
            if !is_wanted || expected.is_met_at(&old).is_err() {
                continue;
            }
            let lent = switchyard_kernel::open_pinned(&old)
                .and_then(|map| switchyard_kernel::pin(map.as_fd(), &new));
            lent.map_err(EbpfError::system(format!("pinning {}", new.display())))?;
        }
        let flows = directory.join(map_names::FLOWS);
        let is_ours = FLOWS.is_met_at(&flows).is_ok();
        let flows = is_ours.then(|| switchyard_kernel::open_pinned(&flows));
        let flows = flows
            .transpose()
            .map_err(EbpfError::system(format!("{}", directory.display())))?;
        tracing::info!(
            path = %directory.display(),
            "the maps of an earlier version are carried over"
        );
        Ok(Some(Self { directory, flows }))
    }

    /// Copies the flows that `flows` does not have.
    pub(super) fn copy_flows(&self, flows: &mut Flows) -> Result<(), EbpfError> {
        let Some(former) = &self.flows else {
            return Ok(());
        };
        let mut entries: Vec<(FlowKey, FlowValue)> = Vec::new();
        switchyard_kernel::entries(
            former.as_fd(),
            |key: &FlowKey, value: &[u8; FLOW_VALUE_BYTES_V1]| {
                entries.push((*key, FlowValue::of_v1(value)));
            },
        )
        .map_err(EbpfError::system(format!("reading {}", map_names::FLOWS)))?;
        flows.adopt(&entries)
    }

    /// Removes the old pins.
    pub(super) fn remove(self) {
        for path in files(&self.directory) {
            let removed =
                is_map_of_ours(&path).and_then(|()| fs::remove_file(&path).map_err(Unfit::of));
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), ?error, "stays, of an earlier version");
            }
        }
        // Something else may be in it.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Every directory there is that maps are, or were once, pinned in.
pub(super) fn directories(root: &Path, pins: &Pins) -> Vec<PathBuf> {
    let mut all = vec![pins.maps().to_path_buf(), root.join(format!("v{SCHEMA}"))];
    all.retain(|directory| directory.is_dir());
    all
}

/// Whether a pin is a map that an agent, of whatever schema, made.
pub(super) fn is_map_of_ours(path: &Path) -> Result<(), Unfit> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bare = name.split('-').next().unwrap_or_default();
    if SHARED.iter().all(|(shared, _)| *shared != bare) {
        return Err(Unfit::Foreign("no map of ours has this name".to_owned()));
    }
    let map = switchyard_kernel::open_pinned(path).map_err(Unfit::of)?;
    let shape = switchyard_kernel::map_shape(map.as_fd());
    shape.map(drop).map_err(Unfit::of)
}
