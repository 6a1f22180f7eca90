use crate::layout::{
    Address, AffinityKey, AffinityValue, Device, Endpoint, FlowKey, FlowValue, FragmentKey,
    FragmentPorts, Frontend, FrontendKey, Header, RangeKey, Reason, Settings, SettingsPorts,
};

/// How an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// Whether it is there or not.
    Any,
    /// Only if it is not there.
    New,
}

/// The maps, and what else the kernel tells.
///
/// Lookups give references: into the map itself in the kernel, so that counting a packet is one
/// write, and nothing is copied that is not needed.
pub trait Maps {
    /// Whether an address may mean something to us: cheap, and most do not.
    fn may_know(&self, address: &Address) -> bool;
    /// [`crate::layout::address_flags`] of an address that means something to us.
    fn address(&self, address: &Address) -> Option<u32>;
    /// The Service at an address and port.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// Where the block of a Service (0: the settings) starts; one atomic read.
    fn word(&self, index: u32) -> Option<u32>;
    /// A slot that holds a header.
    fn header(&self, slot: u32) -> Option<&Header>;
    /// A slot that holds an endpoint.
    fn endpoint(&self, slot: u32) -> Option<&Endpoint>;
    /// A slot that holds sixteen positions of a Maglev table.
    fn maglev(&self, slot: u32) -> Option<&[u16; 16]>;
    /// A slot that holds settings of a family.
    fn settings(&self, slot: u32) -> Option<&Settings>;
    /// The slot that holds the ports to masquerade with.
    fn settings_ports(&self, slot: u32) -> Option<&SettingsPorts>;
    /// Whether an address is in a set of source ranges.
    fn in_range(&self, key: &RangeKey) -> bool;
    /// The device of an index.
    fn device(&self, index: u32) -> Option<&Device>;

    /// The endpoint a client had last.
    fn affinity(&self, key: &AffinityKey) -> Option<&AffinityValue>;
    /// Remembers the endpoint of a client. A full map forgets it.
    fn remember(&self, key: &AffinityKey, value: &AffinityValue);

    /// What a packet of a flow becomes.
    fn flow(&self, key: &FlowKey) -> Option<FlowRef>;
    /// Adds an entry of a flow; false if it could not be.
    fn insert_flow(&self, key: &FlowKey, value: &FlowValue, how: Insert) -> bool;
    /// Removes an entry of a flow.
    fn remove_flow(&self, key: &FlowKey);

    /// The ports of the datagram that a later fragment belongs to.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Remembers the ports of a datagram in parts.
    fn remember_fragment(&self, key: &FragmentKey, ports: &FragmentPorts);

    /// Whether packets may be sent on at once, past the stack, at all.
    fn forwards(&self) -> bool;
    /// Counts a connection to an endpoint of a Service, and its first packet (0 bytes: none).
    fn count_connection(&self, service: u32, endpoint: &Endpoint, bytes: u32);
    /// Counts a packet to or from an endpoint of a Service.
    fn count_packet(&self, service: u32, address: &Address, port: u16, bytes: u32);
    /// Nanoseconds of the monotonic clock.
    fn now_ns(&self) -> u64;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// Notes why something is refused; `told` where the sender is told so.
    fn refused(&self, refusal: &Refusal);
}

/// A flow's entry that may be changed while others read it.
///
/// In the kernel this points into the map, so it is as long as the program runs.
#[derive(Clone, Copy, Debug)]
pub struct FlowRef(*mut FlowValue);

impl FlowRef {
    /// Wraps a pointer into the map of flows.
    ///
    /// # Safety
    /// `value` must be valid for reads and writes as long as the program (or the test's table)
    /// runs, and must be written by nobody through a Rust reference meanwhile.
    #[must_use]
    #[expect(unsafe_code, reason = "the caller vouches for the pointer")]
    pub const unsafe fn new(value: *mut FlowValue) -> Self {
        Self(value)
    }

