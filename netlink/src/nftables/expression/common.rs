//! The expressions that most rules are made of.

use super::super::data::{Data, Field, Register};
use super::super::verdict::Verdict;
use super::{Comparison, Expression, MetaKey, Name, PayloadBase};
use crate::family::Family;

impl Expression {
    /// The source address of a packet of this family (`ip saddr`, `ip6 saddr`).
    #[must_use]
    pub const fn source_address(family: Family, to: Register) -> Self {
        let (offset, length) = match family {
            Family::V4 => (12, 4),
            Family::V6 => (8, 16),
        };
        Self::network(offset, length, to)
    }

    /// The destination address of a packet of this family (`ip daddr`, `ip6 daddr`).
    #[must_use]
    pub const fn destination_address(family: Family, to: Register) -> Self {
        let (offset, length) = match family {
            Family::V4 => (16, 4),
            Family::V6 => (24, 16),
        };
        Self::network(offset, length, to)
    }

    const fn network(offset: u32, length: u32, to: Register) -> Self {
        Self::Payload {
            base: PayloadBase::Network,
            offset,
            length,
            to,
        }
    }

    /// The transport protocol (`meta l4proto`).
    #[must_use]
    pub const fn transport_protocol(to: Register) -> Self {
        Self::Meta {
            key: MetaKey::TransportProtocol,
            to,
        }
    }

    /// The destination port of whatever transport protocol (`th dport`).
    #[must_use]
    pub const fn destination_port(to: Register) -> Self {
        Self::Payload {
            base: PayloadBase::Transport,
            offset: 2,
            length: 2,
            to,
        }
    }

    /// Goes on if the value is this.
    #[must_use]
    pub fn equal(from: Register, with: Field<'_>) -> Self {
        Self::Compare {
            from,
            comparison: Comparison::Equal,
            with: Data::of(with),
        }
    }

    /// Goes on if the value is another.
    #[must_use]
    pub fn not_equal(from: Register, with: Field<'_>) -> Self {
        Self::Compare {
            from,
            comparison: Comparison::NotEqual,
            with: Data::of(with),
        }
    }

    /// `value & mask`, in place.
    #[must_use]
    pub fn and(register: Register, mask: Field<'_>) -> Self {
        let mask = Data::of(mask);
        let xor = Data::new(&vec![0; mask.bytes().len()]);
        Self::bitwise(register, mask, xor)
    }

    /// `value | bits`, in place.
    #[must_use]
    pub fn or(register: Register, bits: Field<'_>) -> Self {
        let xor = Data::of(bits);
        let inverted: Vec<u8> = xor.bytes().iter().map(|byte| !byte).collect();
        Self::bitwise(register, Data::new(&inverted), xor)
    }

    /// `value ^ bits`, in place.
    #[must_use]
    pub fn xor(register: Register, bits: Field<'_>) -> Self {
        let xor = Data::of(bits);
        let mask = Data::new(&vec![u8::MAX; xor.bytes().len()]);
        Self::bitwise(register, mask, xor)
    }

    const fn bitwise(register: Register, mask: Data, xor: Data) -> Self {
        Self::Bitwise {
            from: register,
            to: register,
            mask,
            xor,
        }
    }

    /// The rules of a chain, then back.
    #[must_use]
    pub fn jump(chain: impl Into<Name>) -> Self {
        Self::Verdict(Verdict::Jump(chain.into()))
    }

    /// The rules of a chain, and not back here.
    #[must_use]
    pub fn goto(chain: impl Into<Name>) -> Self {
        Self::Verdict(Verdict::Goto(chain.into()))
    }
}
