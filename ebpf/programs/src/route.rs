//! The kernel's routes, and sending packets by them.

use aya_ebpf::bindings::{
    BPF_F_NO_PREALLOC, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
    bpf_redir_neigh as NextHop,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh, bpf_redirect_peer};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::TcContext;
use switchyard_datapath::flow::Routes;
use switchyard_datapath::layout::{StationKey, TCP, limits};
use switchyard_datapath::parse::Parsed;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Bytes of a UDP header. (SCTP's is larger, and is counted with its payload.)
const UDP_BYTES: u32 = 8;

use crate::skb::Skb;

/// `struct bpf_fib_lookup` of `linux/bpf.h`, with plain numbers in place of its unions.
#[repr(C)]
#[derive(Clone, Copy)]
struct Lookup {
    family: u8,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    /// Bytes from the IP header on; the MTU where it is exceeded.
    bytes: u16,
    device: u32,
    /// TOS, or traffic class and flow label.
    flow: u32,
    source: [u32; 4],
    /// The next hop, once it was found.
    destination: [u32; 4],
    vlan: u32,
    /// The link layer's address of the device, and of the next hop.
    own_mac: [u8; 6],
    next_mac: [u8; 6],
}

const _: () = assert!(size_of::<Lookup>() == size_of::<FibLookup>());

/// `struct bpf_redir_neigh` of `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Neighbour {
    family: u32,
    address: [u32; 4],
}

const _: () = assert!(size_of::<Neighbour>() == size_of::<NextHop>());

/// What has no room on the stack.
#[repr(C)]
#[derive(Clone, Copy)]
struct Work {
    /// The question and its answer.
    lookup: Lookup,
    /// The next hop.
    next: Neighbour,
    /// The link layer's addresses, as a packet has them.
    macs: [[u8; 6]; 2],
}

/// Of each CPU.
#[map]
static ROUTE: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Who is behind which port of a bridge.
#[map]
static STATIONS: HashMap<StationKey, u32> =
    HashMap::with_max_entries(limits::STATION_ENTRIES_MAX, BPF_F_NO_PREALLOC);

/// This CPU's own.
#[inline(always)]
fn work_of_this_cpu<'a>() -> Option<&'a mut Work> {
    // SAFETY: packets are met with bottom halves off, one at a time on each CPU, and all bytes
    // zero, as the memory starts, is a value.
    ROUTE.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// The routes a packet that came in could go by.
pub(crate) struct Road<'a> {
    pub(crate) context: &'a TcContext,
    /// The device it came in by.
    pub(crate) device: u32,
}

impl Routes for Road<'_> {
    #[inline(always)]
    fn route(&mut self, parsed: &Parsed) -> Option<u32> {
        let lookup = &mut work_of_this_cpu()?.lookup;
        lookup.protocol = parsed.protocol;
        lookup.source_port = parsed.source_port;
        lookup.destination_port = parsed.destination_port;
        lookup.bytes = u16::try_from(self.largest(parsed)).ok()?;
        lookup.device = self.device;
        lookup.flow = parsed.traffic;
        lookup.vlan = 0;
        if parsed.is_v4() {
            lookup.family = AF_INET;
            lookup.source = [parsed.source.v4_word(), 0, 0, 0];
            lookup.destination = [parsed.destination.v4_word(), 0, 0, 0];
        } else {
            lookup.family = AF_INET6;
            lookup.source = parsed.source.words();
            lookup.destination = parsed.destination.words();
        }
        let bytes = size_of::<Lookup>() as i32;
        let params = core::ptr::from_mut(lookup).cast::<FibLookup>();
        // SAFETY: the program's context, and as many bytes as are told.
        let result = unsafe { bpf_fib_lookup(self.context.skb.skb.cast(), params, bytes, 0) };
        (result == i64::from(BPF_FIB_LKUP_RET_SUCCESS)).then_some(lookup.device)
    }

    #[inline(always)]
    fn port(&mut self, bridge: u32) -> Option<u32> {
        let lookup = &work_of_this_cpu()?.lookup;
        let key = StationKey {
            bridge,
            mac: lookup.next_mac,
            reserved: 0,
        };
        // SAFETY: read once, at once.
        STATIONS.get_ptr(&key).map(|port| unsafe { *port })
    }
}

impl Road<'_> {
    /// Bytes of the largest packet that this becomes on its way: what came in as several packets
    /// and was put together (GRO, GSO) will be cut again.
    #[inline(always)]
    fn largest(&self, parsed: &Parsed) -> u32 {
        // SAFETY: a field of the kernel's context.
        let segment = unsafe { (*self.context.skb.skb).gso_size };
        if segment == 0 {
            return self.context.len().saturating_sub(parsed.ip);
        }
        let transport = if parsed.protocol == TCP {
            u32::from(parsed.tcp_bytes)
        } else {
            UDP_BYTES
        };
        parsed.transport - parsed.ip + transport + segment
    }

    /// Sends the packet out by the device that [`Routes::route`] has found, to the next hop it
    /// has found. What the program has to return.
    #[inline(always)]
    pub(crate) fn send(&self, device: u32) -> i32 {
        let Some(Work { lookup, next, .. }) = work_of_this_cpu() else {
            return super::device::SHOT;
        };
        next.family = u32::from(lookup.family);
        next.address = lookup.destination;
        let bytes = size_of::<Neighbour>() as i32;
        let params = core::ptr::from_mut(next).cast::<NextHop>();
        // SAFETY: as many bytes as are told; the helper copies them.
        unsafe { bpf_redirect_neigh(device, params, bytes, 0) as i32 }
    }

    /// Hands the packet to the other end of a pair of devices, with the link layer's header it
    /// would have got on the way. What the program has to return.
    #[inline(always)]
    pub(crate) fn hand_over(&self, device: u32) -> i32 {
        let Some(Work { lookup, macs, .. }) = work_of_this_cpu() else {
            return super::device::SHOT;
        };
        *macs = [lookup.next_mac, lookup.own_mac];
        if !Skb(self.context).store_all(0, macs) {
            return super::device::SHOT;
        }
        // SAFETY: numbers only.
        unsafe { bpf_redirect_peer(device, 0) as i32 }
    }
}
