//! Removing everything of ours, and nothing else.

use switchyard_netlink::Family;
use switchyard_netlink::nftables::{Change, NftError, Nftables, TableId};

use super::error::NftablesModeError;
use super::names;

/// Deletes the tables of both families. True if there were any.
///
/// # Errors
/// Of the kernel; the other family is tried all the same and the first error is returned. A
/// kernel without nf_tables has none to delete.
pub fn cleanup() -> Result<bool, NftablesModeError> {
    delete_tables(names::TABLE)
}

/// Deletes the tables of a name in both families, as [`cleanup`] does.
pub(super) fn delete_tables(name: &str) -> Result<bool, NftablesModeError> {
    let mut first_error = None;
    let mut any = false;
    let Ok(mut kernel) = Nftables::open() else {
        return Ok(false);
    };
    for family in [Family::V4, Family::V6] {
        match delete(&mut kernel, family, name) {
            Ok(there) => any |= there,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    match first_error {
        Some(error) => Err(error.into()),
        None => Ok(any),
    }
}

fn delete(kernel: &mut Nftables, family: Family, name: &str) -> Result<bool, NftError> {
    let there = has_table(kernel, family, name)?;
    if there {
        kernel.apply(&TableId::new(family, name), &[Change::DeleteTable])?;
    }
    Ok(there)
}

/// Whether a family has a table of this name.
pub(super) fn has_table(
    kernel: &mut Nftables,
    family: Family,
    name: &str,
) -> Result<bool, NftError> {
    match kernel.tables(family.into()) {
        Ok(tables) => Ok(tables.iter().any(|listed| &*listed.object.name == name)),
        // What a kernel without nf_tables says.
        Err(error) if error.code() == Some(nix::libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}
