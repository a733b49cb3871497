//! Four levels of tables from address to entry.
//!
//! Owns: the tables, the leaf locks, the entries. Mirrors the page-table half of `mm/memory.c` and `mm/pgtable-generic.c`.
//! Tables hang in RCU cells, so a walk inside a read section touches only living ones.
//!
//! An entry is one word: present (bit 0), writable (1), accessed (5), dirty (6), private copy (9), frame number from
//! bit 12. It owns one reference on its page. Who changes what:
//!
//! | change | holding |
//! |---|---|
//! | none to present | the leaf lock |
//! | present to none | the leaf lock, by swap |
//! | rights | the leaf lock, by compare-and-exchange (a program may set accessed meanwhile) |
//! | accessed, dirty | nothing, by compare-and-exchange from the present entry that was seen |
//! | an upper slot from empty to a table | nothing, by compare-and-exchange; classic faults only |
//! | an upper slot back to empty | the mmap lock, after the entries below were cleared under their leaf lock (munmap) |
//!
//! Premises of the sequence argument, kept here: whatever clears an entry because mappings changed bumps the sequence
//! first and takes the leaf lock of that entry; tables are freed only through RCU. A leaf's lock is held inside a read
//! section ([`LeafLocked`] borrows it), where `rcu::synchronize` panics: no owner of it ever waits for a grace period.

use crate::cache::{MmuGather, Shared};
use crate::error::Result;
use crate::page::{Frames, PAGE_SHIFT, PAGE_SIZE, PageHandle};
use crate::rcu::{self, ArcCell, Carried, ReadSection};
use crate::reserve;
use crate::sync::{
    AtomicU32, AtomicU64, LifeCell, Ordering, Tally, duty, guard, ord, seeded, spin_hint, yield_now,
};
use std::sync::Arc;

/// Bits of the address that one level decides.
const LEVEL_BITS: u32 = if cfg!(specmm_loom) {
    1
} else if cfg!(specmm_shuttle) {
    2
} else {
    9
};
pub(super) const FANOUT: usize = 1 << LEVEL_BITS;
/// Bytes that one leaf table maps (2 MiB).
const LEAF_SPAN: u64 = 1 << (PAGE_SHIFT + LEVEL_BITS);
/// Where the address space ends (2^47).
pub(super) const TASK_SIZE: u64 =
    1 << (PAGE_SHIFT + LEVEL_BITS * 4 - if cfg!(any(specmm_loom, specmm_shuttle)) { 0 } else { 1 });

/// One entry's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pte(u64);

impl Pte {
    const PRESENT: u64 = 1;
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
    /// Whether two values differ at most in what programs set by themselves (`pte_same` for our purposes).
    pub(super) fn is_same(self, other: Self) -> bool {
        let by_programs = Self::ACCESSED | Self::DIRTY;
        self.without(by_programs) == other.without(by_programs)
    }
}

/// Which entries an unmapping clears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// All.
    Any,
    /// Those of file pages; private copies stay.
    File,
}

/// A table whose slots name tables of the level below.
struct Directory<T: Table> {
    slots: Box<[Cell<T>]>,
    gauge: Gauge,
}

/// The last level: entries, and the lock under which they are set and cleared.
pub(super) struct Leaf {
    lock: AtomicU32,
    entries: Box<[AtomicU64]>,
    gauge: Gauge,
}

/// What names a table.
type Cell<T> = ArcCell<Carried<T>>;

type Pmd = Directory<Leaf>;
type Pud = Directory<Pmd>;
type Pgd = Directory<Pud>;

/// Counts living tables and tells the model checker of their death.
struct Gauge {
    tables: Arc<Tally>,
    life: LifeCell,
}

impl Gauge {
    fn new(tables: &Arc<Tally>) -> Self {
        tables.add(1);
        Self { tables: Arc::clone(tables), life: LifeCell::new() }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.life.kill();
        self.tables.sub(1);
    }
}

/// What the levels have in common.
trait Table: Send + Sync + Sized + 'static {
    /// Bytes that one table of this kind maps.
    const SPAN: u64;
    fn new(tables: &Arc<Tally>) -> Result<Self>;
    fn life(&self) -> LifeCell;
    /// Unlinks the tables below that lie in `gap` and touch `range`; `base` is this table's first address.
    fn free_below(&self, base: u64, range: (u64, u64), gap: (u64, u64));
}

/// What a table holds.
fn slots<T>(empty: impl FnMut() -> T) -> Result<Box<[T]>> {
    let mut slots = reserve::vec(FANOUT, "a page table")?;
    slots.resize_with(FANOUT, empty);
    Ok(slots.into_boxed_slice())
}

