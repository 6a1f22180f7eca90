use super::Address;

/// Where a packet is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// It comes in from a device: its destination may be rewritten.
    Ingress,
    /// It goes out to a device: its source may be rewritten.
    Egress,
}

impl Hook {
    /// As it stands in keys.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ingress => 0,
            Self::Egress => 1,
        }
    }
}

/// A key of FLOWS: what a packet looks like where it is met, before it is rewritten.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, in network byte order.
    pub source_port: u16,
    /// Destination port, in network byte order.
    pub destination_port: u16,
    /// The number of the protocol.
    pub protocol: u8,
    /// [`Hook::number`].
    pub hook: u8,
    /// Zero.
    pub reserved: u16,
}

/// A value of FLOWS: what the destination (at ingress) or source (at egress) becomes.
///
/// A flow has two entries, or four where it is masqueraded and goes through the stack;
/// [`FlowValue::id`] ties them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowValue {
    /// The address it becomes.
    pub address: Address,
    /// The port it becomes, in network byte order.
    pub port: u16,
    /// [`flow_flags`].
    pub flags: u16,
    /// The Service's index.
    pub service: u32,
    /// When a packet was last seen, to about a second, by the kernel's monotonic clock.
    pub seen_ns: u64,
    /// The same for all entries of a flow.
    pub id: u64,
    /// The address that the source becomes as well, where [`flow_flags::BOTH`] says so.
    pub from: Address,
    /// The port that the source becomes, in network byte order.
    pub from_port: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

/// Bytes of a [`FlowValue`] of schema 1, which ended before [`FlowValue::from`].
pub const FLOW_VALUE_BYTES_V1: usize = 40;

impl FlowValue {
    /// What keeps a place ([`flow_flags::KEPT`]): it puts into packets what they have already. As an
    /// entry of a connection that was answered, it gives way to no flow while that is open.
    #[must_use]
    pub fn keeping(key: &FlowKey) -> Self {
        let is_ingress = key.hook == Hook::Ingress.number();
        let (address, port) = if is_ingress {
            (key.destination, key.destination_port)
        } else {
            (key.source, key.source_port)
        };
        Self {
            address,
            port,
            flags: flow_flags::KEPT | flow_flags::STREAM,
            ..Self::default()
        }
    }

    /// A value of schema 1.
    #[must_use]
    #[expect(unsafe_code, reason = "plain numbers, as they stand in the map")]
    pub fn of_v1(bytes: &[u8; FLOW_VALUE_BYTES_V1]) -> Self {
        let mut whole = [0; size_of::<Self>()];
        let (start, _) = whole.split_at_mut(FLOW_VALUE_BYTES_V1);
        start.copy_from_slice(bytes);
        // SAFETY: `repr(C)` of integers without padding: any bytes are a value.
        unsafe { core::mem::transmute::<[u8; size_of::<Self>()], Self>(whole) }
    }
}

/// Bits of [`FlowValue::flags`].
pub mod flow_flags {
    /// From the client, at ingress: the address is the endpoint's.
    pub const REQUEST: u16 = 1;
    /// To the client, at egress: the address is the VIP. With [`BOTH`] at ingress.
    pub const REPLY: u16 = 1 << 1;
    /// From the client, at egress: the address is the node's.
    pub const MASQUERADE: u16 = 1 << 2;
    /// From the endpoint, at ingress: the address is the client's.
    pub const UNMASQUERADE: u16 = 1 << 3;
    /// A port for masquerading is still to be chosen.
    pub const PENDING: u16 = 1 << 4;
    /// TCP: a FIN went by.
    pub const FIN: u16 = 1 << 5;
    /// TCP: a RST went by.
    pub const RST: u16 = 1 << 6;
    /// TCP: a segment without SYN went by, so the peer had answered; other protocols: packets
    /// went by for more than about a second.
    pub const STREAM: u16 = 1 << 7;
    /// It leads to a port of the node that nobody can listen on, whose answer is a refusal.
    pub const REFUSED: u16 = 1 << 8;
    /// Its endpoint came from the list of endpoints on this node.
    pub const LOCAL: u16 = 1 << 9;
    /// Of a request: the client's address stays, so there is no entry at egress to look for.
    pub const UNMASKED: u16 = 1 << 10;
    /// It is met at ingress and says what both ends become, for packets that are sent on at once.
    /// Those that take the stack's way after all need an entry at egress, which is added then.
    pub const BOTH: u16 = 1 << 11;
    /// It is none of a flow: it keeps the place of a connection that connection tracking translates,
    /// and what it puts into packets is what they have already.
    pub const KEPT: u16 = 1 << 12;
}

