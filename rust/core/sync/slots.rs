//! A cache line for each thread at work: its owner, and what that thread announces to threads that wait for all others.
//!
//! Owns: the claims. Does not own the lives of threads (`context`), nor what a slot announces (`rcu`).
//!
//! | word | who writes | meaning |
//! |---|---|---|
//! | `owner` | read-modify-writes: who claims, who gives back | the ticket of the claim; 0 is free |
//! | `count` | the owner | odd inside a read section; goes on from owner to owner |
//!
//! Slots are numbered from 0; a claim takes the lowest free one, so numbers stay below twice the greatest number of threads that
//! were ever at work at once. They lie in chunks, each twice as long as the one before, which are made when needed, never freed,
//! and wiped in a forked child: there all are free, and no thread is inside a section.

use super::{AtomicPtr, AtomicU64, Ordering, guard, imp, ord, seeded};

/// Slots of the first chunk, and the limit of chunks: together more slots than a Linux system can have threads (2^22).
#[cfg(not(any(specmm_loom, specmm_shuttle)))]
const fn first_chunk() -> usize {
    64
}
#[cfg(any(specmm_loom, specmm_shuttle))]
use imp::first_chunk;
const CHUNKS: usize = if cfg!(any(specmm_loom, specmm_shuttle)) { 3 } else { 17 };

/// One thread's announcement, on cache lines that it does not share.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slot {
    owner: AtomicU64,
    pub(crate) count: AtomicU64,
}

impl Slot {
    /// No thread's ticket: none gets that high.
    #[cfg(not(any(specmm_loom, specmm_shuttle)))]
    pub(crate) const fn nobodys() -> Self {
        Self { owner: AtomicU64::new(u64::MAX), count: AtomicU64::new(0) }
    }

    /// As above; models make their statics at run time.
    #[cfg(any(specmm_loom, specmm_shuttle))]
    pub(crate) fn nobodys() -> Self {
        Self { owner: AtomicU64::new(u64::MAX), count: AtomicU64::new(0) }
    }

    /// Whether it was claimed with this ticket, and has been neither given back nor wiped since.
    #[inline]
    pub(super) fn is_owned_by(&self, ticket: u64) -> bool {
        // Relaxed: a thread sees its own claim and its own release of it.
        self.owner.load(Ordering::Relaxed) == ticket
    }

    /// Ends a claim. Its owner is in no section.
    pub(super) fn give_back(&self) {
        // Pairs with the Acquire in `claim`: the next owner continues where this one stopped.
        self.owner.swap(0, ord!("slots.give_back.release", Release));
    }
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Slots {
    chunks: [AtomicPtr<Slot>; CHUNKS],
}

impl Slots {
    #[cfg(not(any(specmm_loom, specmm_shuttle)))]
    pub(crate) const fn new() -> Self {
        Self { chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS] }
    }

    #[cfg(any(specmm_loom, specmm_shuttle))]
    pub(crate) fn new() -> Self {
        Self { chunks: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())) }
    }

    /// Takes a free slot for `ticket`, which is not 0 and was never used before: the lowest one, except that a model may start
    /// its search elsewhere. `None`: all are taken, and there is no memory for more.
    pub(crate) fn claim(&self, ticket: u64, first_look: usize) -> Option<(usize, &Slot)> {
        for chunk in 0..CHUNKS {
            let slots = self.chunk(chunk)?;
            for at in 0..slots.len() {
                let at = (first_look + at) % slots.len();
                let slot = &slots[at];
                // Pairs with the Release in `give_back`.
                if slot.owner.load_then_write(Ordering::Relaxed) == 0
                    && guard!(
                        "slots.claim.free",
                        slot.owner
                            .compare_exchange(
                                0,
                                ticket,
                                ord!("slots.claim.acquire", Acquire),
                                Ordering::Relaxed
                            )
                            .is_ok()
                    )
                {
                    return Some((length_before(chunk) + at, slot));
                }
            }
        }
        None
    }

    /// The slots of a chunk, made if needed.
    fn chunk(&self, chunk: usize) -> Option<&[Slot]> {
        let head = &self.chunks[chunk];
        // Pairs with the Release below: the slots are initialised.
        let mut slots = head.load_then_write(ord!("slots.chunk.acquire", Acquire));
        if slots.is_null() {
            let fresh = imp::chunk_of_slots(length(chunk))?;
            slots = match head.compare_exchange(
                std::ptr::null_mut(),
                fresh,
                ord!("slots.chunk.publish.release", Release),
                ord!("slots.chunk.lost", Acquire),
            ) {
                Ok(_) => fresh,
                Err(winner) => {
                    // SAFETY: made above and not shared.
                    unsafe { imp::drop_chunk_of_slots(fresh, length(chunk)) };
                    winner
                }
            };
        }
        // SAFETY: published chunks have that length, are initialised and never freed.
        Some(unsafe { std::slice::from_raw_parts(slots, length(chunk)) })
    }

    /// The slots that may have been claimed so far. Chunks are made in order, so the first missing one is the end.
    pub(crate) fn made(&self) -> impl Iterator<Item = &Slot> {
        let chunks = seeded!("slots.scan.every_chunk", CHUNKS, bug = 1);
        self.chunks[..chunks]
            .iter()
            // Pairs with the Release in `chunk`.
            .map(|head| head.load(ord!("slots.scan.chunk.acquire", Acquire)))
            .enumerate()
            .take_while(|(_, slots)| !slots.is_null())
            // SAFETY: as in `chunk`.
            .flat_map(|(chunk, slots)| unsafe { std::slice::from_raw_parts(slots, length(chunk)) })
    }

    /// Does what the kernel does in a forked child; called by the child's only thread.
    #[cfg(any(not(any(specmm_loom, specmm_shuttle)), all(test, specmm_loom)))]
    pub(crate) fn wipe(&self) {
        for slot in self.made() {
            slot.owner.swap(0, Ordering::Relaxed);
            super::duty!("slots.wipe.count", _ = slot.count.swap(0, Ordering::Relaxed));
        }
    }
}

