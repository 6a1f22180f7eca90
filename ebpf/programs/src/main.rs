//! The kernel programs: thin hooks around the data path.
//!
//! What they decide is in `switchyard-datapath`, which the tests run as well; here is only what
//! the kernel gives and takes.

#![no_std]
#![no_main]

mod device;
mod globals;
#[cfg(feature = "log")]
mod log;
mod maps;
mod route;
mod skb;
mod socket;

/// Some helpers are for programs under a licence compatible with the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing in here panics; the linker wants it all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
