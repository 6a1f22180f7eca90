//! The few things of the kernel's BPF that aya does not do.
//!
//! - [`Link`]: programs attached by links that are pinned, and replaced in place
//!   (`BPF_LINK_UPDATE`): at no moment is nothing attached.
//! - [`Mapping`]: an array map, or a part of it, in the agent's memory: thousands of entries cost no system call,
//!   and one aligned store is all readers see of a change.
//! - [`entries`]: many entries of a hash map by one call.
//! - [`grace`]: waiting until no program runs any more that could know what was there before.
//! - [`keep_heaps_short`] and [`trim_heaps`]: the agent's own free memory, back to the kernel.
//! - [`namespace_cookie`]: the number the socket programs see of a network namespace.

mod batch;
mod grace;
mod heap;
mod link;
mod mapping;
mod namespace;
mod object;
mod syscall;

pub use batch::entries;
pub use grace::grace;
pub use heap::{keep_heaps_short, trim_heaps};
pub use link::{AttachType, Link, LinkInfo, LinkTarget};
pub use mapping::{Mapping, page_bytes};
pub use namespace::namespace_cookie;
pub use object::{MapShape, map_shape, open_pinned, pin};
