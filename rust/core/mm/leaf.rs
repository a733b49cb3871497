//! Leaf tables: the entries of 2 MiB of addresses, and the lock under which they are set and cleared.
//!
//! Owns: entries and their bits, a leaf's lock and its count of entries. Does not own the place of a leaf in the tree
//! (`page_table`). Mirrors `pte_offset_map_lock`, `do_set_pte` and `ptep_get_and_clear`.
//!
//! An entry is one word: present (bit 0), writable (1), accessed (5), dirty (6), private copy (9), frame number from bit 12. It
//! owns one reference on its page. What each change requires:
//!
//! | change | holding |
//! |---|---|
//! | none to present | the leaf lock, the leaf being in the tree |
//! | present to none | the leaf lock, by swap |
//! | rights | the leaf lock, by compare-and-exchange (a program may set accessed meanwhile) |
//! | accessed, dirty | nothing, by compare-and-exchange from the present entry that was seen |
//!
//! A leaf without entries leaves the tree, under its lock. So a thread that gets the lock checks whether the leaf is still in the
//! tree: an entry set in one that has left would never be found. The lock is held inside a read section ([`LeafLocked`] borrows
//! it), where `rcu::synchronize` panics: no owner of the lock ever waits for a grace period.

use crate::error::Result;
use crate::page::{Frames, PAGE_SHIFT, PageHandle};
use crate::rcu::{ArcCell, Carried, ReadSection};
use crate::reserve;
use crate::sync::{
    AtomicU32, AtomicU64, Guess, LifeCell, Ordering, duty, guard, in_order, ord, seeded, spin_hint, yield_now,
};
use std::sync::Arc;

/// Bits of the address that one level consumes.
pub(super) const LEVEL_BITS: u32 = if cfg!(specmm_loom) {
    1
} else if cfg!(specmm_shuttle) {
    2
} else {
    9
};
pub(super) const FANOUT: usize = 1 << LEVEL_BITS;
/// What memory is requested for here.
pub(super) const TABLE: &str = "a page table";
/// Bytes that one leaf maps (2 MiB).
pub(super) const LEAF_SPAN: u64 = 1 << (PAGE_SHIFT + LEVEL_BITS);

/// One entry's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pte(u64);

impl Pte {
    pub(super) const PRESENT: u64 = 1;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const ACCESSED: u64 = 1 << 5;
    pub(super) const DIRTY: u64 = 1 << 6;
    pub(super) const PRIVATE: u64 = 1 << 9;

    pub(super) fn new(pfn: u32, bits: u64) -> Self {
        Self(u64::from(pfn) << 12 | Self::PRESENT | bits)
    }
    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }
    pub(super) fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }
    pub(super) fn with(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }
    pub(super) fn without(self, bits: u64) -> Self {
        Self(self.0 & !bits)
    }
    pub(super) fn pfn(self) -> u32 {
        (self.0 >> 12) as u32
    }
    /// Whether two values differ at most in the bits that accesses set (`pte_same` for our purposes).
    pub(super) fn is_same(self, other: Self) -> bool {
        let by_programs = Self::ACCESSED | Self::DIRTY;
        self.without(by_programs) == other.without(by_programs)
    }
}

/// The addresses that the leaf of `address` maps: from the first to below the second.
#[inline]
pub(super) fn leaf_range(address: u64) -> (u64, u64) {
    let first = address - address % LEAF_SPAN;
    (first, first + LEAF_SPAN)
}

/// How many tables there are below the root, in one address space and in all that share a cache, including those that still await
/// a grace period.
pub(super) struct Tables {
    pub(super) own: Guess,
    pub(super) all: Arc<Guess>,
}

/// Counts a table as long as it lives, and tells the model checker when it is freed.
pub(super) struct Gauge {
    pub(super) tables: Arc<Tables>,
    pub(super) life: LifeCell,
    /// 0 for the root, which is part of the address space.
    counts: u64,
}

impl Gauge {
    pub(super) fn new(tables: &Arc<Tables>, counts: u64) -> Self {
        tables.own.add(counts);
        tables.all.add(counts);
        Self { tables: Arc::clone(tables), life: LifeCell::new(), counts }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.life.kill();
        self.tables.own.sub(self.counts);
        self.tables.all.sub(self.counts);
    }
}

/// The cell that points to a table.
pub(super) type Cell<T> = ArcCell<Carried<T>>;

/// The contents of a table.
pub(super) fn slots<T>(empty: impl FnMut() -> T) -> Result<Box<[T]>> {
    let mut slots = reserve::vec(FANOUT, TABLE)?;
    slots.resize_with(FANOUT, empty);
    Ok(slots.into_boxed_slice())
}