impl Table for Leaf {
    const SPAN: u64 = LEAF_SPAN;
    fn new(tables: &Arc<Tally>) -> Result<Self> {
        let entries = slots(|| AtomicU64::new(0))?;
        Ok(Self { lock: AtomicU32::new(0), entries, gauge: Gauge::new(tables) })
    }
    fn life(&self) -> LifeCell {
        self.gauge.life
    }
    fn free_below(&self, _base: u64, _range: (u64, u64), _gap: (u64, u64)) {}
}

impl<T: Table> Table for Directory<T> {
    const SPAN: u64 = T::SPAN << LEVEL_BITS;
    fn new(tables: &Arc<Tally>) -> Result<Self> {
        Ok(Self { slots: slots(ArcCell::empty)?, gauge: Gauge::new(tables) })
    }
    fn life(&self) -> LifeCell {
        self.gauge.life
    }
    fn free_below(&self, base: u64, range: (u64, u64), gap: (u64, u64)) {
        let section = rcu::read();
        let first = range.0.max(base) - base;
        let last = (range.1 - base - 1).min(Self::SPAN - 1);
        for slot in first / T::SPAN..=last / T::SPAN {
            let cell = &self.slots[slot as usize];
            let from = base + slot * T::SPAN;
            let Some(table) = cell.load(&section) else { continue };
            table.free_below(from, range, gap);
            // Else a neighbour that stays has entries there.
            if guard!("free_tables.gap", from >= gap.0 && from + T::SPAN <= gap.1) {
                seeded!("free_tables.seed.at_once", table.life().kill());
                cell.clear();
            }
        }
    }
}

impl<T: Table> Directory<T> {
    #[inline]
    fn cell(&self, address: u64) -> &Cell<T> {
        &self.slots[(address / T::SPAN) as usize & (FANOUT - 1)]
    }

    #[inline]
    fn walk<'s>(&'s self, address: u64, section: &'s ReadSection) -> Option<&'s T> {
        self.cell(address).load(section).map(|table| &**table).inspect(|table| table.life().assert_alive())
    }

    fn walk_alloc<'s>(&'s self, address: u64, section: &'s ReadSection) -> Result<&'s T> {
        let cell = self.cell(address);
        if let Some(table) = cell.load(section) {
            return Ok(table);
        }
        let fresh = Carried::new(T::new(&self.gauge.tables)?);
        Ok(cell.load_or_insert(section, || fresh))
    }
}

/// The way to a leaf, for a fault: the cell that named the leaf is looked at again later (`pmd`).
#[derive(Clone, Copy)]
pub(super) struct Walk<'s> {
    leaf: &'s Leaf,
    cell: &'s Cell<Leaf>,
    first: u64,
    section: &'s ReadSection,
    /// Of the leaf and of the table that names it.
    lives: [LifeCell; 2],
}

/// Where a walk ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// A table above the leaf's parent (`pgd`, `pud`): nothing is mapped before this address.
    Upper(u64),
    /// The leaf table (`pmd`).
    Leaf,
}

/// The tables of one address space.
pub(super) struct PageTable {
    root: Pgd,
    shared: Arc<Shared>,
    tables: Arc<Tally>,
}

impl PageTable {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self> {
        let tables = Arc::new(Tally::new());
        Ok(Self { root: Pgd::new(&tables)?, shared, tables })
    }

    pub(super) fn frames(&self) -> &Frames {
        &self.shared.frames
    }

    /// Bytes that the tables take.
    pub(super) fn bytes(&self) -> u64 {
        self.tables.get() * (FANOUT * 8) as u64
    }

