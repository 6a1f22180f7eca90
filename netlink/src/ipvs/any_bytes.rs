//! Any bytes as something that a kernel lists: for fuzzing and tests.

use super::*;
use crate::family::Family;

/// Reads them in every way. Whatever they are, they are read or refused.
pub(crate) fn read_everything(bytes: &[u8]) {
    let _ = Service::read(bytes);
    let _ = ListedDestination::read(bytes, Family::V4);
    let _ = ListedDestination::read(bytes, Family::V6);
    let _ = Info::read(bytes);
    let _ = Timeouts::read(bytes);
}
