use std::sync::Arc;
use std::time::Duration;

use super::data::{Data, Register};
use super::numbers::numbered;
use super::verdict::Verdict;
use crate::family::Family;

mod common;
#[cfg(test)]
mod nft_sends;
mod read;
mod write;

pub(super) use read::read_all;
pub(super) use write::milliseconds;

/// The name of a table, chain or set: 1 to 255 bytes.
pub type Name = Arc<str>;

/// One step of a rule. A step either works on registers, or ends the rule where it does not
/// match, or says what happens to the packet.
///
/// Steps that differ between kernels, or are none of these, are read as [`Self::Other`] and
/// can be written back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expression {
    /// Bytes of the packet (`payload`).
    Payload {
        /// Where they are counted from.
        base: PayloadBase,
        /// The first of them.
        offset: u32,
        /// How many, at most 64.
        length: u32,
        /// Where they go.
        to: Register,
    },
    /// Something about the packet (`meta`).
    Meta {
        /// What.
        key: MetaKey,
        /// Where it goes.
        to: Register,
    },
    /// Changes something about the packet (`meta … set`), its mark for one.
    SetMeta {
        /// What.
        key: MetaKey,
        /// The new value.
        from: Register,
    },
    /// Something about the packet's connection (`ct`).
    Connection {
        /// What.
        key: ConnectionKey,
        /// Of packets in this direction, where that makes a difference.
        direction: Option<Direction>,
        /// Where it goes.
        to: Register,
    },
    /// Changes something about the packet's connection (`ct … set`).
    SetConnection {
        /// What.
        key: ConnectionKey,
        /// The new value.
        from: Register,
    },
    /// Goes on if the comparison is true (`cmp`).
    Compare {
        /// The value.
        from: Register,
        /// How it is to be.
        comparison: Comparison,
        /// What it is compared with, byte by byte from the first.
        with: Data,
    },
    /// Goes on if the value is within bounds, or outside (`range`).
    Range {
        /// The value.
        from: Register,
        /// Whether it is to be outside.
        outside: bool,
        /// The least value, in network order.
        low: Data,
        /// The greatest value, in network order.
        high: Data,
    },
    /// `(value & mask) ^ xor` (`bitwise`). See [`Self::and`], [`Self::or`] and [`Self::xor`].
    Bitwise {
        /// The value.
        from: Register,
        /// Where the result goes.
        to: Register,
        /// As long as the value.
        mask: Data,
        /// As long as the value.
        xor: Data,
    },
    /// Looks a key up in a set or map (`lookup`); goes on if it is there (or is not).
    Lookup {
        /// The set, or map.
        set: Name,
        /// The key.
        key: Register,
        /// What then.
        find: Find,
    },
    /// A constant (`immediate`).
    Constant {
        /// Where it goes.
        to: Register,
        /// The value.
        value: Data,
    },
    /// What happens to the packet (`immediate` into the verdict).
    Verdict(Verdict),
    /// Address translation (`nat`), in chains of type `nat` only.
    Nat {
        /// Which end.
        kind: NatKind,
        /// Of what family the address is.
        family: Family,
        /// The new address.
        address: Option<Register>,
        /// The new port.
        port: Option<Register>,
        /// How.
        flags: NatFlags,
    },
    /// The source address becomes that of the outgoing interface (`masq`).
    Masquerade {
        /// How.
        flags: NatFlags,
    },
    /// A number of 32 bits below `modulus` (`numgen`).
    NumberGenerator {
        /// Random, or one after the other.
        kind: NumberKind,
        /// How many numbers; at least 1.
        modulus: u32,
        /// The first of them.
        offset: u32,
        /// Where it goes, in the machine's order.
        to: Register,
    },
    /// A number of 32 bits below `modulus` that is the same for the same value (`hash`,
    /// Jenkins').
    Hash {
        /// The value.
        from: Register,
        /// Its length in bytes.
        length: u32,
        /// How many numbers; at least 1.
        modulus: u32,
        /// Another seed, other numbers. `None` lets the kernel draw one.
        seed: Option<u32>,
        /// The first of the numbers.
        offset: u32,
        /// Where it goes, in the machine's order.
        to: Register,
    },
    /// Asks the routing table about an address of the packet (`fib`).
    Fib {
        /// What is asked.
        result: FibResult,
        /// Of which address, and by what.
        flags: FibFlags,
        /// Where it goes.
        to: Register,
    },
    /// Adds an element to a set, which must be [`super::Set::dynamic`] (`dynset`).
    Update {
        /// The set, or map.
        set: Name,
        /// What is done.
        operation: UpdateOperation,
        /// The key.
        key: Register,
        /// The value, of a map.
        value: Option<Register>,
        /// Instead of the set's own time-out.
        timeout: Option<Duration>,
    },
    /// Refuses the packet and says so to the sender (`reject`).
    Reject(Rejection),
    /// Counts packets (`counter`). What was counted is read back, and may be given.
    Counter {
        /// Packets so far.
        packets: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// Logs the packet (`log`).
    Log {
        /// What is put before, at most 127 bytes.
        prefix: Option<Name>,
        /// Where.
        to: LogTarget,
    },
    /// Any other.
    Other {
        /// Its name.
        name: Name,
        /// Its attributes as the kernel had them.
        attributes: Box<[u8]>,
    },
}

