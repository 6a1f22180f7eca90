//! What a table holds, for tests that give the kernel's maps the same.

use std::collections::HashMap;

use super::Table;
use crate::layout::{Address, Device, Frontend, FrontendKey, RangeKey};

impl Table {
    /// ADDRESSES.
    #[must_use]
    pub const fn addresses(&self) -> &HashMap<Address, u32> {
        &self.addresses
    }

    /// FRONTENDS.
    #[must_use]
    pub const fn frontends(&self) -> &HashMap<FrontendKey, Frontend> {
        &self.frontends
    }

    /// DEVICES.
    #[must_use]
    pub const fn devices(&self) -> &HashMap<u32, Device> {
        &self.devices
    }

    /// WORDS, from the first on.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// SLOTS, from the first on, as bytes.
    pub fn slots(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
        self.slots.iter()
    }

    /// RANGES: keys as the map has them, and the bits of the address that count.
    pub fn ranges(&self) -> impl Iterator<Item = (RangeKey, u32)> + '_ {
        self.ranges.iter().map(|range| {
            let key = RangeKey {
                set: range.set.to_be(),
                address: range.network,
            };
            (key, range.bits)
        })
    }
}
