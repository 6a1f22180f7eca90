//! The maps, and the data path's view of them.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use switchyard_datapath::flow::Work;
#[cfg(feature = "log")]
use switchyard_datapath::layout::flow_flags;
use switchyard_datapath::layout::{
    Address, AffinityKey, AffinityValue, Connected, CounterKey, Counters, Device, Endpoint, Event,
    FlowKey, FlowValue, FragmentKey, FragmentPorts, Frontend, FrontendKey, Header, RangeKey,
    Settings, SettingsPorts, SocketRecord, limits,
};
use switchyard_datapath::{FlowRef, Insert, Maps, Refusal};

use crate::globals::{forwards, has_coarse_clock, known_bits_log2};

/// The agent writes through a mapping (`BPF_F_MMAPABLE`, Linux 5.5).
const MMAPABLE: u32 = 1 << 10;

// The first seven are made by the agent in the size that is needed.
#[map]
static ADDRESSES: HashMap<Address, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static KNOWN: Array<u64> = Array::with_max_entries(1, MMAPABLE);
#[map]
static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static WORDS: Array<u64> = Array::with_max_entries(1, MMAPABLE);
#[map]
static SLOTS: Array<Endpoint> = Array::with_max_entries(1, MMAPABLE);
#[map]
static RANGES: LpmTrie<RangeKey, u8> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static DEVICES: HashMap<u32, Device> =
    HashMap::with_max_entries(limits::DEVICE_ENTRIES_MAX, BPF_F_NO_PREALLOC);

// These outlive the agent, pinned.
#[map]
static FLOWS: HashMap<FlowKey, FlowValue> = HashMap::with_max_entries(limits::FLOW_ENTRIES_MAX, 0);
#[map]
static AFFINITY: HashMap<AffinityKey, AffinityValue> =
    HashMap::with_max_entries(limits::AFFINITY_ENTRIES_MAX, BPF_F_NO_PREALLOC);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(limits::FRAGMENT_ENTRIES_MAX, 0);
#[map]
static COUNTERS: PerCpuHashMap<CounterKey, Counters> =
    PerCpuHashMap::with_max_entries(limits::COUNTER_ENTRIES_MAX, BPF_F_NO_PREALLOC);
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(16, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENTS_BYTES, 0);
#[map]
static OPT_OUT: HashMap<u64, u8> =
    HashMap::with_max_entries(limits::OPT_OUT_ENTRIES_MAX, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static CONNECTED: HashMap<u64, Connected> =
    HashMap::with_max_entries(limits::CONNECTED_ENTRIES_MAX, BPF_F_NO_PREALLOC);
/// Which index a Service port has (by a digest of its name). No program reads it: it is here to
/// be as lasting as what the indexes stand in.
#[map]
static IDENTITIES: HashMap<[u8; 16], u32> =
    HashMap::with_max_entries(limits::SERVICES_MAX, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
#[btf_map]
pub(crate) static SOCKETS: SkStorage<SocketRecord> = SkStorage::new();

/// Whether sockets of a network namespace are to be left alone.
#[inline(always)]
pub(crate) fn is_opted_out(namespace: u64) -> bool {
    OPT_OUT.get_ptr(&namespace).is_some()
}

#[inline(always)]
fn counter_key(service: u32, address: &Address, port: u16) -> CounterKey {
    CounterKey {
        address: *address,
        service,
        port,
        reserved: 0,
    }
}

/// The maps as the data path sees them, at a device (0: at a socket).
pub(crate) struct KernelMaps {
    device: u32,
    /// What was done with them, for the log.
    #[cfg(feature = "log")]
    pub(crate) done: core::cell::Cell<Done>,
    /// Refusals are counted, but have no line in the log.
    #[cfg(feature = "log")]
    is_quiet: bool,
}

/// What was done beyond what is done for each packet.
#[cfg(feature = "log")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Nothing,
    Opened,
    Masqueraded,
}

impl KernelMaps {
    #[inline(always)]
    pub(crate) const fn at(device: u32) -> Self {
        Self {
            device,
            #[cfg(feature = "log")]
            done: core::cell::Cell::new(Done::Nothing),
            #[cfg(feature = "log")]
            is_quiet: false,
        }
    }

    /// The same, without lines for the log.
    #[inline(always)]
    pub(crate) const fn quiet(device: u32) -> Self {
        #[cfg_attr(
            not(feature = "log"),
            expect(unused_mut, reason = "of lines for the log")
        )]
        let mut maps = Self::at(device);
        #[cfg(feature = "log")]
        {
            maps.is_quiet = true;
        }
        maps
    }

    /// Whether what has this bit may be there: most of what packets have is not, and a bit is read
    /// sooner than a hash table is searched.
    #[inline(always)]
    fn has_bit(bit: u32) -> bool {
        if known_bits_log2() == 0 {
            return true;
        }
        // SAFETY: one aligned load of eight bytes, which the agent writes as one.
        let word = KNOWN
            .get_ptr(bit / 64)
            .map(|word| unsafe { word.read_volatile() });
        word.is_none_or(|word| word >> (bit % 64) & 1 != 0)
    }

    #[inline(always)]
    fn slot<T>(slot: u32) -> Option<&'static T> {
        const { assert!(size_of::<T>() <= size_of::<Endpoint>()) };
        // SAFETY: slots are 32 bytes and plain numbers; a block does not change while any
        // program can know its place, and arrays are as long as the program runs.
        SLOTS
            .get_ptr(slot)
            .map(|slot| unsafe { &*slot.cast::<T>() })
    }
}

impl Maps for KernelMaps {
    #[inline(always)]
    fn may_know(&self, address: &Address) -> bool {
        Self::has_bit(address.known_bit(known_bits_log2()))
    }

