//! Four levels of tables from address to entry.
//!
//! Owns: the tables above the leaves, the set of leaves, and walks over them. Mirrors the page-table half of `mm/memory.c` and
//! `mm/pgtable-generic.c`. Tables hang in RCU cells, so a walk inside a read section touches only living ones.
//!
//! A table is in the tree only while it is not empty. The thread that clears the last entry of a leaf takes the leaf out, still
//! under its lock, and with it each table above that has become empty; reclaim and truncation do so too, without the mmap lock. A
//! thread that needs a table makes it. Both happen under the mutex of the tree (`page_table_lock`), and a new table is reachable
//! from the root at that moment: so a table that has left the tree stays empty forever, and a cell that points to a leaf is in
//! the tree. Tables are freed only through RCU.
//!
//! Each leaf has an entry, and each entry a page: so a cache can have more tables than frames only if pages are mapped many
//! times, or lie more than a GiB apart. Then leaves are reclaimed ([`PageTable::make_room`]).
//!
//! A premise of the sequence argument, maintained here: code that clears an entry because mappings changed bumps the sequence
//! first and takes the leaf lock of that entry.

use super::leaf::{
    Cell, FANOUT, Gauge, LEAF_SPAN, LEVEL_BITS, Leaf, LeafLocked, Pte, TABLE, Tables, Walk, leaf_range, slots,
};
use crate::cache::mark_accessed;
use crate::cache::{MmuGather, Shared};
use crate::error::{Error, Result};
use crate::page::{Batch, Frames, PAGE_SHIFT, PAGE_SIZE};
use crate::rcu::{self, Carried, ReadSection};
use crate::sync::{AtomicU64, Guess, Mutex, Ordering, guard, seeded};
use std::sync::Arc;

/// Where the address space ends (2^47).
pub(super) const TASK_SIZE: u64 =
    1 << (PAGE_SHIFT + LEVEL_BITS * 4 - if cfg!(any(specmm_loom, specmm_shuttle)) { 0 } else { 1 });

/// Bytes that one table occupies.
pub(super) const TABLE_BYTES: u64 = (FANOUT * 8) as u64;
/// Tables that an address space may have regardless of the others.
const OWN: u64 = 64;
/// How often that is tried where leaves hold private copies, which keep them in the tree.
const ROUNDS: usize = 8;

/// Which entries an unmapping clears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// All.
    Any,
    /// Entries of file pages; private copies stay.
    File,
}

/// A table whose slots point to tables of the level below.
struct Directory<T: Table> {
    slots: Box<[Cell<T>]>,
    gauge: Gauge,
}

type Pmd = Directory<Leaf>;
type Pud = Directory<Pmd>;
type Pgd = Directory<Pud>;

/// What the levels have in common.
trait Table: Send + Sync + Sized + 'static {
    /// Bytes that one table of this kind maps.
    const SPAN: u64;
    fn new(gauge: Gauge) -> Result<Self>;
    fn gauge(&self) -> &Gauge;
    /// Removes the empty tables on the path to the empty leaf of `address`; returns whether this table is empty then.
    fn prune(&self, address: u64, section: &ReadSection) -> bool;
    /// Audits everything below, at quiescence; returns the number of tables, including this one.
    fn audit(&self) -> std::result::Result<u64, String>;
}

impl Table for Leaf {
    const SPAN: u64 = LEAF_SPAN;
    fn new(gauge: Gauge) -> Result<Self> {
        Self::new(gauge)
    }
    fn gauge(&self) -> &Gauge {
        &self.gauge
    }
    fn prune(&self, _address: u64, _section: &ReadSection) -> bool {
        true
    }
    fn audit(&self) -> std::result::Result<u64, String> {
        self.audit().map(|()| 1)
    }
}

