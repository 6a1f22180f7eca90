//! The maps that say what Services do: one set of them for each load of the programs.
//!
//! The agent is their only writer, so it knows what stands in them; [`Tables::audit`] looks.

mod claims;
#[cfg(test)]
pub(super) mod dump;
mod hash;
pub(super) mod known;
mod sizes;
mod slots;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData, MapError};
use switchyard_datapath::layout::{
    Address, Device, Frontend, FrontendKey, RangeKey, StationKey, TCP, address_flags, map_names,
};
use switchyard_datapath::service::any_of_family;
use switchyard_kernel::Mapping;

use self::claims::Claims;
use self::hash::{follow, repair};
use self::known::Known;
use self::slots::Slots;
use super::EbpfError;
use super::arena::{Arena, Run};
use super::slot::Slot;

pub(super) use self::hash::gone;
pub(super) use self::sizes::Sizes;

/// Bytes of a word.
const WORD_BYTES: usize = 8;
/// Bits of a set's number before the address in keys of RANGES.
const RANGE_SET_BITS: u32 = 32;

/// One set of maps.
#[derive(Debug)]
pub(super) struct Tables {
    addresses: aya::maps::HashMap<MapData, Address, u32>,
    known: Known,
    frontends: aya::maps::HashMap<MapData, FrontendKey, Frontend>,
    ranges: LpmTrie<MapData, RangeKey, u8>,
    devices: aya::maps::HashMap<MapData, u32, Device>,
    stations: aya::maps::HashMap<MapData, StationKey, u32>,
    words: Mapping,
    slots: Slots,
    /// The array behind `words`. Programs are loaded by its descriptor.
    _words: Map,
    arena: Arena,
    sizes: Sizes,
    claims: HashMap<Address, Claims>,
    owners: HashMap<FrontendKey, Frontend>,
    known_devices: HashMap<u32, Device>,
    known_stations: HashMap<StationKey, u32>,
    range_entries: u32,
    has_draining: bool,
    /// Elements written and deleted.
    written: usize,
}

/// Takes a map out of a loaded object.
pub(super) fn take(object: &mut aya::Ebpf, name: &'static str) -> Result<Map, EbpfError> {
    object.take_map(name).ok_or(EbpfError::NoSuchMap { name })
}

fn usable<T, E: Into<MapError>>(name: &'static str, map: Result<T, E>) -> Result<T, EbpfError> {
    map.map_err(|error| EbpfError::map(name, error.into()))
}

/// Maps `bytes` bytes of an array that begin `from` bytes after its start.
fn mapping(map: &Map, name: &'static str, from: usize, bytes: usize) -> Result<Mapping, EbpfError> {
    let Map::Array(data) = map else {
        return Err(EbpfError::NoSuchMap { name });
    };
    Mapping::part(data.fd(), from, bytes).map_err(|source| EbpfError::System {
        what: format!("mapping {name} into memory"),
        source,
    })
}

impl Tables {
    /// The maps of an object that was loaded with these sizes; all empty.
    pub(super) fn of(object: &mut aya::Ebpf, sizes: Sizes) -> Result<Self, EbpfError> {
        use map_names::{ADDRESSES, DEVICES, FRONTENDS, RANGES, SLOTS, STATIONS, WORDS};
        let (words, slots) = (take(object, WORDS)?, take(object, SLOTS)?);
        let words_bytes = usize::try_from(sizes.services).unwrap_or(0) * WORD_BYTES;
        Ok(Self {
            addresses: usable(ADDRESSES, take(object, ADDRESSES)?.try_into())?,
            known: Known::of(object, sizes.frontends)?,
            frontends: usable(FRONTENDS, take(object, FRONTENDS)?.try_into())?,
            ranges: usable(RANGES, take(object, RANGES)?.try_into())?,
            devices: usable(DEVICES, take(object, DEVICES)?.try_into())?,
            stations: usable(STATIONS, take(object, STATIONS)?.try_into())?,
            words: mapping(&words, WORDS, 0, words_bytes)?,
            slots: Slots::of(slots, sizes.slots),
            _words: words,
            arena: Arena::new(sizes.slots),
            sizes,
            claims: HashMap::new(),
            owners: HashMap::new(),
            known_devices: HashMap::new(),
            known_stations: HashMap::new(),
            range_entries: 0,
            has_draining: false,
            written: 0,
        })
    }

    pub(super) const fn sizes(&self) -> Sizes {
        self.sizes
    }

    pub(super) fn frontend_count(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn address_count(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn device_count(&self) -> usize {
        self.known_devices.len()
    }

    pub(super) const fn range_count(&self) -> u32 {
        self.range_entries
    }

    pub(super) const fn slots_taken(&self) -> u32 {
        self.arena.taken()
    }

    /// Elements written and deleted since this was last asked.
    pub(super) fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written)
    }

