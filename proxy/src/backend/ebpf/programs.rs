//! Loading the programs, with a set of maps of their own and those that outlive them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::MapData;
use aya::programs::{Program, ProgramError};
use aya::{EbpfLoader, VerifierLogLevel};
use switchyard_datapath::layout::{
    AffinityKey, AffinityValue, Connected, CounterKey, Counters, FlowKey, FlowValue, FragmentKey,
    FragmentPorts, SocketRecord, map_names,
};

use super::EbpfError;
use super::config::Forwarding;
use super::features::Features;
#[cfg(kernel_log)]
use super::kernel_log::{self, KernelLog};
use super::pins::{Expected, Pins};
use super::tables::{Sizes, Tables, known, take};

/// The object file, built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.o"));

/// The programs and maps as an ELF object, as this build of the agent loads it: for tests that run
/// the programs themselves. Its maps named `ADDRESSES`, `FRONTENDS`, `WORDS`, `SLOTS` and `RANGES`
/// have room for one element; who loads it says how many it needs. Without `KNOWN_BITS_LOG2` no
/// `KNOWN` is kept, nor looked at.
#[must_use]
pub fn object() -> &'static [u8] {
    OBJECT
}

/// The programs that tell of their decisions, where there are any and somebody listens.
fn wanted_object() -> &'static [u8] {
    #[cfg(kernel_log)]
    if kernel_log::is_wanted() {
        return kernel_log::telling_object();
    }
    OBJECT
}

/// Programs at sockets.
pub(super) const SOCKET_PROGRAMS: [&str; 9] = [
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "sock_release",
];
/// Programs at devices with an Ethernet header: in, out.
pub(super) const ETHERNET_PROGRAMS: [&str; 2] = ["in_ethernet", "out_ethernet"];
/// Programs at devices without.
pub(super) const PLAIN_PROGRAMS: [&str; 2] = ["in_plain", "out_plain"];

/// Programs that are loaded at the same time: verifying is work for the kernel.
const LOADS_AT_A_TIME: usize = 4;

pub(super) const HASH: u32 = 1;
const PERCPU_HASH: u32 = 5;
const LRU_HASH: u32 = 9;
const PERCPU_ARRAY: u32 = 6;
const SK_STORAGE: u32 = 24;

const fn bytes<T>() -> u32 {
    let size = size_of::<T>();
    assert!(size < 4096);
    let [a, b, ..] = size.to_le_bytes();
    u32::from_le_bytes([a, b, 0, 0])
}

pub(super) const fn expected<K, V>(kind: u32) -> Expected {
    Expected {
        kind,
        key_bytes: bytes::<K>(),
        value_bytes: bytes::<V>(),
    }
}

/// The maps that outlive the agent. What only tells (EVENTS) does not.
pub(super) const SHARED: [(&str, Expected); 9] = [
    (map_names::FLOWS, expected::<FlowKey, FlowValue>(HASH)),
    (
        map_names::AFFINITY,
        expected::<AffinityKey, AffinityValue>(HASH),
    ),
    (
        map_names::SOCKETS,
        expected::<i32, SocketRecord>(SK_STORAGE),
    ),
    (map_names::CONNECTED, expected::<u64, Connected>(HASH)),
    (
        map_names::FRAGMENTS,
        expected::<FragmentKey, FragmentPorts>(LRU_HASH),
    ),
    (
        map_names::COUNTERS,
        expected::<CounterKey, Counters>(PERCPU_HASH),
    ),
    (map_names::DROPS, expected::<u32, u64>(PERCPU_ARRAY)),
    (map_names::IDENTITIES, expected::<[u8; 16], u32>(HASH)),
    (map_names::OPT_OUT, expected::<u64, u8>(HASH)),
];

