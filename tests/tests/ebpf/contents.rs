//! What the programs in force see, read back from the kernel: the same for every way that led there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};
use switchyard_datapath::layout::{
    Address, Device, Frontend, FrontendKey, MAGLEV_PER_SLOT, RangeKey, Settings, device_flags,
    map_names, settings_flags,
};
use switchyard_kernel::Link;

use super::stage::{MAPS, Stage};

/// Slots of the settings: one for each family, one for ports.
const SETTINGS_SLOTS: u32 = 3;
/// Where a family's has its flags.
const FLAGS_AT: usize = std::mem::offset_of!(Settings, flags);

type Slot = [u8; 32];

/// Everything that says what Services do, without numbers that another run may give otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    addresses: BTreeMap<IpAddr, u32>,
    /// By address, port and protocol.
    frontends: BTreeMap<(SocketAddr, u8), Leads>,
    settings: Vec<Slot>,
    devices: BTreeMap<u32, Device>,
    range_entries: usize,
    service_ports: usize,
    links: usize,
}

/// Where a frontend leads.
#[derive(Debug, PartialEq, Eq)]
struct Leads {
    kind: u32,
    block: Vec<Slot>,
    ranges: BTreeSet<(u32, IpAddr)>,
}

impl Contents {
    /// Reads what is in force on node1.
    ///
    /// # Errors
    /// Programs of different sets are in force together, links are there that have no name, or what
    /// the maps say of a Service port does not go together.
    pub(super) fn read(stage: &Stage) -> Result<Self> {
        let kept = kept_maps(&stage.roots.bpf.join(MAPS))?;
        let (programs, links) = programs_in_force(&stage.roots.bpf.join("links"), &kept)?;
        let maps = Maps::of(&programs)?;
        let words: Array<_, u64> = maps.open(map_names::WORDS)?.try_into()?;
        let slots: Array<_, Slot> = maps.open(map_names::SLOTS)?.try_into()?;
        let block = |index: u32, count: Option<u32>| -> Result<Vec<Slot>> {
            let base = u32::try_from(words.get(&index, 0)?)?;
            ensure!(base != 0, "Service port {index} has no block");
            let count = match count {
                Some(count) => count,
                None => slots_of(&slots.get(&base, 0)?),
            };
            (base..base + count)
                .map(|at| Ok(slots.get(&at, 0)?))
                .collect()
        };
        let ranges = maps.ranges()?;
        let identities: HashMap<_, [u8; 16], u32> = maps.open_pinned(stage)?.try_into()?;
        let known: Vec<u32> = identities
            .iter()
            .map(|entry| Ok(entry?.1))
            .collect::<Result<_>>()?;
        let mut frontends = BTreeMap::new();
        let mut led_to = BTreeSet::new();
        let entries: HashMap<_, FrontendKey, Frontend> =
            maps.open(map_names::FRONTENDS)?.try_into()?;
        for entry in &entries {
            let (key, Frontend { service, kind }) = entry?;
            let to = SocketAddr::new(key.address.into(), u16::from_be(key.port));
            led_to.insert(service);
            let mut block = block(service, None).with_context(|| format!("{to} leads there"))?;
            let set = take_numbers(&mut block, service)?;
            let ranges = ranges.get(&set).cloned().unwrap_or_default();
            let leads = Leads {
                kind,
                block,
                ranges,
            };
            frontends.insert((to, key.protocol), leads);
        }
        let distinct: BTreeSet<u32> = known.iter().copied().collect();
        ensure!(
            distinct.len() == known.len(),
            "one index for two: {known:?}"
        );
        ensure!(
            led_to.is_subset(&distinct),
            "frontends lead to {led_to:?}, IDENTITIES holds {distinct:?}"
        );
        let addresses: HashMap<_, Address, u32> = maps.open(map_names::ADDRESSES)?.try_into()?;
        let addresses = addresses.iter().map(|entry| {
            let (address, flags) = entry?;
            Ok((IpAddr::from(address), flags))
        });
        let devices: HashMap<_, u32, Device> = maps.open(map_names::DEVICES)?.try_into()?;
        let devices = devices.iter().map(|entry| {
            let (index, mut device) = entry?;
            // What is so for some seconds after a start from nothing.
            device.flags &= !device_flags::RULES;
            Ok((index, device))
        });
        Ok(Self {
            addresses: addresses.collect::<Result<_>>()?,
            frontends,
            settings: lasting(block(0, Some(SETTINGS_SLOTS))?),
            devices: devices.collect::<Result<_>>()?,
            range_entries: ranges.values().map(BTreeSet::len).sum(),
            service_ports: known.len(),
            links,
        })
    }
}