    /// Walks to the leaf of `address` without allocating.
    #[inline]
    pub(super) fn walk<'s>(
        &'s self,
        address: u64,
        section: &'s ReadSection,
    ) -> std::result::Result<Walk<'s>, Missing> {
        let beyond = |span: u64| Missing::Upper((address & !(span - 1)) + span);
        let pud = self.root.walk(address, section).ok_or_else(|| beyond(Pud::SPAN))?;
        let pmd = pud.walk(address, section).ok_or_else(|| beyond(Pmd::SPAN))?;
        let leaf = pmd.walk(address, section).ok_or(Missing::Leaf)?;
        Ok(Walk::new(pmd, leaf, address, section))
    }

    /// Walks to the leaf of `address`, making the tables that are missing. The caller holds the mmap lock, so none of them
    /// is unlinked meanwhile.
    pub(super) fn walk_alloc<'s>(&'s self, address: u64, section: &'s ReadSection) -> Result<Walk<'s>> {
        let pmd = self.root.walk_alloc(address, section)?.walk_alloc(address, section)?;
        let leaf = pmd.walk_alloc(address, section)?;
        Ok(Walk::new(pmd, leaf, address, section))
    }

    /// Clears the entries of `start..end`, giving their references to `gather` (`zap_page_range`).
    pub(super) fn zap(&self, start: u64, end: u64, owner: Owner, gather: &mut MmuGather<'_>) {
        let room = |gather: &mut MmuGather<'_>, pages| gather.make_room(pages);
        self.for_each_part(start, end, gather, room, |gather, leaf, from, to| {
            let mut clear = |leaf: &LeafLocked<'_>| {
                for address in (from..to).step_by(PAGE_SIZE) {
                    let pte = leaf.get(address);
                    if !pte.is_none() && guard!("zap.owner", owner == Owner::Any || !pte.has(Pte::PRIVATE)) {
                        // What a program used counts as used when it is mapped no more (`mark_page_accessed`).
                        if pte.has(Pte::ACCESSED) && !pte.has(Pte::PRIVATE) {
                            self.shared.mark_accessed(self.frames().page(pte.pfn()));
                        }
                        gather.take(leaf.clear(address, self.frames()));
                    }
                }
            };
            seeded!("zap.seed.skips_the_lock", leaf.as_if_locked(clear), clear(&leaf.lock()));
        });
    }

    /// Takes the right to store from the entries of `start..end` (`change_protection`).
    pub(super) fn write_protect(&self, start: u64, end: u64, gather: &mut MmuGather<'_>) {
        self.for_each_leaf(start, end, |leaf, from, to| {
            let locked = leaf.lock();
            for address in (from..to).step_by(PAGE_SIZE) {
                let mut pte = locked.get(address);
                while pte.has(Pte::WRITE) {
                    match locked.replace(address, pte, pte.without(Pte::WRITE)) {
                        Ok(()) => {
                            gather.note_change();
                            break;
                        }
                        Err(found) => pte = found,
                    }
                }
            }
        });
    }

    /// Takes the accessed bits from the entries of file pages in `start..end`; how many were set (`ptep_clear_young`). Nothing
    /// is flushed: an access that goes unnoticed costs a page its second chance.
    pub(super) fn test_and_clear_young(&self, start: u64, end: u64) -> u32 {
        let mut young = 0;
        self.for_each_leaf(start, end, |leaf, from, to| {
            for address in (from..to).step_by(PAGE_SIZE) {
                let pte = leaf.get(address);
                young += u32::from(
                    pte.has(Pte::PRESENT | Pte::ACCESSED) && !pte.has(Pte::PRIVATE) && leaf.age(address, pte),
                );
            }
        });
        young
    }

    /// Visits the leaves of `start..end` with the part of the range that each covers.
    pub(super) fn for_each_leaf(&self, start: u64, end: u64, mut visit: impl FnMut(&Walk<'_>, u64, u64)) {
        self.for_each_part(
            start,
            end,
            &mut (),
            |(), pages| pages,
            |(), leaf, from, to| visit(leaf, from, to),
        );
    }

    /// The same in parts that have no more pages than `room` says, which is asked outside any section how many of some it
    /// may be.
    fn for_each_part<C>(
        &self,
        start: u64,
        end: u64,
        context: &mut C,
        room: impl Fn(&mut C, usize) -> usize,
        mut visit: impl FnMut(&mut C, &Walk<'_>, u64, u64),
    ) {
        let mut at = start;
        let mut most = None;
        while at < end {
            let pages = (end - at).div_ceil(PAGE_SIZE as u64).min(FANOUT as u64) as usize;
            let pages = *most.get_or_insert_with(|| room(context, pages)) as u64;
            let part = end.min(at + (pages << PAGE_SHIFT));
            let section = rcu::read();
            match self.walk(at, &section) {
                Ok(walk) => {
                    let to = part.min(walk.first + LEAF_SPAN);
                    visit(context, &walk, at, to);
                    most = None;
                    at = to;
                }
                Err(Missing::Leaf) => at = (at & !(LEAF_SPAN - 1)) + LEAF_SPAN,
                Err(Missing::Upper(beyond)) => at = beyond,
            }
        }
    }

    /// Frees the tables that map only addresses in `floor..ceiling` and some of `start..end`, which is unmapped
    /// (`free_pgtables`). The caller holds the mmap lock, the mappings are detached, the entries cleared.
    pub(super) fn free_tables(&self, (start, end): (u64, u64), (floor, ceiling): (u64, u64)) {
        self.root.free_below(0, (start, end), (floor, ceiling));
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        // Every mapping is gone, and whoever unmapped it has cleared its entries.
        debug_assert!(
            {
                let mut clear = true;
                self.for_each_leaf(0, TASK_SIZE, |leaf, from, to| {
                    clear &= (from..to).step_by(PAGE_SIZE).all(|address| leaf.get(address).is_none());
                });
                clear
            },
            "an entry outlives its mapping"
        );
    }
}

impl<'s> Walk<'s> {
    #[inline]
    fn new(pmd: &'s Pmd, leaf: &'s Leaf, address: u64, section: &'s ReadSection) -> Self {
        let lives = [leaf.life(), pmd.life()];
        Self { leaf, cell: pmd.cell(address), first: address & !(LEAF_SPAN - 1), section, lives }
    }

    /// The leaf, which the section keeps.
    #[inline]
    fn leaf(&self) -> &'s Leaf {
        self.lives[0].assert_alive();
        self.leaf
    }

    /// The entry at `address`, which this leaf covers.
    #[inline]
    pub(super) fn get(&self, address: u64) -> Pte {
        // Pairs with the Release in `LeafLocked::set`: the page's bytes are visible to whoever sees its entry.
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
                entry.fetch_or(bits, Ordering::Relaxed) != 0,
                entry.compare_exchange(seen.0, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            )
    }

    /// Takes the accessed bit if the entry is still `seen`.
    fn age(&self, address: u64, seen: Pte) -> bool {
        let next = seen.without(Pte::ACCESSED).0;
        self.entry(address).compare_exchange(seen.0, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether the cell still names this leaf (`*pmd == orig_pmd`).
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.lives[1].assert_alive();
        self.cell.load(self.section).is_some_and(|leaf| std::ptr::eq(&raw const **leaf, self.leaf))
    }

    /// Waits for the leaf lock (`pte_offset_map_lock`).
    pub(super) fn lock(&self) -> LeafLocked<'s> {
        let mut spins = 0_u32;
        // Pairs with the Release of the owner before.
        while self.leaf().lock.swap(1, ord!("leaf.lock.acquire", Acquire)) != 0 {
            // The sections are short, but the owner may have lost its CPU.
            if cfg!(specmm_loom) || spins > 100 {
                yield_now();
            } else {
                spin_hint();
            }
            spins += 1;
        }
        LeafLocked { walk: *self }
    }

    /// The wrong way, for a mutant.
    #[cfg(any(specmm_loom, specmm_shuttle))]
    fn as_if_locked(&self, work: impl FnOnce(&LeafLocked<'s>)) {
        work(&std::mem::ManuallyDrop::new(LeafLocked { walk: *self }));
    }

    /// Tries the leaf lock once: a speculative fault must neither spin nor starve.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<LeafLocked<'s>> {
        let before = self.leaf().lock.swap(1, ord!("leaf.trylock.acquire", Acquire));
        guard!("leaf.trylock.was_free", before == 0).then(|| LeafLocked { walk: *self })
    }

    /// The addresses that this leaf covers.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.first, self.first + LEAF_SPAN)
    }
}