/// A loaded object: its programs are in the kernel, but nothing is attached yet.
pub(super) struct Loaded {
    object: aya::Ebpf,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

impl Loaded {
    /// Loads the object with maps of these sizes, and takes its maps out.
    pub(super) fn load(
        pins: &Pins,
        sizes: Sizes,
        features: &Features,
        forwarding: Forwarding,
    ) -> Result<(Self, Tables), EbpfError> {
        let paths = SHARED
            .iter()
            .map(|(name, expected)| Ok((*name, pins.map(name, expected)?)))
            .collect::<Result<Vec<_>, EbpfError>>()?;
        let has_set_retval = u8::from(features.set_retval);
        let has_coarse_clock = u8::from(features.coarse_clock);
        let forwards = u8::from(forwarding == Forwarding::Direct);
        let known_bits_log2 = known::bits_log2(sizes.frontends);
        let mut loader = EbpfLoader::new();
        loader
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global("HAS_SET_RETVAL", &has_set_retval, true)
            .override_global("HAS_COARSE_CLOCK", &has_coarse_clock, true)
            .override_global("FORWARDS", &forwards, true)
            .override_global("KNOWN_BITS_LOG2", &known_bits_log2, true)
            .map_max_entries(map_names::KNOWN, known::words(known_bits_log2))
            .map_max_entries(map_names::WORDS, sizes.services)
            .map_max_entries(map_names::SLOTS, sizes.slots)
            .map_max_entries(map_names::FRONTENDS, sizes.frontends)
            .map_max_entries(map_names::ADDRESSES, sizes.frontends)
            .map_max_entries(map_names::RANGES, sizes.ranges);
        for (name, path) in paths {
            loader.map_pin_path(name, path);
        }
        let mut object = loader.load(wanted_object())?;
        let tables = Tables::of(&mut object, sizes)?;
        Ok((Self { object }, tables))
    }

    /// What the programs tell of their decisions.
    #[cfg(kernel_log)]
    pub(super) fn log(&mut self) -> KernelLog {
        KernelLog::of(&mut self.object)
    }

    /// Takes one of the maps that outlive the programs.
    pub(super) fn shared<M>(&mut self, name: &'static str) -> Result<M, EbpfError>
    where
        M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
    {
        M::try_from(take(&mut self.object, name)?).map_err(|error| EbpfError::map(name, error))
    }

    /// A descriptor of a hash map that outlives the programs.
    pub(super) fn descriptor(&self, name: &'static str) -> Result<OwnedFd, EbpfError> {
        let Some(aya::maps::Map::HashMap(map)) = self.object.map(name) else {
            return Err(EbpfError::NoSuchMap { name });
        };
        let descriptor = map.fd().as_fd().try_clone_to_owned();
        descriptor.map_err(EbpfError::system(format!("map {name}")))
    }

    /// The ring that refusals are told by.
    pub(super) fn events(&mut self) -> Result<aya::maps::RingBuf<MapData>, EbpfError> {
        self.shared(map_names::EVENTS)
    }

    /// Gives programs to the kernel, which verifies them; those that are there already stay.
    pub(super) fn verify(&mut self, names: &[&'static str]) -> Result<(), EbpfError> {
        let mut waiting: Vec<(&'static str, &mut Program)> = self
            .object
            .programs_mut()
            .filter_map(|(name, program)| {
                let name = names.iter().find(|wanted| **wanted == name)?;
                program.fd().is_err().then_some((*name, program))
            })
            .collect();
        let per_thread = waiting.len().div_ceil(LOADS_AT_A_TIME).max(1);
        std::thread::scope(|scope| {
            let loads: Vec<_> = waiting
                .chunks_mut(per_thread)
                .map(|chunk| {
                    scope.spawn(move || {
                        chunk.iter_mut().try_for_each(|(name, program)| {
                            load_one(program).map_err(|error| EbpfError::program(name, &error))
                        })
                    })
                })
                .collect();
            loads.into_iter().try_for_each(|load| {
                load.join().unwrap_or_else(|_| {
                    Err(EbpfError::System {
                        what: "loading programs".to_owned(),
                        source: std::io::Error::other("a thread of ours ended early"),
                    })
                })
            })
        })
    }

    /// A program that was verified.
    pub(super) fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, EbpfError> {
        let program = self
            .object
            .program(name)
            .ok_or(EbpfError::NoSuchProgram { name })?;
        let fd = program
            .fd()
            .map_err(|error| EbpfError::program(name, &error))?;
        Ok(fd.as_fd())
    }

    /// A program at devices, to be attached by a filter of traffic control.
    pub(super) fn classifier(
        &mut self,
        name: &'static str,
    ) -> Result<&mut aya::programs::SchedClassifier, EbpfError> {
        let program = self.object.program_mut(name);
        let classifier = program.and_then(|program| program.try_into().ok());
        classifier.ok_or(EbpfError::NoSuchProgram { name })
    }
}

fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
