//! A slot as the agent writes it: four words.

use switchyard_datapath::layout::{Endpoint, Header, Settings, SettingsPorts};

/// 32 bytes of SLOTS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Slot(pub(super) [u64; 4]);

/// Bytes of a slot.
pub(super) const SLOT_BYTES: usize = 32;

/// Puts bytes together to a slot; what is not given is zero.
fn slot(bytes: impl IntoIterator<Item = u8>) -> Slot {
    let mut all = [0_u8; SLOT_BYTES];
    for (to, from) in all.iter_mut().zip(bytes) {
        *to = from;
    }
    let mut words = all.chunks_exact(8).map(|chunk| {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        u64::from_ne_bytes(word)
    });
    Slot(std::array::from_fn(|_| words.next().unwrap_or(0)))
}

fn bytes<const N: usize>(words: [u32; N]) -> impl Iterator<Item = u8> {
    words.into_iter().flat_map(u32::to_ne_bytes)
}

impl Slot {
    /// Up to sixteen positions of a Maglev table.
    pub(super) fn maglev(positions: &[u16]) -> Self {
        slot(positions.iter().flat_map(|position| position.to_ne_bytes()))
    }
}

impl From<Header> for Slot {
    fn from(header: Header) -> Self {
        let Header {
            cluster,
            local,
            serving,
            flags,
            affinity_s,
            ranges,
            maglev,
            service,
            reserved: [a, b],
        } = header;
        let short = [cluster, local, serving, flags];
        let long = bytes([affinity_s, ranges, maglev, service, a, b]);
        slot(short.into_iter().flat_map(u16::to_ne_bytes).chain(long))
    }
}

impl From<Endpoint> for Slot {
    fn from(endpoint: Endpoint) -> Self {
        let address = bytes(endpoint.address.0);
        slot(address.chain(endpoint.port.to_ne_bytes()))
    }
}

impl From<Settings> for Slot {
    fn from(settings: Settings) -> Self {
        let Settings {
            pods,
            pods_bits,
            flags,
            host_cookie,
        } = settings;
        let start = bytes(pods.0).chain(bytes([pods_bits, flags]));
        slot(start.chain(host_cookie.to_ne_bytes()))
    }
}

impl From<SettingsPorts> for Slot {
    fn from(ports: SettingsPorts) -> Self {
        let ranges = ports.ranges.into_iter();
        slot(ranges.flat_map(|range| [range.first, range.last]).flat_map(u16::to_ne_bytes))
    }
}
