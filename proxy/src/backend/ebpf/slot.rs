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
        slot(
            ranges
                .flat_map(|range| [range.first, range.last])
                .flat_map(u16::to_ne_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use switchyard_datapath::Maps;
    use switchyard_datapath::layout::{Address, PortRange};
    use switchyard_datapath::table::Table;

    use super::*;

    fn table(slot: Slot) -> Table {
        let mut bytes = [0; SLOT_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(slot.0) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        let mut table = Table::new(1);
        table.put_slots(1, &[bytes]);
        table
    }

    /// What the agent writes is what the programs read, each field in its place.
    #[test]
    fn slots_are_read_as_they_were_written() {
        let address = Address([0x0102_0304, 0x0506_0708, 0x090a_0b0c, 0x0d0e_0f10]);
        let header = Header {
            cluster: 0x1112,
            local: 0x1314,
            serving: 0x1516,
            flags: 0x1718,
            affinity_s: 0x191a_1b1c,
            ranges: 0x1d1e_1f20,
            maglev: 0x2122_2324,
            service: 0x2526_2728,
            reserved: [0x292a_2b2c, 0x2d2e_2f30],
        };
        assert_eq!(table(header.into()).header(1), Some(&header));
        let endpoint = Endpoint::new(address, 0x3132);
        assert_eq!(table(endpoint.into()).endpoint(1), Some(&endpoint));
        let settings = Settings {
            pods: address,
            pods_bits: 0x3334_3536,
            flags: 0x3738_393a,
            host_cookie: 0x3b3c_3d3e_3f40_4142,
        };
        assert_eq!(table(settings.into()).settings(1), Some(&settings));
        let range = |first, last| PortRange { first, last };
        let ports = SettingsPorts {
            ranges: [range(0x4344, 0x4546), range(0x4748, 0x494a)],
            reserved: [0; 6],
        };
        assert_eq!(table(ports.into()).settings_ports(1), Some(&ports));
        let positions: [u16; 16] = std::array::from_fn(|at| 0x5000 + u16::try_from(at).unwrap());
        assert_eq!(table(Slot::maglev(&positions)).maglev(1), Some(&positions));
        let mut short = [0; 16];
        short[..3].copy_from_slice(&positions[..3]);
        assert_eq!(table(Slot::maglev(&positions[..3])).maglev(1), Some(&short));
    }
}
