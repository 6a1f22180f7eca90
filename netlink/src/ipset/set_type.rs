use crate::family::Family;

/// The kinds of sets that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetType {
    /// `hash:ip`: single addresses. Linux 2.6.39.
    HashIp,
}

impl SetType {
    /// The kernel's name of the type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HashIp => "hash:ip",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "hash:ip" => Some(Self::HashIp),
            _ => None,
        }
    }

    /// The newest revision of the type whose elements are written as they are here. A newer
    /// one would only add options that nobody uses, and old `ipset` tools cannot list it.
    pub(super) const fn newest_revision(self) -> u8 {
        match self {
            Self::HashIp => 4,
        }
    }
}

/// What a set is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// What its elements are.
    pub set_type: SetType,
    /// The family of their addresses.
    pub family: Family,
    /// Most elements it takes (`maxelem`).
    pub max_elements: u32,
    /// Hash buckets at the start (`hashsize`); the kernel rounds up to a power of two, at
    /// least 64, and grows it by itself.
    pub hash_size: u32,
}
