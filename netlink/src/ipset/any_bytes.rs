//! Any bytes as something that a kernel lists: for fuzzing and tests.

use super::codec;
use super::entry::Entry;
use super::set_type::SetType;

/// All types that are read.
pub(super) const TYPES: [SetType; 5] = [
    SetType::HashIp,
    SetType::HashIpPort,
    SetType::HashIpPortIp,
    SetType::HashIpPortNet,
    SetType::ALL_PORTS,
];

/// Reads them in every way. Whatever they are, they are read or refused.
pub(crate) fn read_everything(bytes: &[u8]) {
    for set_type in TYPES {
        let _ = Entry::read(bytes, set_type);
        let _ = codec::read_entries(bytes, set_type, &mut Vec::new());
    }
    let _ = codec::read_header(bytes).map(|header| header.set_type());
    let _ = codec::read_revision(bytes);
    let _ = codec::read_failed_line(bytes);
}