/// Settings without what is so for some seconds after a start from nothing.
fn lasting(mut settings: Vec<Slot>) -> Vec<Slot> {
    for family in settings.iter_mut().take(2) {
        let flags = family
            .get_mut(FLAGS_AT..)
            .and_then(|at| at.first_chunk_mut());
        if let Some(flags) = flags {
            *flags = (u32::from_ne_bytes(*flags) & !settings_flags::HANDOVER).to_ne_bytes();
        }
    }
    settings
}

/// The numbers of the maps that outlive the agent.
fn kept_maps(directory: &Path) -> Result<BTreeSet<u32>> {
    let paths = files(directory)?.into_iter();
    paths
        .map(|path| Ok(MapData::from_pin(path)?.info()?.id()))
        .collect()
}

/// The programs that the pinned links lead to, and how many links there are: each is pinned.
fn programs_in_force(directory: &Path, kept: &BTreeSet<u32>) -> Result<(Vec<ProgramInfo>, usize)> {
    let mut pinned = BTreeSet::new();
    let paths = files(directory)?;
    for path in &paths {
        let link = Link::open(path).with_context(|| path.display().to_string())?;
        pinned.insert(link.info()?.program);
    }
    let (mut in_force, mut ours) = (Vec::new(), BTreeSet::new());
    // Other tests' programs come and go meanwhile.
    for program in loaded_programs().flatten() {
        let maps = program.map_ids().ok().flatten().unwrap_or_default();
        if maps.iter().any(|map| kept.contains(map)) {
            ours.insert(program.id());
        }
        if pinned.contains(&program.id()) {
            in_force.push(program);
        }
    }
    let links = loaded_links().flatten();
    let links = links
        .filter(|link| ours.contains(&link.program_id()))
        .count();
    ensure!(
        links == paths.len(),
        "{links} links attach programs of ours, {} have a name: {paths:?}",
        paths.len()
    );
    Ok((in_force, links))
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// The maps of the set in force, by name.
struct Maps(BTreeMap<String, u32>);

impl Maps {
    fn of(programs: &[ProgramInfo]) -> Result<Self> {
        let mut maps = BTreeMap::new();
        for program in programs {
            for id in program.map_ids()?.unwrap_or_default() {
                let name = MapInfo::from_id(id)?
                    .name_as_str()
                    .unwrap_or_default()
                    .to_owned();
                let first = *maps.entry(name.clone()).or_insert(id);
                // Globals are each object's own.
                ensure!(
                    first == id || name.starts_with('.'),
                    "programs in force use two maps {name}"
                );
            }
        }
        Ok(Self(maps))
    }

    fn open(&self, name: &str) -> Result<Map> {
        let id = self
            .0
            .get(name)
            .with_context(|| format!("no map {name} in force"))?;
        Ok(Map::from_map_data(MapData::from_id(*id)?)?)
    }

    fn open_pinned(&self, stage: &Stage) -> Result<Map> {
        let path = stage.roots.bpf.join(MAPS).join(map_names::IDENTITIES);
        Ok(Map::from_map_data(MapData::from_pin(path)?)?)
    }

    fn ranges(&self) -> Result<BTreeMap<u32, BTreeSet<(u32, IpAddr)>>> {
        let trie: LpmTrie<_, RangeKey, u8> = self.open(map_names::RANGES)?.try_into()?;
        let mut sets: BTreeMap<u32, BTreeSet<(u32, IpAddr)>> = BTreeMap::new();
        for key in trie.keys() {
            let key = key?;
            let data = key.data();
            let set = sets.entry(u32::from_be(data.set)).or_default();
            set.insert((key.prefix_len(), data.address.into()));
        }
        Ok(sets)
    }
}

/// Slots of a Service port's block, by its header.
fn slots_of(header: &Slot) -> u32 {
    let short = |at: usize| u32::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    1 + short(0) + short(2) + short(4) + long(header, 16).div_ceil(MAGLEV_PER_SLOT)
}

/// Takes the numbers of a set of ranges and of the Service port out of a header; returns the first.
fn take_numbers(block: &mut [Slot], service: u32) -> Result<u32> {
    let header = block.first_mut().context("an empty block")?;
    let (ranges, own) = (long(header, 12), long(header, 20));
    ensure!(own == service, "the block of {service} says it is {own}'s");
    header[12..16].fill(0);
    header[20..24].fill(0);
    Ok(ranges)
}

fn long(slot: &Slot, at: usize) -> u32 {
    u32::from_ne_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]])
}
