use core::ptr::NonNull;
use std::boxed::Box;
use std::cell::RefCell;
use std::vec::Vec;

/// Values that stay where they are until the arena goes: whoever found an entry of a map may
/// still read it after it was replaced or removed, as programs in the kernel may.
pub(super) struct Arena<T>(RefCell<Vec<NonNull<T>>>);

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

impl<T> Arena<T> {
    /// Keeps a value. The pointer may be read and written through as long as the arena is there.
    pub(super) fn keep(&self, value: T) -> NonNull<T> {
        let pointer = NonNull::from(Box::leak(Box::new(value)));
        self.0.borrow_mut().push(pointer);
        pointer
    }
}

impl<T> Drop for Arena<T> {
    #[expect(unsafe_code, reason = "boxes that were taken apart in `keep`")]
    fn drop(&mut self) {
        for pointer in self.0.get_mut().drain(..) {
            // SAFETY: from a box, each once; nobody reads it later by the contract of `keep`.
            drop(unsafe { Box::from_raw(pointer.as_ptr()) });
        }
    }
}