    #[inline(always)]
    fn address(&self, address: &Address) -> Option<u32> {
        // SAFETY: read once, at once.
        ADDRESSES.get_ptr(address).map(|flags| unsafe { *flags })
    }

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        if !Self::has_bit(key.known_bit(known_bits_log2())) {
            return None;
        }
        // SAFETY: copied out at once.
        FRONTENDS.get_ptr(key).map(|value| unsafe { *value })
    }

    #[inline(always)]
    fn word(&self, index: u32) -> Option<u32> {
        // SAFETY: one aligned load of eight bytes, which the agent writes as one.
        let word = WORDS
            .get_ptr(index)
            .map(|word| unsafe { word.read_volatile() })?;
        Some(word as u32)
    }

    #[inline(always)]
    fn header(&self, slot: u32) -> Option<&Header> {
        Self::slot(slot)
    }

    #[inline(always)]
    fn endpoint(&self, slot: u32) -> Option<&Endpoint> {
        Self::slot(slot)
    }

    #[inline(always)]
    fn maglev(&self, slot: u32) -> Option<&[u16; 16]> {
        Self::slot(slot)
    }

    #[inline(always)]
    fn settings(&self, slot: u32) -> Option<&Settings> {
        Self::slot(slot)
    }

    #[inline(always)]
    fn settings_ports(&self, slot: u32) -> Option<&SettingsPorts> {
        Self::slot(slot)
    }

    #[inline(always)]
    fn in_range(&self, key: &RangeKey) -> bool {
        RANGES.get(Key::new(160, *key)).is_some()
    }

    #[inline(always)]
    fn device(&self, index: u32) -> Option<&Device> {
        // SAFETY: the agent replaces elements as a whole, and never reuses one under a reader.
        DEVICES.get_ptr(&index).map(|device| unsafe { &*device })
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<&AffinityValue> {
        // SAFETY: elements are replaced as a whole.
        AFFINITY.get_ptr(key).map(|value| unsafe { &*value })
    }

    #[inline(always)]
    fn remember(&self, key: &AffinityKey, value: &AffinityValue) {
        // A full map costs the client its affinity; the agent sees how full it is.
        let _ = AFFINITY.insert(key, value, 0);
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowRef> {
        // SAFETY: points into the map, as long as the program runs.
        FLOWS
            .get_ptr_mut(key)
            .map(|flow| unsafe { FlowRef::new(flow) })
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, value: &FlowValue, how: Insert) -> bool {
        let flags = match how {
            Insert::Any => 0,
            Insert::New => u64::from(BPF_NOEXIST),
        };
        let inserted = FLOWS.insert(key, value, flags).is_ok();
        #[cfg(feature = "log")]
        if inserted && value.flags & flow_flags::UNMASQUERADE != 0 {
            self.done.set(Done::Masqueraded);
        }
        inserted
    }

    #[inline(always)]
    fn remove_flow(&self, key: &FlowKey) {
        let _ = FLOWS.remove(key);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: copied out at once.
        FRAGMENTS.get_ptr(key).map(|ports| unsafe { *ports })
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        let _ = FRAGMENTS.insert(key, ports, 0);
    }

    #[inline(always)]
    fn forwards(&self) -> bool {
        // Programs that log have no stack left for it.
        !cfg!(feature = "log") && forwards()
    }

    #[inline(always)]
    fn count_connection(&self, service: u32, endpoint: &Endpoint, bytes: u32) {
        #[cfg(feature = "log")]
        self.done.set(Done::Opened);
        let key = counter_key(service, &endpoint.address, endpoint.port);
        let packets = u64::from(bytes != 0);
        if let Some(counters) = COUNTERS.get_ptr_mut(&key) {
            // SAFETY: this CPU's own value.
            let counters = unsafe { &mut *counters };
            counters.connections = counters.connections.wrapping_add(1);
            counters.packets = counters.packets.wrapping_add(packets);
            counters.bytes = counters.bytes.wrapping_add(u64::from(bytes));
            return;
        }
        let first = Counters {
            connections: 1,
            packets,
            bytes: u64::from(bytes),
        };
        let _ = COUNTERS.insert(&key, &first, u64::from(BPF_NOEXIST));
    }

    #[inline(always)]
    fn count_packet(&self, service: u32, address: &Address, port: u16, bytes: u32) {
        let key = counter_key(service, address, port);
        if let Some(counters) = COUNTERS.get_ptr_mut(&key) {
            // SAFETY: this CPU's own value.
            let counters = unsafe { &mut *counters };
            counters.packets = counters.packets.wrapping_add(1);
            counters.bytes = counters.bytes.wrapping_add(u64::from(bytes));
        }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: both take nothing and return a number, of the same clock.
        unsafe {
            if has_coarse_clock() {
                bpf_ktime_get_coarse_ns()
            } else {
                bpf_ktime_get_ns()
            }
        }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: takes nothing, returns a number.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn refused(&self, refusal: &Refusal) {
        #[cfg(feature = "log")]
        if !self.is_quiet {
            crate::log::refused(refusal);
        }
        if let Some(count) = DROPS.get_ptr_mut(refusal.reason.number()) {
            // SAFETY: this CPU's own value.
            unsafe { *count = (*count).wrapping_add(1) };
        }
        if let Some(mut entry) = EVENTS.reserve::<Event>(0) {
            entry.write(Event {
                source: refusal.source,
                destination: refusal.destination,
                source_port: refusal.source_port,
                destination_port: refusal.destination_port,
                protocol: refusal.protocol,
                reason: refusal.reason.number() as u8,
                told: u8::from(refusal.told),
                reserved: 0,
                device: self.device,
                service: refusal.service,
            });
            entry.submit(0);
        }
    }
}
