use std::fmt;
use std::net::IpAddr;

use super::numbers::numbered;
use crate::protocol::Protocol;

/// Fields of a concatenation begin at multiples of this many bytes.
const WORD_BYTES: usize = 4;

/// A word (32 bits) of the sixteen that the expressions of a rule share.
///
/// A value takes as many words as it needs, from the named one on; a concatenation is
/// fields in words one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Register(u8);

impl Register {
    /// The first word.
    pub const FIRST: Self = Self(0);

    /// A word by its number, 0 to 15. The kernel refuses a rule with others (`EINVAL` or
    /// `ERANGE`).
    #[must_use]
    pub const fn word(number: u8) -> Self {
        Self(number)
    }

    /// The number of the word.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// `enum nft_registers`, the way nft and the kernel say it: every fourth word as one of
    /// the four registers of 128 bits.
    pub(super) fn code(self) -> u32 {
        let word = u32::from(self.0);
        if word.is_multiple_of(4) && word < 16 {
            NFT_REG_1 + word / 4
        } else {
            NFT_REG32_00 + word
        }
    }

    /// `None` for the register of verdicts and codes that are none.
    pub(super) fn from_code(code: u32) -> Option<Self> {
        let word = match code {
            NFT_REG_1..=NFT_REG_4 => (code - NFT_REG_1) * 4,
            NFT_REG32_00..=NFT_REG32_15 => code - NFT_REG32_00,
            _ => return None,
        };
        u8::try_from(word).ok().map(Self)
    }
}

const NFT_REG_1: u32 = 1;
const NFT_REG_4: u32 = 4;
const NFT_REG32_00: u32 = 8;
const NFT_REG32_15: u32 = 23;

/// Bytes as a packet's field, a register or a set's key holds them, at most 64.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Data(Box<[u8]>);

impl Data {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// One field.
    #[must_use]
    pub fn of(field: Field<'_>) -> Self {
        let mut bytes = Vec::new();
        field.write(&mut bytes);
        Self(bytes.into())
    }

    /// Several fields, each filled up to a multiple of 4 bytes.
    #[must_use]
    pub fn concatenated(fields: &[Field<'_>]) -> Self {
        let mut bytes = Vec::with_capacity(fields.len() * WORD_BYTES);
        for field in fields {
            field.write(&mut bytes);
            bytes.resize(bytes.len().next_multiple_of(WORD_BYTES), 0);
        }
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes in hexadecimal, a space after each word.
impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if at > 0 && at.is_multiple_of(WORD_BYTES) {
                f.write_str(" ")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// One part of a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// An address, 4 or 16 bytes.
    Address(IpAddr),
    /// A port, 2 bytes in network order.
    Port(u16),
    /// A transport protocol, 1 byte.
    Protocol(Protocol),
    /// 1 byte: another protocol, a type, a direction.
    Byte(u8),
    /// A number of 4 bytes in the machine's order: a mark, a state, what
    /// [`super::Expression::NumberGenerator`] makes, the type that [`super::Expression::Fib`]
    /// finds.
    Number(u32),
    /// Anything else.
    Bytes(&'a [u8]),
}

impl Field<'_> {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Address(IpAddr::V4(address)) => bytes.extend(address.octets()),
            Self::Address(IpAddr::V6(address)) => bytes.extend(address.octets()),
            Self::Port(port) => bytes.extend(port.to_be_bytes()),
            Self::Protocol(protocol) => bytes.push(protocol.number()),
            Self::Byte(byte) => bytes.push(*byte),
            Self::Number(number) => bytes.extend(number.to_ne_bytes()),
            Self::Bytes(other) => bytes.extend_from_slice(other),
        }
    }
}

numbered! {
    /// What a field of a set's key or value is. The kernel only keeps the number, which is
    /// nft's own (`enum datatypes` of its sources); `nft list` shows elements by it.
    pub enum FieldType {
        /// A number without a meaning. nft 1.0.6 calls it `type 0` alone, and shows 0 for all of
        /// them in a concatenation; [`Self::Mark`] is shown as it is.
        Integer = 4,
        /// `ipv4_addr`.
        Ipv4Address = 7,
        /// `ipv6_addr`.
        Ipv6Address = 8,
        /// `inet_proto`.
        Protocol = 12,
        /// `inet_service`.
        Port = 13,
        /// `mark`, a number of 32 bits in the machine's order.
        Mark = 19,
        /// `iface_index`.
        InterfaceIndex = 20,
        /// `ct_state`.
        ConnectionState = 26,
        /// `fib_addrtype`.
        AddressType = 38,
        /// `ifname`, 16 bytes.
        InterfaceName = 41,
    }
}

impl FieldType {
    /// Bytes of a field, without filling.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Ipv6Address | Self::InterfaceName => 16,
            Self::Protocol => 1,
            Self::Port => 2,
            _ => 4,
        }
    }

    /// Whether nft takes its bytes to be in the order of the machine rather than of the
    /// network. It counts names among the former, and would show them from behind.
    pub(super) const fn is_host_order(self) -> bool {
        matches!(
            self,
            Self::Integer
                | Self::Mark
                | Self::InterfaceIndex
                | Self::ConnectionState
                | Self::AddressType
                | Self::InterfaceName
        )
    }
}

