//! What `--version` says.

use std::sync::LazyLock;

use switchyard_operation::build::{COMMIT, PROFILE, VERSION};

use crate::backend::Mode;

/// Version, commit and how it was built; then what is built in.
pub static TEXT: LazyLock<String> = LazyLock::new(|| {
    let modes: Vec<&str> = Mode::ALL.iter().map(|mode| mode.as_str()).collect();
    let log = if cfg!(kernel_log) { "yes" } else { "no" };
    format!(
        "{VERSION}, commit {COMMIT}, {PROFILE} build\nmodes: {}\nkernel programs tell of their \
         decisions with -v=5: {log}",
        modes.join(", ")
    )
});
