use crate::family::Family;

/// The kinds of sets that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetType {
    /// `hash:ip`: single addresses. Linux 2.6.39.
    HashIp,
    /// `hash:ip,port`: address, protocol and port. Linux 2.6.39, SCTP 3.1.
    HashIpPort,
    /// `hash:ip,port,ip`: the same and a second address. Linux 2.6.39, SCTP 3.1.
    HashIpPortIp,
    /// `hash:ip,port,net`: the same and a network, of which the longest that holds the packet's
    /// address counts. Linux 2.6.39, SCTP 3.1.
    HashIpPortNet,
    /// `bitmap:port`: port numbers from `first` to `last`, of any protocol and family. Linux
    /// 2.6.39.
    BitmapPort {
        /// The lowest port it takes.
        first: u16,
        /// The highest port it takes.
        last: u16,
    },
}

impl SetType {
    /// `bitmap:port` of all port numbers.
    pub const ALL_PORTS: Self = Self::BitmapPort {
        first: 0,
        last: u16::MAX,
    };

    /// The kernel's name of the type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HashIp => "hash:ip",
            Self::HashIpPort => "hash:ip,port",
            Self::HashIpPortIp => "hash:ip,port,ip",
            Self::HashIpPortNet => "hash:ip,port,net",
            Self::BitmapPort { .. } => "bitmap:port",
        }
    }

    /// Whether its elements have addresses, all of one family.
    #[must_use]
    pub const fn has_family(self) -> bool {
        !matches!(self, Self::BitmapPort { .. })
    }

    /// The type of that name; `ports` are a bitmap's.
    pub(super) fn from_name(name: &str, ports: Option<(u16, u16)>) -> Option<Self> {
        match name {
            "hash:ip" => Some(Self::HashIp),
            "hash:ip,port" => Some(Self::HashIpPort),
            "hash:ip,port,ip" => Some(Self::HashIpPortIp),
            "hash:ip,port,net" => Some(Self::HashIpPortNet),
            "bitmap:port" => ports.map(|(first, last)| Self::BitmapPort { first, last }),
            _ => None,
        }
    }

    /// The newest revision of the type whose elements are written as they are here. A newer
    /// one would only add options that nobody uses, and old `ipset` tools cannot list it.
    pub(super) const fn newest_revision(self) -> u8 {
        match self {
            Self::HashIp => 4,
            Self::HashIpPort | Self::HashIpPortIp => 5,
            Self::HashIpPortNet => 7,
            Self::BitmapPort { .. } => 3,
        }
    }
}

/// What a set is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// What its elements are.
    pub set_type: SetType,
    /// The family of their addresses; without meaning for `bitmap:port`.
    pub family: Family,
    /// Most elements it takes (`maxelem`); without meaning for `bitmap:port`.
    pub max_elements: u32,
    /// Hash buckets at the start (`hashsize`); the kernel rounds up to a power of two, at
    /// least 64, and grows it by itself. Without meaning for `bitmap:port`.
    pub hash_size: u32,
}

impl SetSpec {
    /// The same with room for so many elements and as many again, if it has too little for them.
    pub(super) fn grown(self, elements: usize) -> Option<Self> {
        let needed = u32::try_from(elements).unwrap_or(u32::MAX);
        let is_too_small = self.set_type.has_family() && needed > self.max_elements;
        is_too_small.then(|| Self {
            max_elements: needed.saturating_mul(2),
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: SetSpec = SetSpec {
        set_type: SetType::HashIpPort,
        family: Family::V4,
        max_elements: 100,
        hash_size: 64,
    };

    #[test]
    fn names_lead_back() {
        let types = [
            SetType::HashIp,
            SetType::HashIpPort,
            SetType::HashIpPortIp,
            SetType::HashIpPortNet,
            SetType::ALL_PORTS,
        ];
        for set_type in types {
            let found = SetType::from_name(set_type.name(), Some((0, u16::MAX)));
            assert_eq!(found, Some(set_type));
        }
        assert_eq!(SetType::from_name("bitmap:port", None), None);
        assert_eq!(SetType::from_name("hash:net", None), None);
    }

    #[test]
    fn a_set_grows_beyond_what_is_needed_and_only_then() {
        assert_eq!(SPEC.grown(100), None);
        assert_eq!(SPEC.grown(101).map(|spec| spec.max_elements), Some(202));
        assert_eq!(
            SPEC.grown(usize::MAX).map(|spec| spec.max_elements),
            Some(u32::MAX)
        );
        let ports = SetSpec {
            set_type: SetType::ALL_PORTS,
            ..SPEC
        };
        assert_eq!(ports.grown(65_536), None);
    }
}
