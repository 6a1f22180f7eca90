//! Decisions told by aya-log, a line each: for debug builds of the agent (feature `log`).
//!
//! Each kind of line has a function of its own that is called, not inlined: its part of the stack
//! is then free again. Of 512 bytes `in_ethernet` leaves 160, which is two addresses.

use aya_log_ebpf::debug;
use switchyard_datapath::Refusal;
use switchyard_datapath::flow::Work;
use switchyard_datapath::layout::{Address, Endpoint};
use switchyard_datapath::socket::Call;

/// A flow was opened: where its packets go from now on. Of the client only the port is told, for
/// want of room.
#[inline(never)]
pub(crate) fn opened(work: &Work) {
    debug!(
        (),
        "flow from port {} to {:i} {} goes to {:i} {}",
        u16::from_be(work.parsed.source_port),
        bytes(&work.parsed.destination),
        u16::from_be(work.parsed.destination_port),
        bytes(&work.to.address),
        u16::from_be(work.to.port)
    );
}

/// A flow got a source of the node's.
#[inline(never)]
pub(crate) fn masqueraded(work: &Work) {
    debug!(
        (),
        "flow from {:i} {} to {:i} {} leaves from {:i} {}",
        bytes(&work.parsed.source),
        u16::from_be(work.parsed.source_port),
        bytes(&work.parsed.destination),
        u16::from_be(work.parsed.destination_port),
        bytes(&work.to.address),
        u16::from_be(work.to.port)
    );
}

/// Something was refused, for a reason by its number.
#[inline(never)]
pub(crate) fn refused(refusal: &Refusal) {
    debug!(
        (),
        "refused for reason {}: {:i} {} to {:i} {}",
        refusal.reason.number(),
        bytes(&refusal.source),
        u16::from_be(refusal.source_port),
        bytes(&refusal.destination),
        u16::from_be(refusal.destination_port)
    );
}

/// A call was given an endpoint.
#[inline(never)]
pub(crate) fn translated(call: &Call, to: &Endpoint) {
    debug!(
        (),
        "socket to {:i} {} goes to {:i} {}",
        bytes(&call.address),
        u16::from_be(call.port),
        bytes(&to.address),
        u16::from_be(to.port)
    );
}

/// An address as bytes in the order of the network.
#[inline(always)]
fn bytes(address: &Address) -> [u8; 16] {
    let [a, b, c, d] = address.0.map(u32::to_ne_bytes);
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a, b);
    let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c, d);
    [
        a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3,
    ]
}
