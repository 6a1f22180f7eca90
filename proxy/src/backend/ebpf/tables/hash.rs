//! Having a hash map hold what is wanted, and nothing else.

use std::collections::HashMap;

use aya::maps::{MapData, MapError};

use super::EbpfError;

/// Removing what is not there (any more) is as good.
pub(in super::super) fn gone(
    name: &'static str,
    result: Result<(), MapError>,
) -> Result<(), EbpfError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(error) => Err(EbpfError::map(name, error)),
    }
}

/// Makes a hash map that holds what is known hold what is wanted, and says how many elements were
/// written for that.
pub(super) fn follow<K, V>(
    name: &'static str,
    map: &mut aya::maps::HashMap<MapData, K, V>,
    known: &mut HashMap<K, V>,
    wanted: &HashMap<K, V>,
) -> Result<usize, EbpfError>
where
    K: aya::Pod + Eq + std::hash::Hash,
    V: aya::Pod + PartialEq,
{
    let mut written = 0;
    let is_gone = |key: &K| !wanted.contains_key(key);
    let over: Vec<K> = known.keys().copied().filter(is_gone).collect();
    for key in over {
        gone(name, map.remove(&key))?;
        known.remove(&key);
        written += 1;
    }
    for (key, value) in wanted {
        if known.get(key) != Some(value) {
            let result = map.insert(*key, *value, 0);
            result.map_err(|error| EbpfError::map(name, error))?;
            known.insert(*key, *value);
            written += 1;
        }
    }
    Ok(written)
}

/// Makes a hash map hold what is expected, and nothing else.
pub(super) fn repair<K, V>(
    name: &'static str,
    map: &mut aya::maps::HashMap<MapData, K, V>,
    mut expected: HashMap<K, V>,
) -> Result<usize, EbpfError>
where
    K: aya::Pod + Eq + std::hash::Hash,
    V: aya::Pod + PartialEq,
{
    let mut wrong = 0;
    let mut foreign = Vec::new();
    for entry in map.iter() {
        let (key, value) = entry.map_err(|error| EbpfError::map(name, error))?;
        match expected.get(&key) {
            Some(wanted) if *wanted == value => drop(expected.remove(&key)),
            Some(_) => {}
            None => foreign.push(key),
        }
    }
    for key in foreign {
        gone(name, map.remove(&key))?;
        wrong += 1;
    }
    for (key, value) in expected {
        map.insert(key, value, 0)
            .map_err(|error| EbpfError::map(name, error))?;
        wrong += 1;
    }
    Ok(wrong)
}