numbered! {
    /// Where the bytes of [`Expression::Payload`] are counted from (`enum nft_payload_bases`).
    pub enum PayloadBase {
        /// The link layer's header.
        Link = 0,
        /// The IP header.
        Network = 1,
        /// The transport header.
        Transport = 2,
    }
}

numbered! {
    /// What is known of a packet (`enum nft_meta_keys`).
    pub enum MetaKey {
        /// Its length, 4 bytes in the machine's order.
        Length = 0,
        /// Its mark, 4 bytes in the machine's order.
        Mark = 3,
        /// The number of the incoming interface, 4 bytes in the machine's order.
        IncomingInterface = 4,
        /// The number of the outgoing interface, 4 bytes in the machine's order.
        OutgoingInterface = 5,
        /// The name of the incoming interface, 16 bytes.
        IncomingInterfaceName = 6,
        /// The name of the outgoing interface, 16 bytes.
        OutgoingInterfaceName = 7,
        /// The family, 1 byte: 2 is IPv4, 10 is IPv6.
        Family = 15,
        /// The transport protocol, 1 byte, behind extension headers, too.
        TransportProtocol = 16,
        /// The processor, 4 bytes in the machine's order.
        Processor = 20,
    }
}

numbered! {
    /// What is known of a connection (`enum nft_ct_keys`).
    pub enum ConnectionKey {
        /// The state, 4 bytes of bits in the machine's order: see [`connection_state`].
        State = 0,
        /// The direction of the packet, 1 byte: 0 original, 1 reply.
        Direction = 1,
        /// The status, 4 bytes of bits in the machine's order; 0x20 says that it is DNATed.
        Status = 2,
        /// The mark, 4 bytes in the machine's order.
        Mark = 3,
        /// The transport protocol, 1 byte.
        Protocol = 10,
        /// The source port.
        SourcePort = 11,
        /// The destination port.
        DestinationPort = 12,
        /// The source address, of IPv4 (Linux 4.17).
        SourceIpv4 = 19,
        /// The destination address, of IPv4 (Linux 4.17).
        DestinationIpv4 = 20,
        /// The source address, of IPv6 (Linux 4.17).
        SourceIpv6 = 21,
        /// The destination address, of IPv6 (Linux 4.17).
        DestinationIpv6 = 22,
    }
}

/// Bits of [`ConnectionKey::State`] (`NF_CT_STATE_*`).
pub mod connection_state {
    /// No connection can be made out.
    pub const INVALID: u32 = 0x1;
    /// Packets were seen both ways.
    pub const ESTABLISHED: u32 = 0x2;
    /// It belongs to another connection.
    pub const RELATED: u32 = 0x4;
    /// The first packet.
    pub const NEW: u32 = 0x8;
    /// Not to be tracked.
    pub const UNTRACKED: u32 = 0x40;
}

