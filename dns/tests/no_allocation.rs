//! Cluster names are answered without allocating.

#![expect(
    unsafe_code,
    reason = "an allocator that counts can't be had otherwise"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{Block, COREFILE, cluster, questions};
use switchyard_dns::plugin::Exchange;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with what this thread asks of it counted.
struct Counting;

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the same promise to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same promise to us.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn answers_from_memory_allocate_nothing() {
    let block = Block::new(COREFILE, &cluster(100));
    let mut exchange = Exchange::default();
    for (_, packet) in questions() {
        // Once through, so that the buffers have grown.
        block.answer(&mut exchange, &packet);
    }
    for (what, packet) in questions() {
        let before = ALLOCATIONS.with(Cell::get);
        for _ in 0..100 {
            block.answer(&mut exchange, &packet);
        }
        assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "{what}");
    }
    let before = ALLOCATIONS.with(Cell::get);
    drop(Box::new(1));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 1, "the count works");
}