/// Entries, and their lock.
pub(super) struct Leaf {
    /// [`LOCKED`], or else the number of entries present: counting them costs no access besides the lock's.
    lock: AtomicU32,
    entries: Box<[AtomicU64]>,
    pub(super) gauge: Gauge,
}

/// More entries than a leaf has.
const LOCKED: u32 = u32::MAX;

impl Leaf {
    pub(super) fn new(gauge: Gauge) -> Result<Self> {
        Ok(Self { lock: AtomicU32::new(0), entries: slots(|| AtomicU64::new(0))?, gauge })
    }

    /// Audits a leaf in the tree, at quiescence.
    pub(super) fn audit(&self) -> std::result::Result<(), String> {
        let present = self.entries.iter().filter(|entry| entry.load(Ordering::Relaxed) != 0).count();
        match self.lock.load(Ordering::Relaxed) {
            LOCKED => Err("a leaf table is locked".into()),
            0 => Err("a leaf table without entries is in the tree".into()),
            counted if counted as usize != present => {
                Err(format!("a leaf table has {present} entries, {counted} by its count"))
            }
            _ => Ok(()),
        }
    }
}

/// A walk to a leaf, with the cell that pointed to it (`pmd`), to be checked again.
#[derive(Clone, Copy)]
pub(super) struct Walk<'s> {
    leaf: &'s Leaf,
    cell: &'s Cell<Leaf>,
    /// The first address that the leaf maps.
    pub(super) first: u64,
    pub(super) section: &'s ReadSection,
    /// Of the leaf and of the table that points to it.
    lives: [LifeCell; 2],
}

impl<'s> Walk<'s> {
    #[inline]
    pub(super) fn new(
        leaf: &'s Leaf,
        (cell, parent): (&'s Cell<Leaf>, LifeCell),
        address: u64,
        section: &'s ReadSection,
    ) -> Self {
        let lives = [leaf.gauge.life, parent];
        Self { leaf, cell, first: leaf_range(address).0, section, lives }
    }

    /// The leaf, which the section keeps alive.
    #[inline]
    fn leaf(&self) -> &'s Leaf {
        self.lives[0].assert_alive();
        self.leaf
    }

    /// The entry at `address`, which this leaf covers.
    #[inline]
    pub(super) fn get(&self, address: u64) -> Pte {
        // Pairs with the Release in `LeafLocked::set`: the page's bytes are visible to a thread that sees its entry.
        Pte(self.entry(address).load_then_write(ord!("pte.get.acquire", Acquire)))
    }

    #[inline]
    fn entry(&self, address: u64) -> &'s AtomicU64 {
        &self.leaf().entries[(address >> PAGE_SHIFT) as usize & (FANOUT - 1)]
    }

    /// Sets accessed (and dirty) bits if the entry is still `seen`: a cleared entry stays cleared.
    pub(super) fn mark(&self, address: u64, seen: Pte, bits: u64) -> bool {
        let entry = self.entry(address);
        let next = seen.with(bits).0;
        seen.has(bits)
            || seeded!(
                "pte.mark.seed.unseen",
                entry.compare_exchange(seen.0, next, Ordering::Relaxed, Ordering::Relaxed).is_ok(),
                bug = entry.fetch_or(bits, Ordering::Relaxed) != 0
            )
    }

    /// Clears the accessed bit if the entry is still `seen`.
    pub(super) fn age(&self, address: u64, seen: Pte) -> bool {
        let next = seen.without(Pte::ACCESSED).0;
        self.entry(address).compare_exchange(seen.0, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether the cell still points to this leaf (`*pmd == orig_pmd`).
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.lives[1].assert_alive();
        self.cell.load(self.section).is_some_and(|leaf| std::ptr::eq(&raw const **leaf, self.leaf))
    }

    /// Waits for the leaf lock (`pte_offset_map_lock`). None if the leaf has left the tree: walk again.
    pub(super) fn lock(&self) -> Option<LeafLocked<'s>> {
        let mut spins = 0_u32;
        let present = loop {
            // Pairs with the Release of the previous owner.
            let before = self.leaf().lock.swap(LOCKED, ord!("leaf.lock.acquire", Acquire));
            if before != LOCKED {
                break before;
            }
            // The sections are short, but the owner may have lost its CPU.
            if cfg!(specmm_loom) || spins > 100 {
                yield_now();
            } else {
                spin_hint();
            }
            spins += 1;
        };
        let locked = LeafLocked { walk: *self, present: std::cell::Cell::new(present) };
        guard!("leaf.lock.current", self.is_current()).then_some(locked)
    }

    /// Tries the leaf lock once: a speculative fault must neither spin nor starve. The caller checks whether the leaf is in the
    /// tree, once it has the lock.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<LeafLocked<'s>> {
        let before = self.leaf().lock.swap(LOCKED, ord!("leaf.trylock.acquire", Acquire));
        guard!("leaf.trylock.was_free", before != LOCKED)
            .then(|| LeafLocked { walk: *self, present: std::cell::Cell::new(before) })
    }
}

