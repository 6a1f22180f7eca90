use std::vec::Vec;

use crate::layout::{Endpoint, Header, MAGLEV_PER_SLOT, Settings, SettingsPorts, header_flags};
use crate::maglev;

/// The bytes of one slot.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default)]
struct Slot([u8; 32]);

/// What stands in a slot: 32 bytes of plain numbers without padding.
///
/// # Safety
/// Any 32 bytes must be a value, none of its bytes may be padding, and its alignment 8 at most.
#[expect(
    unsafe_code,
    reason = "the map holds bytes that are read as one of these"
)]
pub(super) unsafe trait InSlot: Copy {}

macro_rules! in_slot {
    ($($kind:ty),*) => {$(
        const _: () = assert!(size_of::<$kind>() == 32 && align_of::<$kind>() <= 8);
        #[expect(unsafe_code, reason = "the map holds bytes that are read as one of these")]
        // SAFETY: whole numbers only, in 32 bytes.
        unsafe impl InSlot for $kind {}
    )*};
}
in_slot!(Header, Endpoint, Settings, SettingsPorts, [u16; 16]);

/// The array SLOTS: bytes, read as whatever the reader takes them for.
#[derive(Default)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// All of them, as bytes.
    pub(super) fn iter(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
        self.0.iter().map(|slot| slot.0)
    }

    /// Writes slots from `first` on; the array grows as needed.
    pub(super) fn put(&mut self, first: u32, slots: &[[u8; 32]]) {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let end = first.saturating_add(slots.len());
        if self.0.len() < end {
            self.0.resize(end, Slot::default());
        }
        for (to, from) in self.0.iter_mut().skip(first).zip(slots) {
            to.0 = *from;
        }
    }

    /// A slot as one of the kinds.
    #[expect(unsafe_code, reason = "bytes are read as what stands there")]
    pub(super) fn get<T: InSlot>(&self, slot: u32) -> Option<&T> {
        let slot = self.0.get(usize::try_from(slot).ok()?)?;
        // SAFETY: 32 bytes at a multiple of 8, and any bytes are a `T`, by its contract.
        Some(unsafe { &*core::ptr::from_ref(slot).cast::<T>() })
    }
}

/// The bytes of a value.
#[expect(unsafe_code, reason = "a value is written as bytes")]
pub(super) fn bytes<T: InSlot>(value: &T) -> [u8; 32] {
    // SAFETY: 32 bytes without padding, by the contract of `InSlot`.
    unsafe { core::mem::transmute_copy(value) }
}

/// A Service's endpoints and what holds for them, to be laid down by
/// [`super::Table::write_block`].
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Endpoints anywhere.
    pub cluster: Vec<Endpoint>,
    /// Endpoints on this node.
    pub local: Vec<Endpoint>,
    /// Endpoints that still serve (UDP).
    pub serving: Vec<Endpoint>,
    /// [`header_flags`]; [`header_flags::ANY_ENDPOINT`] is added where there are endpoints.
    pub flags: u16,
    /// ClientIP affinity in seconds, 0 for none.
    pub affinity_s: u32,
    /// The set of source ranges, 0 for everybody.
    pub ranges: u32,
    /// Whether there is a Maglev table, of the size [`maglev::size`] says.
    pub maglev: bool,
}

impl Block {
    /// The block's slots: header, the lists sorted, the Maglev table.
    pub(super) fn slots(&self, service: u32) -> Vec<[u8; 32]> {
        let [cluster, local, serving] = [&self.cluster, &self.local, &self.serving].map(|list| {
            let mut list = list.clone();
            list.sort_unstable();
            list
        });
        let table = self.table(&cluster);
        let count = |list: &[Endpoint]| u16::try_from(list.len()).unwrap_or(u16::MAX);
        let mut flags = self.flags;
        if !(cluster.is_empty() && local.is_empty()) {
            flags |= header_flags::ANY_ENDPOINT;
        }
        let header = Header {
            cluster: count(&cluster),
            local: count(&local),
            serving: count(&serving),
            flags,
            affinity_s: self.affinity_s,
            ranges: self.ranges,
            maglev: u32::try_from(table.len()).unwrap_or(0),
            service,
            reserved: [0; 2],
        };
        let mut slots = Vec::from([bytes(&header)]);
        for list in [cluster, local, serving] {
            slots.extend(list.iter().map(bytes));
        }
        let per_slot = usize::try_from(MAGLEV_PER_SLOT).unwrap_or(1);
        for positions in table.chunks(per_slot) {
            let mut slot = [0_u16; 16];
            for (to, from) in slot.iter_mut().zip(positions) {
                *to = *from;
            }
            slots.push(bytes(&slot));
        }
        slots
    }

    fn table(&self, cluster: &[Endpoint]) -> Vec<u16> {
        let endpoints = u32::try_from(cluster.len()).unwrap_or(u32::MAX);
        let size = if self.maglev {
            maglev::size(endpoints)
        } else {
            0
        };
        let mut table = std::vec![0; usize::try_from(size).unwrap_or(0)];
        maglev::fill(cluster, &mut table, &mut std::vec![0; cluster.len()]);
        table
    }
}
