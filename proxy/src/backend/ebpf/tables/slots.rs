//! SLOTS, of which a small part is in the agent's memory at a time.

use aya::maps::Map;
use switchyard_datapath::layout::map_names::SLOTS;
use switchyard_kernel::Mapping;

use super::super::EbpfError;
use super::super::arena::Run;
use super::super::slot::{SLOT_BYTES, Slot};
use super::{WORD_BYTES, mapping};

/// Words of a slot.
const SLOT_WORDS: usize = SLOT_BYTES / WORD_BYTES;
/// Bytes that are mapped at a time, from a multiple of as many on: every size of a page divides
/// it. The kernel counts a mapping as memory of the agent's from its first byte to its last, and
/// SLOTS may have half a gigabyte.
const WINDOW_BYTES: usize = 1 << 16;
/// Slots of a window.
const WINDOW_SLOTS: usize = WINDOW_BYTES / SLOT_BYTES;

/// The array of blocks.
#[derive(Debug)]
pub(super) struct Slots {
    /// Programs are loaded by its descriptor.
    array: Map,
    bytes: usize,
    /// What was written last: the next block is often beside it.
    window: Option<Window>,
}

/// A part of the array.
#[derive(Debug)]
struct Window {
    /// How many come before it.
    number: usize,
    words: Mapping,
}

impl Slots {
    /// The slots of an array that has so many.
    pub(super) fn of(array: Map, slots: u32) -> Self {
        Self {
            array,
            bytes: index(slots) * SLOT_BYTES,
            window: None,
        }
    }

    /// Writes a block into its run, where nobody reads yet.
    pub(super) fn write(&mut self, run: Run, block: &[Slot]) -> Result<(), EbpfError> {
        for (at, slot) in (index(run.first)..).zip(block) {
            let window = self.window(at / WINDOW_SLOTS)?;
            for (at, word) in (first_word(at)..).zip(slot.0) {
                window.store(at, word);
            }
        }
        Ok(())
    }

    /// The words of a run.
    pub(super) fn read(&self, run: Run) -> Result<Vec<u64>, EbpfError> {
        let (first, count) = (index(run.first), index(run.count));
        let mut words = Vec::with_capacity(count * SLOT_WORDS);
        let mut at = first;
        while at < first + count {
            let window = self.map(at / WINDOW_SLOTS)?.words;
            let end = (at / WINDOW_SLOTS + 1) * WINDOW_SLOTS;
            for at in at..end.min(first + count) {
                words.extend(
                    (first_word(at)..)
                        .take(SLOT_WORDS)
                        .map(|at| window.load(at)),
                );
            }
            at = end;
        }
        Ok(words)
    }

    /// The words of a window, mapped if they are not.
    fn window(&mut self, number: usize) -> Result<&Mapping, EbpfError> {
        let window = match self.window.take() {
            Some(window) if window.number == number => window,
            _ => self.map(number)?,
        };
        Ok(&self.window.insert(window).words)
    }

    fn map(&self, number: usize) -> Result<Window, EbpfError> {
        let from = number * WINDOW_BYTES;
        let bytes = WINDOW_BYTES.min(self.bytes.saturating_sub(from));
        let words = mapping(&self.array, SLOTS, from, bytes)?;
        Ok(Window { number, words })
    }
}

fn index(slots: u32) -> usize {
    usize::try_from(slots).unwrap_or(usize::MAX / SLOT_BYTES)
}

/// Where a slot begins in its window.
const fn first_word(slot: usize) -> usize {
    slot % WINDOW_SLOTS * SLOT_WORDS
}
