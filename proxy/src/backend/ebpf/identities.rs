//! Which index each Service port has: the same over restarts, since flows, affinity and
//! counters are kept under it.

use std::collections::{HashMap, VecDeque};

use aya::maps::MapData;
use sha2::{Digest, Sha256};
use switchyard_datapath::layout::{limits, map_names};

use super::EbpfError;
use super::tables::gone;
use crate::plan::PlanId;

/// Bytes of a digest that are kept.
const DIGEST_BYTES: usize = 16;
/// An index that was given back is not given out again before so many others were: what is
/// kept under it has gone by then.
const REST: usize = 1024;

type Map = aya::maps::HashMap<MapData, [u8; DIGEST_BYTES], u32>;

/// The indexes of all Service ports.
#[derive(Debug)]
pub(super) struct Identities {
    map: Map,
    /// What the map holds.
    known: HashMap<[u8; DIGEST_BYTES], u32>,
    names: HashMap<u32, PlanId>,
    /// What the kernel did not remove from the map: its index is not free before it does.
    staying: Vec<[u8; DIGEST_BYTES]>,
    free: VecDeque<u32>,
    next: u32,
}

fn digest(id: &PlanId) -> [u8; DIGEST_BYTES] {
    let text = format!(
        "{}\0{}\0{}\0{}",
        id.service, id.port_name, id.protocol, id.family
    );
    let mut short = [0; DIGEST_BYTES];
    for (to, from) in short.iter_mut().zip(Sha256::digest(text)) {
        *to = from;
    }
    short
}

impl Identities {
    /// Takes over what an earlier run left.
    pub(super) fn of(map: Map) -> Self {
        let mut known = HashMap::new();
        for (digest, index) in map.iter().flatten() {
            // Index 0 is the settings'; one beyond the limit was never ours.
            if (1..limits::SERVICES_MAX).contains(&index) {
                known.insert(digest, index);
            }
        }
        let taken: std::collections::HashSet<u32> = known.values().copied().collect();
        let next = taken.iter().max().map_or(1, |highest| highest + 1);
        Self {
            map,
            known,
            names: HashMap::new(),
            staying: Vec::new(),
            free: (1..next).filter(|index| !taken.contains(index)).collect(),
            next,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether a Service port has an index.
    pub(super) fn knows(&self, id: &PlanId) -> bool {
        self.known.contains_key(&digest(id))
    }

    /// The highest index that there can be once so many more Service ports have one, and one;
    /// more than the limit if there are not enough.
    pub(super) fn end_after(&self, more: u32) -> u32 {
        let end = self.next.saturating_add(more);
        let free = u32::try_from(self.free.len()).unwrap_or(u32::MAX);
        // Only where there are no others do those that rest serve at once.
        if end <= limits::SERVICES_MAX {
            end
        } else {
            end.saturating_sub(free).max(limits::SERVICES_MAX)
        }
    }

    /// The name behind an index.
    pub(super) fn name(&self, index: u32) -> Option<&PlanId> {
        self.names.get(&index)
    }

    /// The index of a Service port, a new one if it has none; `None` if all are taken.
    pub(super) fn assign(&mut self, id: &PlanId) -> Result<Option<u32>, EbpfError> {
        let digest = digest(id);
        let index = match self.known.get(&digest) {
            Some(index) => *index,
            None => {
                let Some(index) = self.fresh() else {
                    return Ok(None);
                };
                if let Err(error) = self.map.insert(digest, index, 0) {
                    self.free.push_back(index);
                    return Err(EbpfError::map(map_names::IDENTITIES, error));
                }
                self.known.insert(digest, index);
                index
            }
        };
        self.names.insert(index, id.clone());
        Ok(Some(index))
    }

    fn fresh(&mut self) -> Option<u32> {
        let exhausted = self.next >= limits::SERVICES_MAX;
        if self.free.len() > REST || exhausted {
            return self.free.pop_front();
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Gives an index back.
    pub(super) fn forget(&mut self, index: u32) {
        let Some(id) = self.names.remove(&index) else {
            return;
        };
        self.drop_digest(digest(&id));
    }

    /// Gives back those indexes of Service ports that were asked for and are not to stay.
    pub(super) fn retain(&mut self, stays: impl Fn(u32) -> bool) {
        let over: Vec<u32> = self
            .names
            .keys()
            .copied()
            .filter(|index| !stays(*index))
            .collect();
        for index in over {
            self.forget(index);
        }
    }

    /// Gives back what belongs to no Service port that was asked for: those that went while no
    /// agent ran. Returns their indexes.
    pub(super) fn forget_unnamed(&mut self) -> Vec<u32> {
        let unnamed = self
            .known
            .iter()
            .filter(|(_, index)| !self.names.contains_key(index));
        let unnamed: Vec<_> = unnamed.map(|(digest, index)| (*digest, *index)).collect();
        for (digest, _) in &unnamed {
            self.drop_digest(*digest);
        }
        unnamed.into_iter().map(|(_, index)| index).collect()
    }

    /// Tries once more to give back what the kernel did not remove.
    pub(super) fn drop_staying(&mut self) {
        for digest in std::mem::take(&mut self.staying) {
            // Its Service port may be there again.
            let index = self.known.get(&digest);
            if index.is_some_and(|index| !self.names.contains_key(index)) {
                self.drop_digest(digest);
            }
        }
    }

    fn drop_digest(&mut self, digest: [u8; DIGEST_BYTES]) {
        let Some(index) = self.known.get(&digest).copied() else {
            return;
        };
        // Given to another Service port while it is in the map, the next run would find two
        // with one index.
        if let Err(error) = gone(map_names::IDENTITIES, self.map.remove(&digest)) {
            tracing::debug!(%error, index, "the index of a Service port stays in its map for now");
            self.staying.push(digest);
            return;
        }
        self.known.remove(&digest);
        self.free.push_back(index);
    }
}