/// Slots outlive the threads of a process; under shuttle they end with each execution.
#[cfg(specmm_shuttle)]
impl Drop for Slots {
    fn drop(&mut self) {
        for (chunk, head) in self.chunks.iter().enumerate() {
            let slots = head.load(Ordering::Relaxed);
            if !slots.is_null() {
                // SAFETY: published once, and every thread of the execution has ended.
                unsafe { imp::drop_chunk_of_slots(slots, length(chunk)) };
            }
        }
    }
}

fn length(chunk: usize) -> usize {
    first_chunk() << chunk
}

/// Slots in all chunks before.
fn length_before(chunk: usize) -> usize {
    first_chunk() * ((1 << chunk) - 1)
}

/// Chunks as the model checkers need them: their atomics cannot be zeroed memory.
#[cfg(any(specmm_loom, specmm_shuttle))]
pub(super) mod boxed {
    use super::{AtomicU64, Slot};

    #[allow(clippy::unnecessary_wraps, reason = "as what ships")]
    pub(crate) fn chunk_of_slots(length: usize) -> Option<*mut Slot> {
        let slots: Box<[Slot]> =
            (0..length).map(|_| Slot { owner: AtomicU64::new(0), count: AtomicU64::new(0) }).collect();
        Some(Box::into_raw(slots).cast())
    }

    /// # Safety
    /// They were made by [`chunk_of_slots`] with this length, and are no longer used.
    pub(crate) unsafe fn drop_chunk_of_slots(slots: *mut Slot, length: usize) {
        // SAFETY: by the caller's promise.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(slots, length)) });
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lowest_free_slot_is_claimed_and_chunks_are_made_when_they_are_needed() {
        let slots = Slots::new();
        let claim = |ticket| slots.claim(ticket, 0).unwrap();
        assert_eq!(slots.made().count(), 0);
        let claimed: Vec<_> = (1..=200).map(claim).collect();
        assert!(claimed.iter().map(|(number, _)| *number).eq(0..200));
        assert!(
            claimed
                .iter()
                .map(|(_, slot)| &raw const **slot)
                .eq(slots.made().take(200).map(|slot| &raw const *slot))
        );
        assert_eq!(slots.made().count(), 64 + 128 + 256);
        for (ticket, (_, slot)) in (1..).zip(&claimed) {
            assert!(slot.is_owned_by(ticket) && !slot.is_owned_by(ticket + 1));
        }
        // Free ones in each chunk: the lowest comes first.
        for number in [199, 70, 3] {
            claimed[number].1.give_back();
            assert!(!claimed[number].1.is_owned_by(number as u64 + 1));
        }
        let again: Vec<_> = (201..=204).map(|ticket| claim(ticket).0).collect();
        assert_eq!(again, [3, 70, 199, 200]);
        assert_eq!(slots.made().count(), 64 + 128 + 256);
    }

    #[test]
    fn a_search_may_begin_elsewhere() {
        let slots = Slots::new();
        let numbers: Vec<_> = (1..=64).map(|ticket| slots.claim(ticket, 60).unwrap().0).collect();
        assert!(numbers.iter().copied().eq((60..64).chain(0..60)));
        assert_eq!(slots.claim(65, 0).unwrap().0, 64, "the next chunk begins after the first");
    }

    #[test]
    fn a_wiped_slot_is_free_with_nobody_inside() {
        let slots = Slots::new();
        for ticket in 1..=100 {
            slots.claim(ticket, 0).unwrap().1.count.store(2 * ticket + 1, Ordering::Relaxed);
        }
        slots.wipe();
        assert!(slots.made().all(|slot| slot.is_owned_by(0) && slot.count.load(Ordering::Relaxed) == 0));
        let numbers: BTreeSet<_> = (201..=300).map(|ticket| slots.claim(ticket, 0).unwrap().0).collect();
        assert!(numbers.into_iter().eq(0..100));
    }
}