/// A leaf table with its lock held; the only way to set or clear entries.
#[must_use = "dropping this unlocks the leaf"]
pub(super) struct LeafLocked<'s> {
    walk: Walk<'s>,
}

impl LeafLocked<'_> {
    #[inline]
    pub(super) fn get(&self, address: u64) -> Pte {
        self.walk.get(address)
    }

    /// Sets an empty entry, which takes over the handle's reference (`do_set_pte`).
    #[inline]
    pub(super) fn set(&self, address: u64, page: PageHandle<'_>, bits: u64) {
        debug_assert!(self.get(address).is_none(), "the entry at {address:#x} is taken");
        duty!("pte.set.mapcount", page.page().add_mapping());
        // Nobody read-modify-writes an empty entry, so a store is enough. Pairs with the Acquire in `Walk::get`.
        self.walk.entry(address).store(Pte::new(page.into_pfn(), bits).0, ord!("pte.set.release", Release));
    }

    /// Clears a present entry and gives its reference to the caller. A swap: a program may be setting accessed. Relaxed:
    /// the leaf lock orders it with whoever sets or clears, a grace period with whoever used the page through it.
    pub(super) fn clear(&self, address: u64, frames: &Frames) -> u32 {
        let pfn = Pte(self.walk.entry(address).swap(0, Ordering::Relaxed)).pfn();
        duty!("pte.clear.mapcount", frames.page(pfn).remove_mapping());
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
        let before = self.walk.leaf().lock.swap(0, ord!("leaf.unlock.release", Release));
        debug_assert_eq!(before, 1, "unlock of an unlocked leaf");
    }
}