numbered! {
    /// A direction of a connection (`enum ip_conntrack_dir`).
    pub enum Direction {
        /// As the first packet.
        Original = 0,
        /// The answers.
        Reply = 1,
    }
}

numbered! {
    /// How a value is to be (`enum nft_cmp_ops`).
    pub enum Comparison {
        /// The same.
        Equal = 0,
        /// Another.
        NotEqual = 1,
        /// Less.
        Less = 2,
        /// Not greater.
        LessOrEqual = 3,
        /// Greater.
        Greater = 4,
        /// Not less.
        GreaterOrEqual = 5,
    }
}

/// What follows from [`Expression::Lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Find {
    /// The rule goes on if the key is there.
    Present,
    /// The rule goes on if the key is not there.
    Absent,
    /// The value of the key goes here, and the rule on.
    Value(Register),
    /// The verdict of the key is carried out (`vmap`).
    Verdict,
}

numbered! {
    /// Which end [`Expression::Nat`] changes (`enum nft_nat_types`).
    pub enum NatKind {
        /// The source.
        Source = 0,
        /// The destination.
        Destination = 1,
    }
}

/// How addresses and ports are chosen (`NF_NAT_RANGE_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NatFlags {
    /// Ports at random (`random`).
    pub random: bool,
    /// Ports at random whatever the packet (`fully-random`).
    pub fully_random: bool,
    /// A client always gets the same address (`persistent`).
    pub persistent: bool,
}

numbered! {
    /// How [`Expression::NumberGenerator`] goes on (`enum nft_ng_types`).
    pub enum NumberKind {
        /// One after the other.
        Incremental = 0,
        /// At random.
        Random = 1,
    }
}

numbered! {
    /// What [`Expression::Fib`] finds (`enum nft_fib_result`).
    pub enum FibResult {
        /// The number of the outgoing interface, 4 bytes in the machine's order.
        OutgoingInterface = 1,
        /// The name of the outgoing interface, 16 bytes.
        OutgoingInterfaceName = 2,
        /// The type of the address, 4 bytes in the machine's order: see [`address_type`].
        AddressType = 3,
    }
}

/// Types of addresses (`RTN_*` of `linux/rtnetlink.h`).
pub mod address_type {
    /// Of another host.
    pub const UNICAST: u32 = 1;
    /// Of this host.
    pub const LOCAL: u32 = 2;
    /// Broadcast.
    pub const BROADCAST: u32 = 3;
    /// Multicast.
    pub const MULTICAST: u32 = 5;
}

/// What [`Expression::Fib`] looks up (`enum nft_fib_flags`). One of the two addresses is
/// needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FibFlags {
    /// The source address.
    pub source: bool,
    /// The destination address.
    pub destination: bool,
    /// The packet's mark takes part.
    pub mark: bool,
    /// Only by way of the incoming interface.
    pub incoming_interface: bool,
    /// Only by way of the outgoing interface.
    pub outgoing_interface: bool,
    /// Only whether there is a route.
    pub present: bool,
}

numbered! {
    /// What [`Expression::Update`] does (`enum nft_dynset_ops`).
    pub enum UpdateOperation {
        /// Adds the element, if it is not there.
        Add = 0,
        /// Adds the element, or lets its time-out begin anew.
        Update = 1,
        /// Deletes the element (Linux 5.4).
        Delete = 2,
    }
}

/// What [`Expression::Reject`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// An ICMP (or ICMPv6) message "unreachable" with the code of that family. Port
    /// unreachable is 3 in ICMP and 4 in ICMPv6.
    Icmp(u8),
    /// A TCP reset. The rule must have made sure that it is TCP.
    TcpReset,
    /// "Unreachable" with a code for both families (`icmpx`, `enum nft_reject_inet_code`):
    /// 0 no route, 1 port, 2 host, 3 prohibited.
    IcmpOfEither(u8),
}

/// Where [`Expression::Log`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// The kernel's log, with a level of syslog (4 is a warning).
    Kernel {
        /// 0 to 7.
        level: u32,
    },
    /// Whoever listens to this group of `nfnetlink_log`.
    Group(u16),
}