/// A key of FRAGMENTS: which datagram a fragment belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The datagram's id, as it stands in the header.
    pub id: u32,
    /// The number of the protocol.
    pub protocol: u8,
    /// [`Hook::number`].
    pub hook: u8,
    /// Zero.
    pub reserved: u16,
}

/// A value of FRAGMENTS: the ports, which only the first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentPorts {
    /// Source port, in network byte order.
    pub source: u16,
    /// Destination port, in network byte order.
    pub destination: u16,
}

/// A key of COUNTERS: an endpoint of a Service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CounterKey {
    /// The endpoint's address.
    pub address: Address,
    /// The Service's index.
    pub service: u32,
    /// The endpoint's port, in network byte order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// A value of COUNTERS, one for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Connections (TCP), sockets' first datagrams (UDP) and flows that were sent there.
    pub connections: u64,
    /// Packets translated at devices, both ways. Sockets' packets are not translated, so not
    /// counted.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

/// Why a packet or a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Policy asks for an endpoint on this node and there is none.
    NoLocalEndpoint,
    /// The client is not within the source ranges.
    SourceRange,
    /// The Service has no endpoint at all.
    NoEndpoints,
    /// No Service has that port of a VIP.
    UnknownPort,
    /// FLOWS takes no more.
    FlowTableFull,
    /// No port (or no address) to masquerade with is left.
    NoMasqueradePort,
    /// A fragment whose first one was not seen.
    UnknownFragment,
    /// The client talks to the same endpoint from the same port through another VIP.
    Collision,
    /// The packet cannot be rewritten (SCTP to another port).
    NotRewritable,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::NoLocalEndpoint,
        Self::SourceRange,
        Self::NoEndpoints,
        Self::UnknownPort,
        Self::FlowTableFull,
        Self::NoMasqueradePort,
        Self::UnknownFragment,
        Self::Collision,
        Self::NotRewritable,
    ];

    /// As metrics and the log call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoLocalEndpoint => "no_local_endpoint",
            Self::SourceRange => "source_range",
            Self::NoEndpoints => "no_endpoints",
            Self::UnknownPort => "unknown_port",
            Self::FlowTableFull => "flow_table_full",
            Self::NoMasqueradePort => "no_masquerade_port",
            Self::UnknownFragment => "unknown_fragment",
            Self::Collision => "collision",
            Self::NotRewritable => "not_rewritable",
        }
    }

    /// The index in DROPS.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::NoLocalEndpoint => 0,
            Self::SourceRange => 1,
            Self::NoEndpoints => 2,
            Self::UnknownPort => 3,
            Self::FlowTableFull => 4,
            Self::NoMasqueradePort => 5,
            Self::UnknownFragment => 6,
            Self::Collision => 7,
            Self::NotRewritable => 8,
        }
    }
}

/// What EVENTS tells of a refusal: 48 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Event {
    /// The client's address; zero at the socket, where it is not known yet.
    pub source: Address,
    /// Where it wanted to go.
    pub destination: Address,
    /// The client's port, in network byte order.
    pub source_port: u16,
    /// The port it wanted, in network byte order.
    pub destination_port: u16,
    /// The number of the protocol.
    pub protocol: u8,
    /// [`Reason::number`].
    pub reason: u8,
    /// 1 if it was told so, 0 if it was dropped.
    pub told: u8,
    /// Zero.
    pub reserved: u8,
    /// The device, 0 at the socket.
    pub device: u32,
    /// The Service's index, 0 where there is none.
    pub service: u32,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<FlowValue>() == 64);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<CounterKey>() == 24);
    assert!(size_of::<Event>() == 48);
};
