use super::Address;

/// Destinations that a socket's record remembers. A socket that sends to more VIPs at a time
/// (unconnected UDP only) sees answers to the oldest come from the endpoint.
pub const SOCKET_ENTRIES: usize = 8;

/// One destination of a socket: 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketEntry {
    /// Where the program wanted to send.
    pub vip: Address,
    /// Where it sends.
    pub endpoint: Address,
    /// The port of the first, in network byte order.
    pub vip_port: u16,
    /// The port of the second, in network byte order.
    pub endpoint_port: u16,
    /// The Service's index; 0 marks an entry that was never used.
    pub service: u32,
}

/// What is remembered of a socket that sends without being connected, in the socket's own storage
/// (SOCKETS): it goes when the socket goes, and nothing can push it out before. Making it costs a
/// microsecond or two, which is why connected sockets have [`Connected`] in its place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketRecord {
    /// The destinations.
    pub entries: [SocketEntry; SOCKET_ENTRIES],
    /// Which entry the next new destination takes.
    pub next: u32,
    /// Zero.
    pub reserved: u32,
}

/// A value of CONNECTED, whose key is a socket's cookie: the VIP a connected socket asked for and
/// the endpoint it was given. It goes when the socket is closed, or connects somewhere else;
/// nothing can push it out before. 48 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Connected {
    /// Where the program wanted to connect.
    pub vip: Address,
    /// Where it is connected.
    pub endpoint: Address,
    /// The port of the first, in network byte order.
    pub vip_port: u16,
    /// The port of the second, in network byte order.
    pub endpoint_port: u16,
    /// The Service's index.
    pub service: u32,
    /// The number of the protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

const _: () = {
    assert!(size_of::<Connected>() == 48);
    assert!(size_of::<SocketEntry>() == 40);
    assert!(size_of::<SocketRecord>() == 40 * SOCKET_ENTRIES + 8);
};
