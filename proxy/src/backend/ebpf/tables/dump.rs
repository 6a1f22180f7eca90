//! What the kernel holds, read back entry by entry: for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use switchyard_datapath::layout::{Address, FrontendKey};

use super::super::arena::Run;
use super::Tables;

/// A block of a Service as words, without what its place and its number are.
pub(in super::super) type BlockWords = Vec<u64>;

/// The maps of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Dump {
    /// Flags of addresses.
    pub(in super::super) addresses: BTreeMap<IpAddr, u32>,
    /// Service and kind by frontend.
    pub(in super::super) frontends: BTreeMap<FrontendKey, (u32, u32)>,
    /// Where the blocks of Services are that have one; the settings' is 0's.
    pub(in super::super) words: BTreeMap<u32, u64>,
    /// Prefix lengths (without the set's bits) and networks by set.
    pub(in super::super) ranges: BTreeMap<u32, BTreeSet<(u32, IpAddr)>>,
}

impl Tables {
    /// Reads everything but the blocks.
    pub(in super::super) fn dump(&self) -> Dump {
        let addresses = self.addresses.iter().map(Result::unwrap);
        let frontends = self.frontends.iter().map(Result::unwrap);
        let mut ranges: BTreeMap<u32, BTreeSet<(u32, IpAddr)>> = BTreeMap::new();
        for key in self.ranges.keys().map(Result::unwrap) {
            let data = key.data();
            let network = (key.prefix_len() - 32, data.address.into());
            let set = ranges.entry(u32::from_be(data.set)).or_default();
            set.insert(network);
        }
        let words = (0..self.sizes.services).map(|index| (index, self.base(index)));
        Dump {
            addresses: addresses
                .map(|(address, flags): (Address, u32)| (IpAddr::from(address), flags))
                .collect(),
            frontends: frontends
                .map(|(key, frontend)| (key, (frontend.service, frontend.kind)))
                .collect(),
            words: words.filter(|(_, base)| *base != 0).collect(),
            ranges,
        }
    }

    /// `slots` slots from `base` on.
    pub(in super::super) fn words_at(&self, base: u64, slots: u32) -> BlockWords {
        let first = u32::try_from(base).unwrap();
        let run = Run {
            first,
            count: slots,
        };
        self.read_block(run).unwrap()
    }

    /// Does to the maps what somebody else might: removes every entry of FRONTENDS, clears KNOWN,
    /// and removes the Service of an index. Says how many words of KNOWN that were.
    pub(in super::super) fn tamper(&mut self, index: u32) -> usize {
        let keys: Vec<FrontendKey> = self.frontends.keys().map(Result::unwrap).collect();
        for key in keys {
            self.frontends.remove(&key).unwrap();
        }
        self.words.store(usize::try_from(index).unwrap(), 0);
        self.known.tamper()
    }

    /// Fills FRONTENDS with what is not ours, until nothing fits in any more.
    pub(in super::super) fn fill_frontends(&mut self) {
        for number in 0.. {
            let key = FrontendKey {
                address: Address([number, u32::MAX, u32::MAX, u32::MAX]),
                ..FrontendKey::default()
            };
            let frontend = super::Frontend::default();
            if self.frontends.insert(key, frontend, 0).is_err() {
                return;
            }
        }
    }
}
