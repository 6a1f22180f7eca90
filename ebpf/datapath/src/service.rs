//! One Service's block of slots.

use crate::Maps;
use crate::layout::{
    Address, Endpoint, Frontend, FrontendKey, Header, MAGLEV_PER_SLOT, Settings, SettingsPorts,
    address_flags,
};

/// A list of endpoints within a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// The slot of its first endpoint.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// A Service's block as one read of its word found it. It stays whole while the program runs.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// The block's first slot.
    pub base: u32,
    /// What stands in it.
    pub header: &'a Header,
}

impl<'a> Service<'a> {
    /// The block of a Service; `None` if it is being removed.
    #[inline(always)]
    pub fn load(maps: &'a impl Maps, index: u32) -> Option<Self> {
        let base = maps.word(index)?;
        if base == 0 {
            return None;
        }
        let header = maps.header(base)?;
        Some(Self { base, header })
    }

    /// Whether a header flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.header.flags & flag != 0
    }

    /// Endpoints anywhere.
    #[inline(always)]
    #[must_use]
    pub fn cluster(&self) -> List {
        List {
            first: self.base + 1,
            count: u32::from(self.header.cluster),
        }
    }

    /// Endpoints on this node.
    #[inline(always)]
    #[must_use]
    pub fn local(&self) -> List {
        let cluster = self.cluster();
        List {
            first: cluster.first + cluster.count,
            count: u32::from(self.header.local),
        }
    }

    /// Endpoints that still serve (UDP only).
    #[inline(always)]
    #[must_use]
    pub fn serving(&self) -> List {
        let local = self.local();
        List {
            first: local.first + local.count,
            count: u32::from(self.header.serving),
        }
    }

    /// The position in the cluster list that the Maglev table has for a hash.
    #[inline(always)]
    pub fn maglev(&self, maps: &impl Maps, hash: u32) -> Option<u32> {
        if self.header.maglev == 0 {
            return None;
        }
        let serving = self.serving();
        let at = scale(hash, self.header.maglev);
        let slot = maps.maglev(serving.first + serving.count + at / MAGLEV_PER_SLOT)?;
        let within = usize::try_from(at % MAGLEV_PER_SLOT).ok()?;
        slot.get(within).map(|position| u32::from(*position))
    }
}

/// Maps 32 even bits to `0..count` as evenly.
#[inline(always)]
#[must_use]
pub fn scale(bits: u32, count: u32) -> u32 {
    let scaled = (u64::from(bits) * u64::from(count)) >> 32;
    u32::try_from(scaled).unwrap_or(0)
}

/// The slots that a block takes: header, three lists and the Maglev table.
#[must_use]
pub fn block_slots(header: &Header) -> u32 {
    1 + u32::from(header.cluster)
        + u32::from(header.local)
        + u32::from(header.serving)
        + header.maglev.div_ceil(MAGLEV_PER_SLOT)
}

/// Where an endpoint stands in a list that is sorted by address and port.
#[inline(always)]
pub fn position(maps: &impl Maps, list: List, wanted: &Endpoint) -> Option<u32> {
    let (mut low, mut high) = (0_u32, list.count);
    // A list has at most 65,535 endpoints.
    for _ in 0..17 {
        if low >= high {
            return None;
        }
        let middle = low + (high - low) / 2;
        let found = maps.endpoint(list.first + middle)?;
        if found.address == wanted.address && found.port == wanted.port {
            return Some(middle);
        }
        if (found.address, found.port) < (wanted.address, wanted.port) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    None
}

/// The settings of a family, `None` before any were written.
#[inline(always)]
pub fn settings<M: Maps>(maps: &M, v4: bool) -> Option<&Settings> {
    let base = maps.word(0)?;
    if base == 0 {
        return None;
    }
    maps.settings(if v4 { base } else { base + 1 })
}

/// The ports to masquerade with, `None` before any were written.
#[inline(always)]
pub fn settings_ports<M: Maps>(maps: &M) -> Option<&SettingsPorts> {
    let base = maps.word(0)?;
    if base == 0 {
        return None;
    }
    maps.settings_ports(base + 2)
}

/// The Service at an address and port, whose flags are known: by the address itself, else by
/// its being one of the node's.
#[inline(always)]
pub fn frontend_at(
    maps: &impl Maps,
    address: &Address,
    port: u16,
    protocol: u8,
    flags: u32,
) -> Option<Frontend> {
    let mut key = FrontendKey {
        address: *address,
        port,
        protocol,
        reserved: 0,
    };
    if flags & (address_flags::CLUSTER_IP | address_flags::EXTERNAL) != 0
        && let Some(frontend) = maps.frontend(&key)
    {
        return Some(frontend);
    }
    if flags & address_flags::NODE_PORTS == 0 {
        return None;
    }
    key.address = any_of_family(address);
    maps.frontend(&key)
}

/// The address of node ports in keys, of the family of `address`.
#[inline(always)]
#[must_use]
pub const fn any_of_family(address: &Address) -> Address {
    if address.is_v4() {
        Address::v4(0)
    } else {
        Address::ANY
    }
}
