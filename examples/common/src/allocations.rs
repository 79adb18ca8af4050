//! What a program allocates.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

/// An allocator, with a count of the bytes that it is asked for. For a program to make its
/// `#[global_allocator]`.
pub struct Counting<A>(pub A);

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all of it is the allocator's own; counting touches no memory of its.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on, and what was allocated was so by the same allocator.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on, and what was allocated was so by the same allocator.
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}

/// The bytes asked for so far, by all threads, of a program's [`Counting`] allocator.
pub fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}
