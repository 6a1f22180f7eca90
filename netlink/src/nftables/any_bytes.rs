//! Any bytes as something that a kernel lists: for fuzzing and tests.

use super::batch::{Batch, Terms};
use super::list::{self, Elements};
use super::numbers::{rule, set};
use super::*;
use crate::attribute::Detail;

/// `struct nlmsghdr` and `struct nfgenmsg`.
pub(super) const HEADERS_BYTES: usize = 20;
/// The table that everything is of, unless it says otherwise.
const TABLE: &str = "t";
/// The handle of everything written.
const HANDLE: u64 = 9;

/// Reads them as each sort of object. Whatever they are, they are read or refused, and what was
/// read is the same after it was written and read again.
pub(crate) fn read_in_every_way(bytes: &[u8]) {
    let _ = list::read_table(bytes);
    let _ = list::read_chain(bytes, TABLE);
    if let Ok(Some(read)) = list::read_rule(bytes, TABLE) {
        let again = listed(&Change::AddRule(read.object.clone()), Some(rule::HANDLE));
        assert_same(list::read_rule(&again, TABLE), &read.object);
    }
    if let Ok(Some(read)) = list::read_set(bytes, TABLE) {
        let again = listed(&Change::AddSet(read.object.clone()), Some(set::HANDLE));
        assert_same(list::read_set(&again, TABLE), &read.object);
    }
    let mut read = Elements::default();
    if list::read_elements(&mut read, bytes).is_ok() {
        let _ = read.has_repetitions();
    }
    let single = Set {
        intervals: true,
        ..Set::new("s", &[FieldType::Mark])
    };
    let _ = read.joined(&single);
}

fn assert_same<T: PartialEq + std::fmt::Debug>(
    again: Result<Option<Listed<T>>, Detail>,
    object: &T,
) {
    let again = again.map(|listed| listed.map(|listed| listed.object));
    assert_eq!(again.as_ref().map(Option::as_ref), Ok(Some(object)));
}

/// The attributes of the only message of a change, as a listing has them: with a handle, if they
/// have any.
pub(super) fn listed(change: &Change, handle: Option<u16>) -> Vec<u8> {
    let table = TableId::new(crate::Family::V4, TABLE);
    let batch = Batch::of(
        &table,
        std::slice::from_ref(change),
        Terms::default(),
        |_| 1,
    );
    let start = batch.messages.first().map_or(0, |message| message.start) + HEADERS_BYTES;
    let bytes = batch.writer.bytes().unwrap_or_default();
    let end = bytes.len().saturating_sub(HEADERS_BYTES); // NFNL_MSG_BATCH_END
    let mut writer = Writer::new();
    writer.fixed(bytes.get(start..end).unwrap_or_default());
    if let Some(handle) = handle {
        writer.attribute(handle, &HANDLE.to_be_bytes());
    }
    writer.bytes().unwrap_or_default().to_vec()
}
