//! The maps in memory, for tests: a [`Table`] stands where the kernel's maps stand, [`Bytes`]
//! where its packets do, and [`TableSocket`] where its sockets do.
//!
//! Time stands still until a test moves it, and random numbers come from a seed.

mod arena;
mod bytes;
mod contents;
mod maps;
mod slots;
mod socket;

use core::ptr::NonNull;
use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::vec::Vec;

use arena::Arena;
use slots::Slots;

use crate::flow::{Place, Routes, Through, Verdict, Work, arrive, egress, enter, leave};
use crate::layout::{
    Address, AffinityKey, AffinityValue, Counters, Device, Endpoint, FlowKey, FlowValue,
    FragmentKey, FragmentPorts, Frontend, FrontendKey, Hook, Kind, Settings, SettingsPorts, limits,
};
use crate::parse::{Parsed, parse};
use crate::rewrite::rewrite;
use crate::{Packet, Refusal, icmp};

pub use bytes::Bytes;
pub use slots::Block;
pub use socket::TableSocket;

/// A network of a set of source ranges.
struct Range {
    set: u32,
    network: Address,
    bits: u32,
}

/// All maps, a clock, and random numbers.
pub struct Table {
    addresses: HashMap<Address, u32>,
    frontends: HashMap<FrontendKey, Frontend>,
    words: Vec<u32>,
    slots: Slots,
    ranges: Vec<Range>,
    devices: HashMap<u32, Device>,
    // Names of entries, and the entries, which stay where they are.
    affinity: RefCell<HashMap<AffinityKey, NonNull<AffinityValue>>>,
    affinity_values: Arena<AffinityValue>,
    flows: RefCell<BTreeMap<FlowKey, NonNull<FlowValue>>>,
    flow_values: Arena<FlowValue>,
    fragments: RefCell<HashMap<FragmentKey, FragmentPorts>>,
    counters: RefCell<BTreeMap<(u32, Endpoint), Counters>>,
    refusals: RefCell<Vec<Refusal>>,
    flows_max: Cell<usize>,
    until_failure: Cell<Option<u32>>,
    now_ns: Cell<u64>,
    random: Cell<u64>,
    scripted: RefCell<VecDeque<u32>>,
    /// Used for one packet after the other without being cleared, as in the kernel.
    work: RefCell<Work>,
    /// Packets may be sent on.
    forwards: Cell<bool>,
}

