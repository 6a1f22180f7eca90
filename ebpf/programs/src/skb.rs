//! A socket buffer as the data path's packet.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{
    bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use switchyard_datapath::{Packet, Summed};

/// "Of an IPv6 address": without it a checksum that the device computed comes out wrong (Linux
/// 6.16 and later stable kernels; older ones do not know the flag).
const BPF_F_IPV6: u64 = 1 << 7;

/// A packet at a device.
pub(crate) struct Skb<'a>(pub(crate) &'a TcContext);

impl Skb<'_> {
    /// Reads plain numbers from the packet's memory where they are in its linear part, which
    /// headers nearly always are; else by the helper, which costs several times as much.
    #[inline(always)]
    fn load_near<T: Copy>(&self, at: u32) -> Option<T> {
        let start = self.0.data() + at as usize;
        if start + size_of::<T>() <= self.0.data_end() {
            // SAFETY: within the packet, as just compared; any bytes are plain numbers.
            return Some(unsafe { (start as *const T).read_unaligned() });
        }
        self.load_as(at)
    }

    /// Reads plain numbers.
    #[inline(always)]
    fn load_as<T: Copy>(&self, at: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let size = size_of::<T>() as u32;
        // SAFETY: the helper writes as many bytes as the value has, or fails.
        unsafe {
            let result =
                bpf_skb_load_bytes(self.0.skb.skb.cast(), at, value.as_mut_ptr().cast(), size);
            (result == 0).then(|| value.assume_init())
        }
    }

    /// Writes plain numbers.
    #[inline(always)]
    pub(crate) fn store_all<T: Copy>(&mut self, at: u32, value: &T) -> bool {
        let (from, size) = (core::ptr::from_ref(value).cast(), size_of::<T>() as u32);
        // SAFETY: the helper reads as many bytes as the value has.
        unsafe { bpf_skb_store_bytes(self.0.skb.skb, at, from, size, 0) == 0 }
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.load_as(at)
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        self.load_as(at)
    }

    #[inline(always)]
    fn load_fixed<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.load_near(at)
    }

    #[inline(always)]
    fn load_fixed_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        self.load_near(at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool {
        self.store_all(at, bytes)
    }

    #[inline(always)]
    fn store_words<const N: usize>(&mut self, at: u32, words: &[u32; N]) -> bool {
        self.store_all(at, words)
    }

    #[inline(always)]
    fn adjust_ip_checksum(&mut self, at: u32, difference: u32) -> bool {
        // SAFETY: numbers only; the helper checks the offset.
        unsafe { bpf_l3_csum_replace(self.0.skb.skb, at, 0, u64::from(difference), 0) == 0 }
    }

    #[inline(always)]
    fn adjust_checksum(&mut self, at: u32, difference: u32, of: Summed, udp: bool) -> bool {
        let mut flags = 0;
        if of != Summed::Payload {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if udp {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        let (skb, difference) = (self.0.skb.skb, u64::from(difference));
        // SAFETY: numbers only; the helper checks the offset, and refuses flags it does not know
        // before it changes anything.
        unsafe {
            (of == Summed::AddressesV6
                && bpf_l4_csum_replace(skb, at, 0, difference, flags | BPF_F_IPV6) == 0)
                || bpf_l4_csum_replace(skb, at, 0, difference, flags) == 0
        }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        self.0.len()
    }
}
