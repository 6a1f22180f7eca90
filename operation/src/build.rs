//! What was built.

/// The version of both programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, where it is known: in release builds within a git checkout, and where
/// `SWITCHYARD_COMMIT` said it to the build; else `unknown`.
pub const COMMIT: &str = env!("SWITCHYARD_COMMIT");
/// How it was optimised.
pub const PROFILE: &str = if cfg!(debug_assertions) {
    "debug"
} else {
    "release"
};