    /// The flags now.
    #[inline(always)]
    #[must_use]
    #[expect(
        unsafe_code,
        reason = "a pointer into a map the kernel shares between CPUs"
    )]
    pub fn flags(self) -> u16 {
        // SAFETY: valid by the contract of `new`.
        unsafe { core::ptr::addr_of!((*self.0).flags).read_volatile() }
    }

    /// What the packet becomes. It changes once, when an entry is settled.
    #[inline(always)]
    #[must_use]
    #[expect(
        unsafe_code,
        reason = "a pointer into a map the kernel shares between CPUs"
    )]
    pub fn target(self) -> (Address, u16) {
        // SAFETY: valid by the contract of `new`.
        unsafe {
            (
                core::ptr::addr_of!((*self.0).address).read(),
                core::ptr::addr_of!((*self.0).port).read(),
            )
        }
    }

    /// What the source becomes as well; only where the flags have
    /// [`crate::layout::flow_flags::BOTH`] it means something.
    #[inline(always)]
    #[must_use]
    #[expect(
        unsafe_code,
        reason = "a pointer into a map the kernel shares between CPUs"
    )]
    pub fn from(self) -> (Address, u16) {
        // SAFETY: valid by the contract of `new`; these never change.
        unsafe {
            (
                core::ptr::addr_of!((*self.0).from).read(),
                core::ptr::addr_of!((*self.0).from_port).read(),
            )
        }
    }

    /// The Service's index, and the flow's id.
    #[inline(always)]
    #[must_use]
    #[expect(
        unsafe_code,
        reason = "a pointer into a map the kernel shares between CPUs"
    )]
    pub fn owner(self) -> (u32, u64) {
        // SAFETY: valid by the contract of `new`; these never change.
        unsafe {
            (
                core::ptr::addr_of!((*self.0).service).read(),
                core::ptr::addr_of!((*self.0).id).read(),
            )
        }
    }

    /// How long ago a packet was last noted.
    #[inline(always)]
    #[must_use]
    #[expect(
        unsafe_code,
        reason = "a pointer into a map the kernel shares between CPUs"
    )]
    pub fn age_ns(self, now_ns: u64) -> u64 {
        // SAFETY: valid by the contract of `new`.
        let seen_ns = unsafe { core::ptr::addr_of!((*self.0).seen_ns).read() };
        now_ns.saturating_sub(seen_ns)
    }

    /// Notes flags, and when it was (about once a second).
    #[inline(always)]
    #[expect(
        unsafe_code,
        reason = "a pointer into a map the kernel shares between CPUs"
    )]
    pub fn touch(self, flags: u16, now_ns: u64) {
        // SAFETY: valid by the contract of `new`; single fields are written.
        unsafe {
            let value = self.0;
            if (*value).flags | flags != (*value).flags {
                (*value).flags |= flags;
            }
            if now_ns.wrapping_sub((*value).seen_ns) > SEEN_RESOLUTION_NS {
                (*value).seen_ns = now_ns;
            }
        }
    }

    /// Settles what a pending entry becomes.
    #[inline(always)]
    #[expect(
        unsafe_code,
        reason = "a pointer into a map the kernel shares between CPUs"
    )]
    pub fn settle(self, address: Address, port: u16, flags: u16) {
        // SAFETY: valid by the contract of `new`. The flags go last: who reads them without
        // PENDING reads the address and port that were written before.
        unsafe {
            core::ptr::addr_of_mut!((*self.0).address).write_volatile(address);
            core::ptr::addr_of_mut!((*self.0).port).write_volatile(port);
            core::ptr::addr_of_mut!((*self.0).flags).write_volatile(flags);
        }
    }
}

/// How exact [`FlowValue::seen_ns`] is: writing it for each packet would move a cache line
/// between CPUs for nothing.
pub(crate) const SEEN_RESOLUTION_NS: u64 = 1_000_000_000;

/// What is noted of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The sender is told.
    pub told: bool,
    /// Who, as far as known.
    pub source: Address,
    /// Where to.
    pub destination: Address,
    /// From which port, in network byte order.
    pub source_port: u16,
    /// To which port, in network byte order.
    pub destination_port: u16,
    /// The number of the protocol.
    pub protocol: u8,
    /// The Service's index, 0 where there is none.
    pub service: u32,
}
