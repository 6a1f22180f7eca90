//! `--init-only`.

use super::error::StartError;
use super::{choice, host};
use crate::settings::Settings;

/// Does what takes more rights than all that comes later: the kernel's parameters.
///
/// # Errors
/// Without the rights; when the mode can't work here.
pub fn init(settings: &Settings) -> Result<(), StartError> {
    host::check_privileges()?;
    let choice = choice::choose(settings)?;
    let mode = choice.mode();
    choice.load_modules();
    host::set_up_kernel(settings, mode);
    tracing::info!(mode = mode.as_str(), "the kernel's parameters are set");
    Ok(())
}