impl Table {
    /// Empty maps; `seed` is where random numbers start.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut slots = Slots::default();
        slots.put(0, &[[0; 32]]); // slot 0 stands for "no block"
        Self {
            addresses: HashMap::new(),
            frontends: HashMap::new(),
            words: Vec::new(),
            slots,
            ranges: Vec::new(),
            devices: HashMap::new(),
            affinity: RefCell::default(),
            affinity_values: Arena::default(),
            flows: RefCell::default(),
            flow_values: Arena::default(),
            fragments: RefCell::default(),
            counters: RefCell::default(),
            refusals: RefCell::default(),
            flows_max: Cell::new(usize::try_from(limits::FLOW_ENTRIES_MAX).unwrap_or(usize::MAX)),
            until_failure: Cell::new(None),
            now_ns: Cell::new(0),
            random: Cell::new(seed),
            scripted: RefCell::default(),
            work: RefCell::default(),
            forwards: Cell::default(),
        }
    }

    /// Adds `flags` ([`crate::layout::address_flags`]) to what is known of an address.
    pub fn add_address(&mut self, address: Address, flags: u32) {
        *self.addresses.entry(address).or_default() |= flags;
    }

    /// Puts a Service at an address and a port (in host byte order).
    pub fn add_frontend(
        &mut self,
        address: Address,
        port: u16,
        protocol: u8,
        service: u32,
        kind: Kind,
    ) {
        let key = FrontendKey {
            address,
            port: port.to_be(),
            protocol,
            reserved: 0,
        };
        let kind = kind.number();
        self.frontends.insert(key, Frontend { service, kind });
    }

    /// Adds a network to a set of source ranges; an IPv4 prefix is counted from 96.
    pub fn add_range(&mut self, set: u32, network: Address, bits: u32) {
        self.ranges.push(Range { set, network, bits });
    }

    /// What is known of a device.
    pub fn set_device(&mut self, index: u32, device: Device) {
        self.devices.insert(index, device);
    }

    /// Writes slots as they stand in the map, from `first` on.
    pub fn put_slots(&mut self, first: u32, slots: &[[u8; 32]]) {
        self.slots.put(first, slots);
    }

    /// Has a Service's word (0: the settings') name the slot its block starts at; 0 for none.
    pub fn set_word(&mut self, index: u32, slot: u32) {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        if self.words.len() <= at {
            self.words.resize(at.saturating_add(1), 0);
        }
        if let Some(word) = self.words.get_mut(at) {
            *word = slot;
        }
    }

    /// Lays down a Service's block behind all others and has its word name it.
    pub fn write_block(&mut self, service: u32, block: &Block) {
        self.append(service, &block.slots(service));
    }

    /// Lays down the settings, of IPv4 first.
    pub fn write_settings(&mut self, families: &[Settings; 2], ports: &SettingsPorts) {
        let [v4, v6] = families;
        self.append(
            0,
            &[slots::bytes(v4), slots::bytes(v6), slots::bytes(ports)],
        );
    }

    fn append(&mut self, index: u32, slots: &[[u8; 32]]) {
        let base = self.slots.count();
        self.slots.put(base, slots);
        self.set_word(index, base);
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns.set(self.now_ns.get().saturating_add(by));
    }

    /// The next random numbers, before those from the seed go on.
    pub fn script_random(&self, numbers: impl IntoIterator<Item = u32>) {
        self.scripted.borrow_mut().extend(numbers);
    }

    /// How many entries of flows there may be.
    pub fn limit_flows(&self, entries: usize) {
        self.flows_max.set(entries);
    }

    /// Has one insertion of a flow's entry fail: the next but `skip`.
    pub fn fail_insert(&self, skip: u32) {
        self.until_failure.set(Some(skip));
    }

    /// Whether this insertion is the one that fails.
    fn is_failing(&self) -> bool {
        let left = self.until_failure.get();
        self.until_failure
            .set(left.and_then(|left| left.checked_sub(1)));
        left == Some(0)
    }

    /// All entries of flows, by their keys.
    #[expect(unsafe_code, reason = "copies what the data path has pointers to")]
    pub fn flows(&self) -> BTreeMap<FlowKey, FlowValue> {
        let flows = self.flows.borrow();
        let copy = |(key, value): (&FlowKey, &NonNull<FlowValue>)| {
            // SAFETY: kept by the arena; written by this thread only, the table not being `Sync`.
            (*key, unsafe { value.read() })
        };
        flows.iter().map(copy).collect()
    }

    /// Removes all entries of flows.
    pub fn forget_flows(&self) {
        self.flows.borrow_mut().clear();
    }

    /// What was refused since it was last asked, oldest first.
    pub fn take_refusals(&self) -> Vec<Refusal> {
        self.refusals.take()
    }

    /// What was counted, by Service and endpoint.
    pub fn counters(&self) -> BTreeMap<(u32, Endpoint), Counters> {
        self.counters.borrow().clone()
    }

    /// What the kernel's program at a device does with a packet; false if it is lost.
    pub fn meet(&self, packet: &mut Bytes, hook: Hook, device: u32) -> bool {
        match hook {
            Hook::Ingress => self.come_in(packet, device, None::<&mut NoRoutes>) != Through::Drop,
            Hook::Egress => self.go_out(packet, device),
        }
    }

    /// The device that [`Table::forward`] has sent a packet out by last.
    pub fn sent_by(&self) -> u32 {
        self.work.borrow().device
    }

    /// The device to whose other end it has handed a packet last.
    pub fn handed_to(&self) -> u32 {
        self.work.borrow().near
    }

    /// What the kernel's program at a device with an Ethernet header does with a packet that comes
    /// in, where it may send it on.
    pub fn forward(&self, packet: &mut Bytes, device: u32, routes: &mut impl Routes) -> Through {
        self.come_in(packet, device, Some(routes))
    }

    fn come_in(
        &self,
        packet: &mut Bytes,
        device: u32,
        routes: Option<&mut impl Routes>,
    ) -> Through {
        let work = &mut *self.work.borrow_mut();
        if parse(packet, packet.ip, packet.ethertype, &mut work.parsed).is_none() {
            return Through::Pass;
        }
        if work.parsed.is_icmp() {
            return match icmp::translate(self, packet, work, Hook::Ingress) {
                icmp::Outcome::Pass => Through::Pass,
                icmp::Outcome::Drop => Through::Drop,
            };
        }
        let bytes = packet.len().saturating_sub(packet.ip);
        let place = Place { device, bytes };
        self.forwards.set(routes.is_some());
        arrive(self, work, &place, routes.is_some());
        leave(self, routes, work, &place);
        enter(self, work, &place);
        let is_sent = match work.through {
            Through::Pass | Through::Drop => return work.through,
            Through::Rewrite => false,
            Through::Send | Through::HandOver => true,
        };
        if rewrite(packet, &work.parsed, &work.old, &work.new, is_sent) {
            work.through
        } else {
            Through::Drop
        }
    }

    fn go_out(&self, packet: &mut Bytes, device: u32) -> bool {
        let work = &mut *self.work.borrow_mut();
        if parse(packet, packet.ip, packet.ethertype, &mut work.parsed).is_none() {
            return true;
        }
        if work.parsed.is_icmp() {
            return icmp::translate(self, packet, work, Hook::Egress) == icmp::Outcome::Pass;
        }
        let bytes = packet.len().saturating_sub(packet.ip);
        match egress(self, work, &Place { device, bytes }) {
            Verdict::Pass => true,
            Verdict::Drop => false,
            Verdict::Rewrite => {
                work.set_ends(Hook::Egress);
                rewrite(packet, &work.parsed, &work.old, &work.new, false)
            }
        }
    }
}

/// Nothing is sent on.
struct NoRoutes;

impl Routes for NoRoutes {
    fn route(&mut self, _parsed: &Parsed) -> Option<u32> {
        None
    }

    fn port(&mut self, _bridge: u32) -> Option<u32> {
        None
    }
}
