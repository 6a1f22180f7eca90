//! SLOTS, of which a small part is in the agent's memory at a time.

use std::collections::VecDeque;

use aya::maps::Map;
use switchyard_datapath::layout::map_names::SLOTS;
use switchyard_kernel::{Mapping, page_bytes};

use super::super::EbpfError;
use super::super::arena::Run;
use super::super::slot::{SLOT_BYTES, Slot};
use super::{WORD_BYTES, mapping};

/// Words of a slot.
const SLOT_WORDS: usize = SLOT_BYTES / WORD_BYTES;
/// Bytes that are mapped at a time, from a multiple of as many on; more only where a page is
/// larger. The kernel counts a mapping as memory of the agent's from its first byte to its last,
/// and SLOTS may have half a gigabyte.
const WINDOW_BYTES: usize = 1 << 14;
/// Parts that stay mapped beside the one in use: what changes often finds its place still there.
/// Mapping another takes some tens of microseconds, most of them to unmap the oldest.
const WINDOWS_KEPT: usize = 31;

/// The array of blocks.
#[derive(Debug)]
pub(super) struct Slots {
    /// Programs are loaded by its descriptor.
    array: Map,
    bytes: usize,
    window_slots: usize,
    /// What was written last: the next block is often beside it.
    window: Option<Window>,
    /// What was written before, the oldest first.
    earlier: VecDeque<Window>,
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
            // Both are powers of two.
            window_slots: WINDOW_BYTES.max(page_bytes()) / SLOT_BYTES,
            window: None,
            earlier: VecDeque::with_capacity(WINDOWS_KEPT + 1),
        }
    }

    /// Writes a block into its run, where nobody reads yet.
    pub(super) fn write(&mut self, run: Run, block: &[Slot]) -> Result<(), EbpfError> {
        for (at, slot) in (index(run.first)..).zip(block) {
            let first_word = self.first_word(at);
            let window = self.window(at / self.window_slots)?;
            for (at, word) in (first_word..).zip(slot.0) {
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
            let number = at / self.window_slots;
            let window = self.map(number)?.words;
            let end = (number + 1) * self.window_slots;
            for at in at..end.min(first + count) {
                words.extend(
                    (self.first_word(at)..)
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
            other => self.change_window(other, number)?,
        };
        Ok(&self.window.insert(window).words)
    }

    fn change_window(&mut self, last: Option<Window>, number: usize) -> Result<Window, EbpfError> {
        let mut earlier = self.earlier.iter();
        let known = earlier.position(|window| window.number == number);
        let known = known.and_then(|at| self.earlier.remove(at));
        self.earlier.extend(last);
        if self.earlier.len() > WINDOWS_KEPT {
            self.earlier.pop_front();
        }
        known.map_or_else(|| self.map(number), Ok)
    }

    fn map(&self, number: usize) -> Result<Window, EbpfError> {
        let window_bytes = self.window_slots * SLOT_BYTES;
        let from = number * window_bytes;
        let bytes = window_bytes.min(self.bytes.saturating_sub(from));
        let words = mapping(&self.array, SLOTS, from, bytes)?;
        Ok(Window { number, words })
    }

    /// Where a slot begins in its window.
    const fn first_word(&self, slot: usize) -> usize {
        slot % self.window_slots * SLOT_WORDS
    }
}

fn index(slots: u32) -> usize {
    usize::try_from(slots).unwrap_or(usize::MAX / SLOT_BYTES)
}
