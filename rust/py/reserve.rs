//! Memory for small things when the system has none left.
//!
//! Whatever grows allocates its memory fallibly, and raises `MemoryError` if there is none. Then an exception, a message and a
//! closure are allocated: small things for which Rust expects memory always to be available, and aborts the process if it is not.
//! Those then come from here: from slots that nothing large can take, and that nobody touches as long as the system has memory.
//! Hundreds of slots are more than all threads of a large machine need at once on their way to an exception.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::{copy_nonoverlapping, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a slot: the head of a cache and a node of the standard library's ordered maps are among the small things. Nodes of an
/// index, and whatever else can be refused, are larger.
const SLOT: usize = 512;
const WORDS: usize = 8;
const SLOTS: usize = WORDS * 64;

#[repr(C, align(512))]
struct Reserve {
    slots: UnsafeCell<[[u8; SLOT]; SLOTS]>,
    /// A bit for each slot that is in use.
    taken: [AtomicU64; WORDS],
}

// SAFETY: a slot belongs to whoever set its bit.
unsafe impl Sync for Reserve {}

#[global_allocator]
static RESERVE: Reserve =
    Reserve { slots: UnsafeCell::new([[0; SLOT]; SLOTS]), taken: [const { AtomicU64::new(0) }; WORDS] };

impl Reserve {
    #[cold]
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SLOT || layout.align() > SLOT {
            return null_mut();
        }
        for (number, word) in self.taken.iter().enumerate() {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != u64::MAX {
                let free = seen.trailing_ones();
                // Acquire pairs with the Release in `give_back`: the former owner is done with the slot.
                match word.compare_exchange_weak(seen, seen | 1 << free, Ordering::Acquire, Ordering::Relaxed)
                {
                    Ok(_) => {
                        let slot = number * 64 + free as usize;
                        // SAFETY: one of the slots.
                        return unsafe { self.slots.get().cast::<[u8; SLOT]>().add(slot) }.cast();
                    }
                    Err(found) => seen = found,
                }
            }
        }
        null_mut()
    }

    /// The slot that begins at an address.
    #[inline]
    fn slot_at(&self, block: *mut u8) -> Option<usize> {
        let offset = block.addr().wrapping_sub(self.slots.get().addr());
        (offset < SLOT * SLOTS).then_some(offset / SLOT)
    }

    #[cold]
    fn give_back(&self, slot: usize) {
        self.taken[slot / 64].fetch_and(!(1 << (slot % 64)), Ordering::Release);
    }
}

// SAFETY: blocks are the system's, or slots, which are large enough, aligned and one owner's at a time.
unsafe impl GlobalAlloc for Reserve {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises; so in all that follow.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() { self.take(layout) } else { block }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            return block;
        }
        let slot = self.take(layout);
        if !slot.is_null() {
            // SAFETY: the slot is ours, and that large.
            unsafe { slot.write_bytes(0, layout.size()) };
        }
        slot
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.slot_at(block) {
            Some(slot) => self.give_back(slot),
            // SAFETY: as above: not a slot, so the system's.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.slot_at(block).is_none() {
            // SAFETY: as above.
            let moved = unsafe { System.realloc(block, layout, size) };
            if !moved.is_null() || size > SLOT {
                return moved;
            }
        }
        // From or into a slot.
        // SAFETY: the caller promises that the new size makes a layout; both blocks are ours, and as large as is copied.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                copy_nonoverlapping(block, moved, size.min(layout.size()));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}
