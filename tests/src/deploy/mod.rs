//! What the manifests of `deploy/` are judged by: the programs that operators use to make objects
//! of them ([`tools`]), the objects ([`objects`]), and what Kubernetes says they must be like
//! ([`schema`]).

pub mod objects;
pub mod schema;
pub mod tools;

use std::path::{Path, PathBuf};

/// A file or folder below `deploy/`.
#[must_use]
pub fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(below)
}
