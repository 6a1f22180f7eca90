//! The table behind the trait that the data path asks.

use super::Table;
use crate::layout::{
    Address, AffinityKey, AffinityValue, Device, Endpoint, FlowKey, FlowValue, FragmentKey,
    FragmentPorts, Frontend, FrontendKey, Header, RangeKey, Settings, SettingsPorts,
};
use crate::{FlowRef, Insert, Maps, Refusal};

impl Maps for Table {
    fn may_know(&self, address: &Address) -> bool {
        self.addresses.contains_key(address)
    }

    fn address(&self, address: &Address) -> Option<u32> {
        self.addresses.get(address).copied()
    }

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn word(&self, index: u32) -> Option<u32> {
        self.words.get(usize::try_from(index).ok()?).copied()
    }

    fn header(&self, slot: u32) -> Option<&Header> {
        self.slots.get(slot)
    }

    fn endpoint(&self, slot: u32) -> Option<&Endpoint> {
        self.slots.get(slot)
    }

    fn maglev(&self, slot: u32) -> Option<&[u16; 16]> {
        self.slots.get(slot)
    }

    fn settings(&self, slot: u32) -> Option<&Settings> {
        self.slots.get(slot)
    }

    fn settings_ports(&self, slot: u32) -> Option<&SettingsPorts> {
        self.slots.get(slot)
    }

    fn in_range(&self, key: &RangeKey) -> bool {
        let set = u32::from_be(key.set);
        self.ranges
            .iter()
            .any(|range| range.set == set && key.address.is_within(&range.network, range.bits))
    }

    fn device(&self, index: u32) -> Option<&Device> {
        self.devices.get(&index)
    }

    #[expect(unsafe_code, reason = "replaced values stay where they are")]
    fn affinity(&self, key: &AffinityKey) -> Option<&AffinityValue> {
        let value = *self.affinity.borrow().get(key)?;
        // SAFETY: the arena keeps it as long as the table is there, and nobody writes to it.
        Some(unsafe { value.as_ref() })
    }

    fn remember(&self, key: &AffinityKey, value: &AffinityValue) {
        let value = self.affinity_values.keep(*value);
        self.affinity.borrow_mut().insert(*key, value);
    }

    #[expect(unsafe_code, reason = "replaced values stay where they are")]
    fn flow(&self, key: &FlowKey) -> Option<FlowRef> {
        let value = *self.flows.borrow().get(key)?;
        // SAFETY: the arena keeps it as long as the table is there, and the table itself makes
        // no reference to it, only copies.
        Some(unsafe { FlowRef::new(value.as_ptr()) })
    }

    fn insert_flow(&self, key: &FlowKey, value: &FlowValue, how: Insert) -> bool {
        if self.is_failing() {
            return false;
        }
        let mut flows = self.flows.borrow_mut();
        let is_there = flows.contains_key(key);
        if is_there && how == Insert::New || !is_there && flows.len() >= self.flows_max.get() {
            return false;
        }
        flows.insert(*key, self.flow_values.keep(*value));
        true
    }

    fn remove_flow(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, *ports);
    }

    fn forwards(&self) -> bool {
        self.forwards.get()
    }

    fn count_connection(&self, service: u32, endpoint: &Endpoint, bytes: u32) {
        let mut counters = self.counters.borrow_mut();
        let counters = counters.entry((service, *endpoint)).or_default();
        counters.connections += 1;
        counters.packets += u64::from(bytes != 0);
        counters.bytes += u64::from(bytes);
    }

    fn count_packet(&self, service: u32, address: &Address, port: u16, bytes: u32) {
        let mut counters = self.counters.borrow_mut();
        if let Some(counters) = counters.get_mut(&(service, Endpoint::new(*address, port))) {
            counters.packets += 1;
            counters.bytes += u64::from(bytes);
        }
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn random(&self) -> u32 {
        if let Some(scripted) = self.scripted.borrow_mut().pop_front() {
            return scripted;
        }
        // SplitMix64.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0)
    }

    fn refused(&self, refusal: &Refusal) {
        self.refusals.borrow_mut().push(*refusal);
    }
}