    /// Writes a block where nobody reads yet. `None` if there is no room for it.
    pub(super) fn write_block(&mut self, block: &[Slot]) -> Result<Option<Run>, EbpfError> {
        let Some(run) = self.room_for(block.len()) else {
            return Ok(None);
        };
        if let Err(error) = self.slots.write(run, block) {
            self.arena.give_back(run);
            return Err(error);
        }
        self.written += block.len();
        Ok(Some(run))
    }

    fn room_for(&mut self, slots: usize) -> Option<Run> {
        let count = u32::try_from(slots).ok()?;
        if let Some(run) = self.arena.take(count) {
            return Some(run);
        }
        // What was given back a moment ago may be enough.
        if !self.arena.has_returned() || switchyard_kernel::grace().is_err() {
            return None;
        }
        self.arena.settle();
        self.arena.take(count)
    }

    /// The words that stand in a run of slots.
    pub(super) fn read_block(&self, run: Run) -> Result<Vec<u64>, EbpfError> {
        self.slots.read(run)
    }

    /// Lets a Service (0: the settings) be what a block says, from now on and all at once.
    pub(super) fn flip(&mut self, index: u32, run: Option<Run>) {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let base = run.map_or(0, |run| run.first);
        self.words.store(at, u64::from(base));
        self.written += 1;
    }

    /// Where the kernel finds the block of a Service; 0 if nowhere.
    pub(super) fn base(&self, index: u32) -> u64 {
        self.words
            .load(usize::try_from(index).unwrap_or(usize::MAX))
    }

    pub(super) fn give_back(&mut self, run: Run) {
        self.arena.give_back(run);
    }

    /// Waits until nobody can read what was given back, if anything was.
    pub(super) fn settle(&mut self) {
        if self.arena.has_returned() && switchyard_kernel::grace().is_ok() {
            self.arena.settle();
        }
    }

    /// Claims an address for a Service.
    pub(super) fn claim(&mut self, address: Address, flag: u32) -> Result<(), EbpfError> {
        self.change_claims(address, |claims| {
            *claims.by_flag(flag) += 1;
        })
    }

    /// Takes a claim back. The address stays known until [`Tables::drain`] finds that no
    /// connection needs it.
    pub(super) fn release(&mut self, address: Address, flag: u32) -> Result<(), EbpfError> {
        self.has_draining = true;
        self.change_claims(address, |claims| {
            let count = claims.by_flag(flag);
            *count = count.saturating_sub(1);
            claims.is_draining = true;
        })
    }

    /// Whether addresses are known that nobody claims.
    pub(super) const fn has_draining(&self) -> bool {
        self.has_draining
    }

    /// Keeps addresses that connections still need, and forgets others that nobody claims.
    pub(super) fn drain(&mut self, needed: &HashSet<Address>) -> Result<(), EbpfError> {
        let draining = self.claims.iter().filter(|(_, claims)| claims.is_draining);
        let mut changed: HashSet<Address> = draining.map(|(address, _)| *address).collect();
        changed.extend(needed);
        let mut has_draining = false;
        for address in changed {
            let is_needed = needed.contains(&address);
            self.change_claims(address, |claims| claims.is_draining = is_needed)?;
            has_draining |= self
                .claims
                .get(&address)
                .is_some_and(|claims| claims.flags() == address_flags::DRAINING);
        }
        self.has_draining = has_draining;
        Ok(())
    }

    /// Sets what an address is to the node: 0 for nothing.
    pub(super) fn set_node_address(
        &mut self,
        address: Address,
        flags: u32,
    ) -> Result<(), EbpfError> {
        self.change_claims(address, |claims| claims.node = flags)
    }

    /// The addresses that are something to the node.
    pub(super) fn node_addresses(&self) -> Vec<Address> {
        let of_node = self.claims.iter().filter(|(_, claims)| claims.node != 0);
        of_node.map(|(address, _)| *address).collect()
    }

    fn change_claims(
        &mut self,
        address: Address,
        change: impl FnOnce(&mut Claims),
    ) -> Result<(), EbpfError> {
        let mut claims = self.claims.get(&address).copied().unwrap_or_default();
        let before = claims.flags();
        change(&mut claims);
        let after = claims.flags();
        // What the kernel does not take is not noted either.
        if after != before {
            if after == 0 {
                gone(map_names::ADDRESSES, self.addresses.remove(&address))?;
                self.known.remove(self.address_bit(&address));
            } else {
                let (bit, map) = (self.address_bit(&address), &mut self.addresses);
                let put = || map.insert(address, after, 0);
                let result = self.known.put(bit, before == 0, put);
                result.map_err(|error| EbpfError::map(map_names::ADDRESSES, error))?;
            }
            self.written += 1;
        }
        if after == 0 {
            self.claims.remove(&address);
        } else {
            self.claims.insert(address, claims);
        }
        Ok(())
    }