/// Bits that nft gives to each type of a concatenation in the number for all.
const TYPE_BITS: u32 = 6;

/// The number of a concatenation of types, or of one.
pub(super) fn type_number(fields: &[FieldType]) -> u32 {
    fields.iter().fold(0, |number, field| {
        (number << TYPE_BITS) | (field.number() & ((1 << TYPE_BITS) - 1))
    })
}

/// The types in a number, which can say at most five of them.
pub(super) fn types_of_number(mut number: u32) -> Vec<FieldType> {
    let mut fields = Vec::new();
    while number != 0 {
        fields.push(FieldType::from_number(number & ((1 << TYPE_BITS) - 1)));
        number >>= TYPE_BITS;
    }
    fields.reverse();
    fields
}

/// Bytes of a key or value of these fields.
pub(super) fn length_of(fields: &[FieldType]) -> usize {
    match fields {
        [one] => one.bytes(),
        fields => fields
            .iter()
            .map(|field| field.bytes().next_multiple_of(WORD_BYTES))
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_numbered_as_nft_does() {
        let codes = [0, 1, 2, 4, 5, 12, 15].map(|word| Register::word(word).code());
        assert_eq!(codes, [1, 9, 10, 2, 13, 4, 23]);
        for word in 0..16 {
            let register = Register::word(word);
            assert_eq!(Register::from_code(register.code()), Some(register));
        }
        for none in [0, 5, 7, 24, u32::MAX] {
            assert_eq!(Register::from_code(none), None);
        }
    }

    #[test]
    fn fields_of_a_concatenation_are_filled_up_and_a_single_one_is_not() {
        let address = Field::Address([10, 0, 0, 1].into());
        let data = Data::concatenated(&[address, Field::Protocol(Protocol::Tcp), Field::Port(80)]);
        assert_eq!(format!("{data:?}"), "0a000001 06000000 00500000");
        assert_eq!(Data::of(Field::Port(80)).bytes(), [0, 80]);
    }

    #[test]
    fn types_are_numbered_as_nft_does() {
        use FieldType::{Ipv4Address, Mark, Port, Protocol};
        // Of `nft --debug=mnl` for `type ipv4_addr . inet_proto . inet_service . mark`.
        let fields = [Ipv4Address, Protocol, Port, Mark];
        assert_eq!(type_number(&fields), 0x1c_c353);
        assert_eq!(types_of_number(0x1c_c353), fields);
        assert_eq!((length_of(&fields), length_of(&[Port])), (16, 2));
        assert_eq!(types_of_number(u32::MAX).len(), 6);
    }
}