/// A leaf with its lock held; the only way to set or clear entries.
#[must_use = "dropping this unlocks the leaf"]
pub(super) struct LeafLocked<'s> {
    pub(super) walk: Walk<'s>,
    present: std::cell::Cell<u32>,
}

impl LeafLocked<'_> {
    #[inline]
    pub(super) fn get(&self, address: u64) -> Pte {
        self.walk.get(address)
    }

    /// How many entries are present.
    pub(super) fn present(&self) -> u32 {
        self.present.get()
    }

    /// Sets an empty entry, which takes over the handle's reference (`do_set_pte`).
    #[inline]
    pub(super) fn set(&self, address: u64, page: PageHandle<'_>, bits: u64) {
        debug_assert!(self.get(address).is_none(), "the entry at {address:#x} is taken");
        let (entry, counted) = (self.walk.entry(address), page.page());
        // No thread read-modify-writes an empty entry, so a store is enough. Pairs with the Acquire in `Walk::get`.
        in_order!(
            "pte.set.count_first",
            duty!("pte.set.mapcount", counted.add_mapping()),
            entry.store(Pte::new(page.into_pfn(), bits).0, ord!("pte.set.release", Release))
        );
        self.present.set(self.present.get().wrapping_add(1));
    }

    /// Clears a present entry and gives its reference to the caller. A swap: a program may be setting the accessed bit. Relaxed:
    /// the leaf lock orders it with threads that set or clear the entry, a grace period with threads that used the page through
    /// it.
    pub(super) fn clear(&self, address: u64, frames: &Frames) -> u32 {
        let pfn = seeded!(
            "pte.clear.seed.counts_first",
            {
                let pfn = Pte(self.walk.entry(address).swap(0, Ordering::Relaxed)).pfn();
                // Whoever finds the page unmapped, under its lock, finds no entry.
                duty!("pte.clear.mapcount", frames.page(pfn).remove_mapping());
                pfn
            },
            bug = {
                frames.page(self.get(address).pfn()).remove_mapping();
                Pte(self.walk.entry(address).swap(0, Ordering::Relaxed)).pfn()
            }
        );
        self.present.set(self.present.get().wrapping_sub(1));
        pfn
    }

    /// Changes a present entry if it is still exactly `seen`. Release publishes a private copy's bytes, as in
    /// [`LeafLocked::set`].
    pub(super) fn replace(&self, address: u64, seen: Pte, next: Pte) -> std::result::Result<(), Pte> {
        self.walk
            .entry(address)
            .compare_exchange(seen.0, next.0, ord!("pte.replace.release", Release), Ordering::Relaxed)
            .map(|_| ())
            .map_err(Pte)
    }
}

impl Drop for LeafLocked<'_> {
    #[inline]
    fn drop(&mut self) {
        // A swap: two threads read-modify-write this word.
        let before = self.walk.leaf().lock.swap(self.present.get(), ord!("leaf.unlock.release", Release));
        debug_assert_eq!(before, LOCKED, "unlock of an unlocked leaf");
    }
}

/// Wrong variants, for the mutants.
#[cfg(any(specmm_loom, specmm_shuttle))]
impl<'s> Walk<'s> {
    pub(super) fn as_if_locked(&self, work: impl FnOnce(&LeafLocked<'s>)) {
        let unlocked = LeafLocked { walk: *self, present: std::cell::Cell::new(LOCKED / 2) };
        work(&std::mem::ManuallyDrop::new(unlocked));
    }
}

#[cfg(any(specmm_loom, specmm_shuttle))]
impl LeafLocked<'_> {
    /// Releases the lock for a while.
    pub(super) fn while_unlocked(&self, work: impl FnOnce()) {
        drop(LeafLocked { walk: self.walk, present: self.present.clone() });
        work();
        let again = loop {
            match self.walk.try_lock() {
                Some(again) => break again,
                None => yield_now(),
            }
        };
        self.present.set(again.present.get());
        std::mem::forget(again);
    }
}
