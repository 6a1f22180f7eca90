//! Network namespaces whose sockets are left alone: their traffic is translated at their
//! devices, or not at all where they run a proxy of their own.

use std::fs::File;
use std::path::Path;

use aya::maps::{Map, MapData, MapError};
use nix::sched::{CloneFlags, setns};
use switchyard_datapath::layout::map_names;

use super::EbpfError;
use super::pins::Pins;
use super::programs::SHARED;

type Cookies = aya::maps::HashMap<MapData, u64, u8>;

/// Leaves the sockets of a network namespace alone from now on. `netns` is its file, such as
/// `/run/netns/NAME` or `/proc/PID/ns/net`. False if it was so before.
///
/// # Errors
/// [`EbpfError`], if there is no such namespace or the agent has never run in ebpf mode.
pub fn add(bpf_root: &Path, netns: &Path) -> Result<bool, EbpfError> {
    let mut map = open(bpf_root)?;
    let cookie = cookie(netns)?;
    if map.get(&cookie, 0).is_ok() {
        return Ok(false);
    }
    map.insert(cookie, 1, 0)
        .map_err(|error| EbpfError::map(map_names::OPT_OUT, error))?;
    Ok(true)
}

/// Takes back [`add`]. False if it was not there.
///
/// # Errors
/// As [`add`].
pub fn remove(bpf_root: &Path, netns: &Path) -> Result<bool, EbpfError> {
    let mut map = open(bpf_root)?;
    let cookie = cookie(netns)?;
    if map.get(&cookie, 0).is_err() {
        return Ok(false);
    }
    map.remove(&cookie)
        .map_err(|error| EbpfError::map(map_names::OPT_OUT, error))?;
    Ok(true)
}

/// The cookies (`SO_NETNS_COOKIE`) of the network namespaces that are left alone, sorted;
/// with `netns` only that of this one, if it is.
///
/// # Errors
/// As [`add`].
pub fn list(bpf_root: &Path, netns: Option<&Path>) -> Result<Vec<u64>, EbpfError> {
    let map = open(bpf_root)?;
    let wanted = netns.map(cookie).transpose()?;
    let mut cookies = map
        .keys()
        .collect::<Result<Vec<u64>, MapError>>()
        .map_err(|error| EbpfError::map(map_names::OPT_OUT, error))?;
    cookies.retain(|cookie| wanted.is_none_or(|wanted| wanted == *cookie));
    cookies.sort_unstable();
    Ok(cookies)
}

fn open(bpf_root: &Path) -> Result<Cookies, EbpfError> {
    let name = map_names::OPT_OUT;
    let expected = SHARED.iter().find(|(shared, _)| *shared == name);
    let Some((_, expected)) = expected else {
        return Err(EbpfError::NoSuchMap { name });
    };
    let path = Pins::existing(bpf_root).map(name, expected)?;
    std::fs::metadata(&path).map_err(EbpfError::system(format!(
        "the agent's map {}, made when it first runs in ebpf mode (--bpf-root says where)",
        path.display()
    )))?;
    let map = MapData::from_pin(&path).map_err(|error| EbpfError::map(name, error))?;
    Map::HashMap(map)
        .try_into()
        .map_err(|error| EbpfError::map(name, error))
}

/// The cookie of a namespace: asked for within it, on a thread that ends then.
fn cookie(netns: &Path) -> Result<u64, EbpfError> {
    let what = || format!("the network namespace {}", netns.display());
    let file = File::open(netns).map_err(EbpfError::system(what()))?;
    let asked = std::thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        switchyard_kernel::namespace_cookie()
    });
    let ended = || Err(std::io::Error::other("a thread of ours ended early"));
    asked
        .join()
        .unwrap_or_else(|_| ended())
        .map_err(EbpfError::system(what()))
}