    const fn frontend_bit(&self, key: &FrontendKey) -> u32 {
        key.known_bit(self.known.bits_log2())
    }

    const fn address_bit(&self, address: &Address) -> u32 {
        address.known_bit(self.known.bits_log2())
    }

    /// Whether a TCP port of an address, or of the node, leads to a Service.
    pub(super) fn has_tcp(&self, to: SocketAddr) -> bool {
        let leads = |address| {
            self.owners.contains_key(&FrontendKey {
                address,
                port: to.port().to_be(),
                protocol: TCP,
                reserved: 0,
            })
        };
        let address = Address::from(to.ip());
        leads(address) || leads(any_of_family(&address))
    }

    /// Lets an address and port lead to a Service.
    pub(super) fn set_frontend(
        &mut self,
        key: FrontendKey,
        frontend: Frontend,
    ) -> Result<(), EbpfError> {
        if self.owners.get(&key) == Some(&frontend) {
            return Ok(());
        }
        let is_new = !self.owners.contains_key(&key);
        let (bit, map) = (self.frontend_bit(&key), &mut self.frontends);
        let result = self.known.put(bit, is_new, || map.insert(key, frontend, 0));
        result.map_err(|error| EbpfError::map(map_names::FRONTENDS, error))?;
        self.owners.insert(key, frontend);
        self.written += 1;
        Ok(())
    }

    /// Ends that, if it still leads to this Service.
    pub(super) fn remove_frontend(
        &mut self,
        key: &FrontendKey,
        service: u32,
    ) -> Result<(), EbpfError> {
        if self
            .owners
            .get(key)
            .is_none_or(|owner| owner.service != service)
        {
            return Ok(());
        }
        gone(map_names::FRONTENDS, self.frontends.remove(key))?;
        self.owners.remove(key);
        self.known.remove(self.frontend_bit(key));
        self.written += 1;
        Ok(())
    }

    /// Adds a network to a set of source ranges.
    pub(super) fn add_range(&mut self, set: u32, bits: u32, net: Address) -> Result<(), EbpfError> {
        let result = self.ranges.insert(&range_key(set, bits, net), 1, 0);
        result.map_err(|error| EbpfError::map(map_names::RANGES, error))?;
        self.range_entries += 1;
        self.written += 1;
        Ok(())
    }

    /// Takes it out again.
    pub(super) fn remove_range(
        &mut self,
        set: u32,
        bits: u32,
        net: Address,
    ) -> Result<(), EbpfError> {
        gone(
            map_names::RANGES,
            self.ranges.remove(&range_key(set, bits, net)),
        )?;
        self.range_entries = self.range_entries.saturating_sub(1);
        self.written += 1;
        Ok(())
    }

    /// Makes DEVICES say this, and nothing else.
    pub(super) fn set_devices(&mut self, devices: &HashMap<u32, Device>) -> Result<(), EbpfError> {
        let (map, known) = (&mut self.devices, &mut self.known_devices);
        self.written += follow(map_names::DEVICES, map, known, devices)?;
        Ok(())
    }

    /// Makes STATIONS say this, and nothing else.
    pub(super) fn set_stations(
        &mut self,
        stations: &HashMap<StationKey, u32>,
    ) -> Result<(), EbpfError> {
        let (map, known) = (&mut self.stations, &mut self.known_stations);
        self.written += follow(map_names::STATIONS, map, known, stations)?;
        Ok(())
    }

    /// Compares ADDRESSES and FRONTENDS (and KNOWN) with what was written, puts right what differs, and
    /// says how much that was.
    pub(super) fn audit(&mut self) -> Result<usize, EbpfError> {
        let mut wrong = self.known.audit();
        let expected = self.claims.iter().map(|(at, claims)| (*at, claims.flags()));
        wrong += repair(
            map_names::ADDRESSES,
            &mut self.addresses,
            expected.collect(),
        )?;
        let expected = self.owners.iter().map(|(key, owner)| (*key, *owner));
        wrong += repair(
            map_names::FRONTENDS,
            &mut self.frontends,
            expected.collect(),
        )?;
        self.written += wrong;
        Ok(wrong)
    }
}

const fn range_key(set: u32, bits: u32, net: Address) -> Key<RangeKey> {
    let data = RangeKey {
        set: set.to_be(),
        address: net,
    };
    Key::new(RANGE_SET_BITS + bits, data)
}