impl<T: Table> Table for Directory<T> {
    const SPAN: u64 = T::SPAN << LEVEL_BITS;
    fn new(gauge: Gauge) -> Result<Self> {
        Ok(Self { slots: slots(Cell::empty)?, gauge })
    }
    fn gauge(&self) -> &Gauge {
        &self.gauge
    }
    fn prune(&self, address: u64, section: &ReadSection) -> bool {
        let cell = self.cell(address);
        if let Some(below) = cell.load(section) {
            if below.prune(address, section) {
                seeded!("prune.seed.at_once", bug = below.gauge().life.kill());
                cell.clear();
            }
        }
        // Otherwise the tables of the other slots would be lost.
        guard!("prune.empty", self.slots.iter().all(|cell| cell.load(section).is_none()))
    }
    fn audit(&self) -> std::result::Result<u64, String> {
        let section = rcu::read();
        let below = self.slots.iter().filter_map(|cell| cell.load(&section));
        match below.map(|table| (**table).audit()).sum::<std::result::Result<u64, _>>()? {
            0 => Err("a page table that names nothing is in the tree".into()),
            tables => Ok(tables + 1),
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
        self.cell(address)
            .load(section)
            .map(|table| &**table)
            .inspect(|table| table.gauge().life.assert_alive())
    }

    /// The table below, made if it is missing. The caller holds the mutex of the tree.
    fn populate<'s>(&'s self, address: u64, section: &'s ReadSection) -> Result<&'s T> {
        let cell = self.cell(address);
        if let Some(table) = cell.load(section) {
            return Ok(table);
        }
        let fresh = Carried::new(T::new(Gauge::new(&self.gauge.tables, 1))?);
        Ok(cell.load_or_insert(section, || fresh))
    }
}

/// The error of a fault that finds no memory for a table.
#[cold]
pub(super) fn no_memory_for_a_table() -> Error {
    Error::out_of_memory(TABLE, TABLE_BYTES as usize)
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
    /// Held while tables enter or leave the tree (`page_table_lock`). Taken under a leaf's lock; nothing is taken under it.
    populating: Mutex<()>,
    /// Where the next search for leaves to reclaim begins.
    hand: AtomicU64,
    shared: Arc<Shared>,
    tables: Arc<Tables>,
}

impl PageTable {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self> {
        let tables = Arc::new(Tables { own: Guess::new(), all: Arc::clone(&shared.page_tables) });
        let root = Pgd::new(Gauge::new(&tables, 0))?;
        Ok(Self { root, populating: Mutex::new(()), hand: AtomicU64::new(0), shared, tables })
    }

    pub(super) fn frames(&self) -> &Frames {
        &self.shared.frames
    }

    /// Bytes that the tables occupy.
    pub(super) fn bytes(&self) -> u64 {
        (1 + self.tables.own.get()) * TABLE_BYTES
    }

