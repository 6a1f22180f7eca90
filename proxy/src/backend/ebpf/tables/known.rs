//! KNOWN: a bit for each key in ADDRESSES and FRONTENDS, which programs look at first.
//!
//! A bit that is set for a key that is not there costs a look-up. One that is not set for a key
//! that is there would hide it: so bits are set before and cleared after.

use std::collections::HashMap;

use aya::maps::{Map, MapError};
use switchyard_datapath::layout::map_names;
use switchyard_kernel::Mapping;

use super::{EbpfError, WORD_BYTES, mapping, take};

/// Bits of a word.
const WORD_BITS: u32 = 64;

/// The bits, and how many keys have each.
#[derive(Debug)]
pub(super) struct Known {
    bits_log2: u32,
    words: Mapping,
    /// The array behind `words`.
    _map: Map,
    keys: HashMap<u32, u32>,
}

/// How many bits there are for maps of so many entries, as a power of two: eight for each at least,
/// and the maps are twice as large as they need to be.
pub(in super::super) fn bits_log2(entries: u32) -> u32 {
    (entries.max(WORD_BITS).ilog2() + 4).min(31)
}

/// The words that these bits take.
pub(in super::super) const fn words(bits_log2: u32) -> u32 {
    (1 << bits_log2) / WORD_BITS
}

impl Known {
    /// Of an object that was loaded for so many entries; no bit is set.
    pub(super) fn of(object: &mut aya::Ebpf, entries: u32) -> Result<Self, EbpfError> {
        let bits_log2 = bits_log2(entries);
        let bytes = usize::try_from(words(bits_log2)).unwrap_or(0) * WORD_BYTES;
        let map = take(object, map_names::KNOWN)?;
        Ok(Self {
            bits_log2,
            words: mapping(&map, map_names::KNOWN, 0, bytes)?,
            _map: map,
            keys: HashMap::new(),
        })
    }

    pub(super) const fn bits_log2(&self) -> u32 {
        self.bits_log2
    }

    /// Puts a key with this bit into its map by `put`. What was not there before (`is_new`) has its bit
    /// first, and not any more where it can't be put.
    pub(super) fn put(
        &mut self,
        bit: u32,
        is_new: bool,
        put: impl FnOnce() -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        if is_new {
            self.add(bit);
        }
        let result = put();
        if is_new && result.is_err() {
            self.remove(bit);
        }
        result
    }

    fn add(&mut self, bit: u32) {
        let count = self.keys.entry(bit).or_default();
        *count += 1;
        if *count == 1 {
            self.write(bit, true);
        }
    }

    /// To be called after a key was taken out of its map.
    pub(super) fn remove(&mut self, bit: u32) {
        if let Some(count) = self.keys.get_mut(&bit) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&bit);
                self.write(bit, false);
            }
        }
    }

    /// Writes anew what is not as it should be, and says how many words that was.
    pub(super) fn audit(&mut self) -> usize {
        let mut expected: HashMap<usize, u64> = HashMap::new();
        for bit in self.keys.keys() {
            let (word, mask) = place(*bit);
            *expected.entry(word).or_default() |= mask;
        }
        let mut wrong = 0;
        for at in 0..self.words.words() {
            let word = expected.get(&at).copied().unwrap_or_default();
            if self.words.load(at) != word {
                self.words.store(at, word);
                wrong += 1;
            }
        }
        wrong
    }

    fn write(&mut self, bit: u32, is_set: bool) {
        let (at, mask) = place(bit);
        let word = self.words.load(at);
        let word = if is_set { word | mask } else { word & !mask };
        self.words.store(at, word);
    }

    /// Clears all bits, as somebody else might, and says in how many words.
    #[cfg(test)]
    pub(super) fn tamper(&mut self) -> usize {
        let set = (0..self.words.words()).filter(|at| self.words.load(*at) != 0);
        set.filter(|at| self.words.store(*at, 0)).count()
    }
}

/// Word and mask of a bit.
fn place(bit: u32) -> (usize, u64) {
    let at = usize::try_from(bit / WORD_BITS).unwrap_or(usize::MAX);
    (at, 1 << (bit % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_some_bits_for_each_entry() {
        for entries in [0, 1, 64, 65, 1 << 11, (1 << 22) - 1, 1 << 22] {
            let bits = 1_u64 << bits_log2(entries);
            assert!(bits >= u64::from(entries) * 8, "{entries}");
            assert!(bits <= u64::from(entries.max(64)) * 16, "{entries}");
            assert_eq!(u64::from(words(bits_log2(entries))) * 64, bits);
        }
        assert_eq!(bits_log2(u32::MAX), 31);
        assert_eq!(place(0), (0, 1));
        assert_eq!(place(130), (2, 4));
    }
}
