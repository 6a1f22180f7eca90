//! `root`: where relative paths of a server block start from. See the README.

use std::path::Path;
use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `root PATH`
///
/// # Errors
/// Without a path.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_body()?;
    let [path] = line.exactly::<1>("a directory")?;
    let root = setup.environment.folder.join(Path::new(&**path));
    if !root.is_dir() {
        tracing::warn!("{}: root: {path} is not a directory", path.at);
    }
    setup.block.root = root;
    Ok(Vec::new())
}