    /// Walks to the leaf of `address` without allocating.
    #[inline]
    pub(super) fn walk<'s>(
        &'s self,
        address: u64,
        section: &'s ReadSection,
    ) -> std::result::Result<Walk<'s>, Missing> {
        let beyond = |span: u64| Missing::Upper(address - address % span + span);
        let pud = self.root.walk(address, section).ok_or_else(|| beyond(Pud::SPAN))?;
        let pmd = pud.walk(address, section).ok_or_else(|| beyond(Pmd::SPAN))?;
        let leaf = pmd.walk(address, section).ok_or(Missing::Leaf)?;
        Ok(Walk::new(leaf, (pmd.cell(address), pmd.gauge.life), address, section))
    }

    /// As [`PageTable::walk`], making the tables that are missing (`pte_alloc`).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn walk_alloc<'s>(&'s self, address: u64, section: &'s ReadSection) -> Result<Walk<'s>> {
        if let Ok(walk) = self.walk(address, section) {
            return Ok(walk);
        }
        // From the root once more: with the mutex held, everything reachable from there stays.
        let _populating = seeded!("populate.seed.unlocked", Some(self.populating.lock()), bug = None);
        let populate = || {
            let pmd = self.root.populate(address, section)?.populate(address, section)?;
            let leaf = pmd.populate(address, section)?;
            Ok(Walk::new(leaf, (pmd.cell(address), pmd.gauge.life), address, section))
        };
        populate().inspect_err(|_| {
            // The tables that could be made are empty.
            self.root.prune(address, section);
        })
    }

    /// Locks the leaf of `address`, made if it is missing, for a caller that sets an entry in it if there is none.
    ///
    /// # Errors
    /// As [`PageTable::walk_alloc`].
    #[cold] // beside the speculative fault, into which this would be inlined
    pub(super) fn lock_alloc<'s>(&'s self, address: u64, section: &'s ReadSection) -> Result<LeafLocked<'s>> {
        loop {
            if let Some(locked) = self.walk_alloc(address, section)?.lock() {
                return Ok(locked);
            }
        }
    }

    /// Takes a leaf out of the tree after its last entry was cleared (`free_pgtables`).
    pub(super) fn unlink(&self, leaf: &LeafLocked<'_>) {
        let _populating = self.populating.lock();
        self.root.prune(leaf.walk.first, leaf.walk.section);
    }

    /// Clears the entries of `start..end`, passing their references to `gather` (`zap_page_range`). Needs no lock on the
    /// mappings: an entry that is zapped needlessly is set again by a fault.
    pub(super) fn zap(&self, start: u64, end: u64, owner: Owner, gather: &mut MmuGather<'_>) {
        let clear = |gather: &mut MmuGather<'_>, leaf: &LeafLocked<'_>, from: u64, to: u64| {
            let before = leaf.present();
            for address in (from..to).step_by(PAGE_SIZE) {
                let pte = leaf.get(address);
                if !pte.is_none() && guard!("zap.owner", owner == Owner::Any || !pte.has(Pte::PRIVATE)) {
                    // A page that was accessed counts as used when it is unmapped (`mark_page_accessed`).
                    if pte.has(Pte::ACCESSED) && !pte.has(Pte::PRIVATE) {
                        mark_accessed(&self.shared, self.frames().page(pte.pfn()));
                    }
                    gather.take(leaf.clear(address, self.frames()));
                }
            }
            // A leaf that had no entry from the start is about to get one.
            if before > 0 && guard!("zap.empty", leaf.present() == 0) {
                seeded!(
                    "zap.seed.unlinks_late",
                    self.unlink(leaf),
                    bug = leaf.while_unlocked(|| self.unlink(leaf))
                );
            }
        };
        let room = |gather: &mut MmuGather<'_>, pages| gather.make_room(pages);
        self.for_each_part(start, end, gather, room, |gather, walk, from, to| {
            seeded!(
                "zap.seed.skips_the_lock",
                walk.lock().inspect(|leaf| clear(gather, leaf, from, to)).is_some(),
                bug = {
                    walk.as_if_locked(|leaf| clear(gather, leaf, from, to));
                    true
                }
            )
        });
    }

    /// Makes the entries of `start..end` read-only (`change_protection`).
    pub(super) fn write_protect(&self, start: u64, end: u64, gather: &mut MmuGather<'_>) {
        let protect = |gather: &mut MmuGather<'_>, leaf: &LeafLocked<'_>, from: u64, to: u64| {
            for address in (from..to).step_by(PAGE_SIZE) {
                let mut pte = leaf.get(address);
                while pte.has(Pte::WRITE) {
                    match leaf.replace(address, pte, pte.without(Pte::WRITE)) {
                        Ok(()) => {
                            gather.note_change();
                            break;
                        }
                        Err(found) => pte = found,
                    }
                }
            }
        };
        self.for_each_part(
            start,
            end,
            gather,
            |_, pages| pages,
            |gather, walk, from, to| walk.lock().inspect(|leaf| protect(gather, leaf, from, to)).is_some(),
        );
    }

    /// Clears the accessed bits in the entries of file pages in `start..end`; returns how many were set (`ptep_clear_young`).
    /// Nothing is flushed: an access that goes unnoticed costs the page its second chance.
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

    /// Visits the leaves of `start..end`, each with the part of the range that it covers.
    pub(super) fn for_each_leaf(&self, start: u64, end: u64, mut visit: impl FnMut(&Walk<'_>, u64, u64)) {
        self.for_each_part(
            start,
            end,
            &mut (),
            |(), pages| pages,
            |(), walk, from, to| {
                visit(walk, from, to);
                true
            },
        );
    }

    /// The same in parts of at most as many pages as `room` returns, which is called outside any section with the number wanted.
    /// A leaf for which `visit` returns false has left the tree: its addresses are walked to again.
    fn for_each_part<C>(
        &self,
        start: u64,
        end: u64,
        context: &mut C,
        room: impl Fn(&mut C, usize) -> usize,
        mut visit: impl FnMut(&mut C, &Walk<'_>, u64, u64) -> bool,
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
                    if visit(context, &walk, at, to) {
                        most = None;
                        at = to;
                    }
                }
                Err(Missing::Leaf) => at = leaf_range(at).1,
                Err(Missing::Upper(beyond)) => at = beyond,
            }
        }
    }

    /// Before a fault makes tables: if the cache has more of them than frames, and this address space more than a few, some
    /// leaves are reclaimed here, in turn, with the entries of file pages that they hold. Those pages are mapped again at the
    /// next access. Not to be called inside a read section.
    pub(super) fn make_room(&self) {
        for _ in 0..ROUNDS {
            if self.tables.own.get() < OWN || self.tables.all.get() < self.frames().capacity() as u64 {
                return;
            }
            let start = self.hand.load(Ordering::Relaxed);
            let mut gather = MmuGather::new(self.frames());
            for at in self.leaves_from(start) {
                self.zap(at, at + LEAF_SPAN, Owner::File, &mut gather);
                self.hand.store(at + LEAF_SPAN, Ordering::Relaxed);
            }
            gather.finish();
        }
    }

    /// The first addresses of the next leaves from `start` on, wrapping at the end.
    fn leaves_from(&self, start: u64) -> Batch<u64> {
        let mut found = Batch::new();
        for (from, to) in [(start, TASK_SIZE), (0, start)] {
            let mut at = from;
            while at < to && found.len() < Batch::<u64>::MOST {
                let section = rcu::read();
                at = match self.walk(at, &section) {
                    Ok(walk) => {
                        found.push(walk.first);
                        walk.first + LEAF_SPAN
                    }
                    Err(Missing::Leaf) => leaf_range(at).1,
                    Err(Missing::Upper(beyond)) => beyond,
                };
            }
        }
        found
    }

    /// Audits the tables at quiescence: none is empty, and their number equals the count. Returns how many there are below the
    /// root.
    pub(super) fn audit(&self) -> std::result::Result<u64, String> {
        let section = rcu::read();
        let below = self.root.slots.iter().filter_map(|cell| cell.load(&section));
        let tables = below.map(|table| (**table).audit()).sum::<std::result::Result<u64, _>>()?;
        let counted = self.tables.own.get();
        if tables == counted {
            Ok(tables)
        } else {
            Err(format!("an address space has {tables} page tables, {counted} by its count"))
        }
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        // Every mapping is gone, and unmapping it has cleared its entries.
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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
