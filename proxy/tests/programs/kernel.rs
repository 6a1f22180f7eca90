//! The programs in the kernel, loaded once, with maps that a test fills.

use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions};
use switchyard_datapath::layout::{
    Address, AffinityKey, AffinityValue, Device, FlowKey, FlowValue, FragmentKey, Frontend,
    FrontendKey, RangeKey, map_names,
};
use switchyard_datapath::table::Table;
use switchyard_proxy::backend::ebpf::object;

use crate::world::UPLINK;

/// The device the kernel lets tests' packets be at: loopback.
const DEVICE: u32 = 1;
/// Room for a packet that comes out, in bytes; none here is longer.
const PACKET_MAX: usize = 4096;
/// Elements of each map that a test fills, at most.
const ELEMENTS_MAX: u32 = 1024;
/// Bits of a set's number before the address in keys of RANGES.
const RANGE_SET_BITS: u32 = 32;

/// Programs at devices.
pub(crate) const DEVICE_PROGRAMS: [&str; 4] =
    ["in_ethernet", "out_ethernet", "in_plain", "out_plain"];

/// A key of FRAGMENTS; the agent never reads one.
type FragmentBytes = [u8; size_of::<FragmentKey>()];

/// What a device's program says, and the packet after it.
pub(crate) type Said = (i32, Vec<u8>);

/// Verifying takes the kernel a while, so that is done once.
static KERNEL: LazyLock<Mutex<Kernel>> = LazyLock::new(|| Mutex::new(Kernel::load(object())));

/// Loaded device programs and their maps.
pub(crate) struct Kernel {
    object: Ebpf,
}

/// An object with its maps in the kernel; of its programs none is yet. `forwards`: packets may be
/// sent on past the stack.
pub(crate) fn open(bytes: &[u8], has_set_retval: bool, forwards: bool) -> Ebpf {
    let uid = nix::unistd::geteuid();
    assert!(
        uid.is_root(),
        "programs are loaded by root only: run this as root"
    );
    let mut loader = EbpfLoader::new();
    let (has_set_retval, forwards) = (u8::from(has_set_retval), u8::from(forwards));
    loader
        .override_global("HAS_SET_RETVAL", &has_set_retval, true)
        .override_global("FORWARDS", &forwards, true);
    for name in [
        map_names::ADDRESSES,
        map_names::FRONTENDS,
        map_names::WORDS,
        map_names::SLOTS,
        map_names::RANGES,
    ] {
        loader.map_max_entries(name, ELEMENTS_MAX);
    }
    loader.load(bytes).unwrap()
}

impl Kernel {
    /// The programs, for one test at a time.
    pub(crate) fn take() -> MutexGuard<'static, Self> {
        KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the device programs of an object.
    pub(crate) fn load(bytes: &[u8]) -> Self {
        let mut object = open(bytes, true, false);
        for name in DEVICE_PROGRAMS {
            let program: &mut SchedClassifier =
                object.program_mut(name).unwrap().try_into().unwrap();
            program
                .load()
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        Self { object }
    }

    /// Gives the maps what a table holds, and nothing else; flows are forgotten.
    pub(crate) fn fill(&mut self, table: &Table) {
        self.hash::<Address, u32>(map_names::ADDRESSES, table.addresses());
        self.hash::<FrontendKey, Frontend>(map_names::FRONTENDS, table.frontends());
        let device = table.devices().get(&UPLINK);
        let devices = device.map(|device| (DEVICE, *device));
        self.hash::<u32, Device>(map_names::DEVICES, &devices.into_iter().collect());
        self.hash::<FlowKey, FlowValue>(map_names::FLOWS, &Default::default());
        self.hash::<AffinityKey, AffinityValue>(map_names::AFFINITY, &Default::default());
        self.hash::<FragmentBytes, [u8; 4]>(map_names::FRAGMENTS, &Default::default());
        self.fill_ranges(table);
        let mut slots: Array<_, [u8; 32]> = self.map(map_names::SLOTS);
        for (at, slot) in (0..).zip(table.slots()) {
            slots.set(at, slot, 0).unwrap();
        }
        let mut words: Array<_, u64> = self.map(map_names::WORDS);
        for (at, word) in (0..).zip(table.words()) {
            words.set(at, u64::from(*word), 0).unwrap();
        }
    }

    fn fill_ranges(&mut self, table: &Table) {
        let mut ranges: LpmTrie<_, RangeKey, u8> = self.map(map_names::RANGES);
        let old: Vec<_> = ranges.keys().map(Result::unwrap).collect();
        for key in old {
            ranges.remove(&key).unwrap();
        }
        for (key, bits) in table.ranges() {
            let key = Key::new(RANGE_SET_BITS + bits, key);
            ranges.insert(&key, 1, 0).unwrap();
        }
    }

    fn map<'a, M>(&'a mut self, name: &str) -> M
    where
        M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        M::try_from(self.object.map_mut(name).unwrap()).unwrap()
    }

    fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
        wanted: &std::collections::HashMap<K, V>,
    ) {
        let mut map: HashMap<&mut MapData, K, V> = self.map(name);
        let old: Vec<K> = map.keys().map(Result::unwrap).collect();
        for key in old {
            map.remove(&key).unwrap();
        }
        for (key, value) in wanted {
            map.insert(key, value, 0).unwrap();
        }
    }

    /// The whole object, for what is not about packets.
    #[cfg(kernel_log)]
    pub(crate) fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    /// All entries of flows.
    pub(crate) fn flows(&mut self) -> Vec<(FlowKey, FlowValue)> {
        let flows: HashMap<&mut MapData, FlowKey, FlowValue> = self.map(map_names::FLOWS);
        flows.iter().map(Result::unwrap).collect()
    }

    /// Runs a program on a packet. An error: the kernel takes no such packet.
    pub(crate) fn run(&mut self, name: &str, packet: &[u8]) -> io::Result<Said> {
        let program: &mut SchedClassifier =
            self.object.program_mut(name).unwrap().try_into().unwrap();
        let mut out = vec![0; PACKET_MAX];
        let result = program.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        });
        let result = result.map_err(|error| match error {
            ProgramError::SyscallError(error) => error.io_error,
            error => panic!("{name}: {error}"),
        })?;
        out.truncate(usize::try_from(result.data_size_out).unwrap());
        Ok((result.return_value.cast_signed(), out))
    }
}
