//! A fault on a known mapping: `mm/memory.c`.
//!
//! Owns: fault-around, read faults, private copies, upgrades of present entries; each in two forms that differ only in how they
//! lock. The speculative form returns [`Abort`] wherever the classic one would wait, allocate a table or report an error.

use super::MmInner;
use super::events::Event;
use super::leaf::{LeafLocked, Pte, Walk, leaf_range};
use super::page_table::{Missing, no_memory_for_a_table};
use super::vma::{VmFlags, VmaCopy};
use crate::cache::filemap::{Answer, Blocked, Pass, Step, filemap_fault};
use crate::cache::{Abort, HeldPage, VmFault};
use crate::cache::{alloc_page, put_after_grace_period};
use crate::cache::{filemap_fault_speculative, next_uptodate_page};
use crate::error::{Error, IoError};
use crate::page::{PAGE_SIZE, PageHandle, PageRef, Use};
use crate::rcu::{self, ReadSection};
use crate::sync::{duty, guard, in_order, operation, seeded};

/// One fault on one mapping (`struct vm_fault`).
pub(super) struct Fault<'m, 'a> {
    pub(super) mm: &'m MmInner,
    /// A copy: validated by the sequence, or taken under the lock.
    pub(super) vma: VmaCopy<'a>,
    /// Page-aligned.
    pub(super) address: u64,
    /// Page index in the file.
    pub(super) index: u64,
    pub(super) write: bool,
    /// Entries of file pages set so far: the credit, applied when the fault has succeeded.
    pub(super) published: u32,
}

/// How setting an entry ended.
#[derive(Debug)]
pub(super) enum Finish {
    Set,
    /// Another thread set it first.
    Twin,
}

/// How the leaf lock is taken.
#[derive(Clone, Copy)]
pub(super) enum Mode<'w, 's> {
    /// Waits, and makes the tables that are missing; the mmap lock is held.
    Classic(&'s ReadSection),
    /// Tries the lock of the leaf that was found once, and checks the sequence before and after.
    Speculative { walk: &'w Walk<'s>, sequence: u64 },
}

impl<'m> Fault<'m, '_> {
    fn may_fault_around(&self) -> bool {
        self.mm.options.fault_around_bytes > PAGE_SIZE as u64
    }

    /// `__pte_map_lock`. Why the last check suffices: any writer that moves this entry bumps the sequence, then takes this lock.
    /// Either our critical section comes first and the writer clears what we set, or the writer's comes first, and then its bump
    /// is ordered before our lock and the check fails.
    #[inline]
    pub(super) fn pte_map_lock<'s>(&self, mode: Mode<'_, 's>) -> Result<LeafLocked<'s>, Abort>
    where
        'm: 's,
    {
        let (walk, sequence) = match mode {
            Mode::Classic(section) => {
                return self.mm.tables.lock_alloc(self.address, section).map_err(|_no_memory| Abort::Pmd);
            }
            Mode::Speculative { walk, sequence } => (walk, sequence),
        };
        if !guard!("pte_map_lock.seq1", self.mm.lock.sequence.read_check(sequence)) {
            return Err(Abort::PteMapLockSeq1);
        }
        let Some(locked) = walk.try_lock() else { return Err(Abort::PteMapLockPtl) };
        // Emptying a leaf, in reclaim for example, takes it out of the tree under its lock and does not change the sequence.
        if !guard!("pte_map_lock.pmd", walk.is_current()) {
            return Err(Abort::PteMapLockPmd);
        }
        if !guard!("pte_map_lock.seq2", self.mm.lock.sequence.read_check(sequence)) {
            return Err(Abort::PteMapLockSeq2);
        }
        Ok(locked)
    }

    /// Sets the entry unless another thread has (`finish_fault`).
    #[inline(always)]
    fn finish_fault(&mut self, mode: Mode<'_, '_>, page: PageHandle<'_>, bits: u64) -> Result<Finish, Abort> {
        let locked = self.pte_map_lock(mode).inspect_err(|_| {
            // Where the patch series credits, the attempt may still abort: then the fault is credited twice.
            seeded!("finish_fault.seed.credited_early", bug = self.credit_early());
        })?;
        let finish = if guard!("finish_fault.pte_none", locked.get(self.address).is_none()) {
            locked.set(self.address, page, bits | Pte::ACCESSED);
            self.published += 1;
            Finish::Set
        } else {
            Finish::Twin
        };
        if let Mode::Speculative { .. } = mode {
            self.mm.count(Event::SpfCommit);
        }
        Ok(finish)
    }

    /// Maps the page that was found. Its lock keeps it in the cache until the entry is set. The lookup's reference becomes the
    /// entry's (or is put if another thread was first, or on an abort: under its lock the page stays in the cache, which has
    /// another reference).
    #[inline]
    pub(super) fn map_page(&mut self, mode: Mode<'_, '_>, found: HeldPage<'_>) -> Result<Finish, Abort> {
        let HeldPage { lock, handle } = found;
        let finish;
        in_order!("finish_fault.unlock_last", finish = self.finish_fault(mode, handle, 0), drop(lock));
        finish
    }

    /// Maps a private copy of the page that was found, which is unlocked and then put at the end, whatever happens.
    #[inline]
    fn map_copy(
        &mut self,
        mode: Mode<'_, '_>,
        found: HeldPage<'_>,
        copy: PageHandle<'_>,
    ) -> Result<Finish, Abort> {
        let (source, filled) = (found.handle.page().bytes(), copy.page().bytes());
        let finish;
        in_order!(
            "do_cow.copy_first",
            filled.copy_from(source),
            finish = self.finish_fault(mode, copy, Pte::PRIVATE | Pte::WRITE)
        );
        drop(found);
        finish
    }

    /// Maps every page around the fault that is ready (`do_fault_around`, `filemap_map_pages`). Returns whether the faulting
    /// address was among them.
    fn map_pages(&mut self, mode: Mode<'_, '_>, section: &ReadSection) -> Result<bool, Abort> {
        operation!("fault-around");
        let mapping = &self.vma.file().mapping;
        let around = self.mm.options.fault_around_bytes;
        let leaf = leaf_range(self.address);
        let mut start = self.address & around.wrapping_neg();
        duty!("map_pages.seed.below_vma", start = start.max(self.vma.start));
        duty!("map_pages.seed.below_table", start = start.max(leaf.0));
        // Counted from where the window begins: if its front is cut off, it reaches beyond the aligned boundary.
        let mut end = start + around;
        duty!("map_pages.seed.beyond_vma", end = end.min(self.vma.end));
        duty!("map_pages.seed.beyond_table", end = end.min(leaf.1));
        // The end of the file is read once, before the lookup: it may move meanwhile, and each page is checked again under its
        // lock.
        let beyond = self.vma.index_at(end).min(mapping.pages_in_file());
        let mut next = self.vma.index_at(start);
        if beyond <= next {
            return Ok(false);
        }
        let last = beyond - 1;
        let Some(mut ready) = next_uptodate_page(mapping, &mut next, last, section) else {
            return Ok(false);
        };
        let locked = self.pte_map_lock(mode)?;
        let mut mapped = false;
        loop {
            let (index, held) = ready;
            let address = start + (index - self.vma.index_at(start)) * PAGE_SIZE as u64;
            if guard!("map_pages.pte_none", locked.get(address).is_none()) {
                let own = address == self.address;
                // The reference passes to the entry; the page lock keeps the page in the cache until it is released.
                in_order!(
                    "map_pages.unlock_last",
                    locked.set(address, held.handle, if own { Pte::ACCESSED } else { 0 }),
                    drop(held.lock)
                );
                self.published += 1;
                mapped |= own;
            }
            let until = seeded!(
                "map_pages.seed.eof_after_lookup",
                last,
                bug = self.vma.index_at(end).min(mapping.pages_in_file()) - 1
            );
            match next_uptodate_page(mapping, &mut next, until, section) {
                Some(page) => ready = page,
                None => break,
            }
        }
        if mapped && matches!(mode, Mode::Speculative { .. }) {
            self.mm.count(Event::SpfCommit);
        }
        Ok(mapped)
    }

    /// Everything after the mapping was copied and checked (`__handle_mm_fault`, speculatively).
    pub(super) fn handle_speculatively(
        &mut self,
        sequence: u64,
        section: &ReadSection,
    ) -> Result<VmFault, Abort> {
        let tables = &self.mm.tables;
        let walk = tables.walk(self.address, section).map_err(|missing| match missing {
            Missing::Upper(_) => Abort::Pud,
            Missing::Leaf => Abort::Pmd,
        })?;
        let mode = Mode::Speculative { walk: &walk, sequence };
        let seen = walk.get(self.address);
        if !seen.is_none() {
            return self.upgrade_speculatively(seen, mode);
        }
        let copy = if self.write { Some(self.private_frame_speculatively()?) } else { None };
        // The mapping was current at this instant, so its file outlives this section.
        if !guard!("do_fault.seq", self.mm.lock.sequence.read_check(sequence)) {
            return Err(Abort::Fault);
        }
        seeded!("spf.seed.section_lapses", bug = rcu::lapse());
        if copy.is_none() && self.may_fault_around() && self.map_pages(mode, section)? {
            return Ok(VmFault::NOPAGE);
        }
        let held = filemap_fault_speculative(&self.vma.file().mapping, self.index, section)?;
        let finish = match copy {
            Some(copy) => self.map_copy(mode, held, copy),
            None => self.map_page(mode, held),
        };
        Ok(match finish? {
            Finish::Set => VmFault::LOCKED,
            Finish::Twin => VmFault::LOCKED | VmFault::NOPAGE,
        })
    }

    fn private_frame_speculatively(&self) -> Result<PageHandle<'m>, Abort> {
        if !guard!("spf.anon_vma", self.vma.flags.has(VmFlags::ANON_VMA)) {
            return Err(Abort::AnonVma);
        }
        self.mm.shared.frames.try_alloc(Use::Private).ok_or(Abort::NoFrame)
    }

    /// The entry is present: another thread was faster, or a store meets a read-only entry (`do_wp_page`).
    fn upgrade_speculatively(&mut self, seen: Pte, mode: Mode<'_, '_>) -> Result<VmFault, Abort> {
        let copy = if self.needs_copy(seen) { Some(self.private_frame_speculatively()?) } else { None };
        let locked = self.pte_map_lock(mode)?;
        if !self.upgrade(&locked, seen, copy) {
            return Err(Abort::PteChanged);
        }
        self.mm.count(Event::SpfCommit);
        Ok(VmFault::NONE)
    }

    /// Whether a store to this entry makes a private copy of a file page: stores go to nothing else.
    fn needs_copy(&self, seen: Pte) -> bool {
        self.write && !seen.has(Pte::PRIVATE)
    }

    /// Gives a present entry the bits that the access needs. False if it has changed since it was seen.
    pub(super) fn upgrade(&self, locked: &LeafLocked<'_>, seen: Pte, copy: Option<PageHandle<'_>>) -> bool {
        let frames = &self.mm.shared.frames;
        let now = locked.get(self.address);
        let replaced;
        in_order!(
            "do_wp_page.copy_first",
            if let (Some(copy), true) = (&copy, now.is_same(seen)) {
                // Under the leaf lock the entry's reference keeps the page.
                copy.page().bytes().copy_from(frames.page(seen.pfn()).bytes());
            },
            replaced = self.replace(locked, seen, now, copy.as_ref().map(PageHandle::page))
        );
        if !replaced {
            return false;
        }
        if let Some(copy) = copy {
            duty!("do_wp_page.mapcount.new", copy.page().add_mapping());
            let _owned_by_the_entry = copy.into_pfn();
            let old = frames.page(seen.pfn());
            duty!("do_wp_page.mapcount.old", old.remove_mapping());
            put_after_grace_period(&self.mm.shared, seen.pfn());
        }
        true
    }

    /// Replaces an entry that is now `now` if it is still as it was `seen`.
    #[inline]
    fn replace(&self, locked: &LeafLocked<'_>, seen: Pte, mut now: Pte, copy: Option<PageRef<'_>>) -> bool {
        loop {
            if !guard!("do_wp_page.pte_same", now.is_same(seen)) {
                return false;
            }
            let next = match copy {
                Some(copy) => Pte::new(copy.pfn(), Pte::PRIVATE | Pte::WRITE | Pte::ACCESSED),
                None if self.write => now.with(Pte::WRITE | Pte::ACCESSED),
                None => now.with(Pte::ACCESSED),
            };
            match locked.replace(self.address, now, next) {
                Ok(()) => return true,
                // A program set the accessed or dirty bit meanwhile.
                Err(found) => now = found,
            }
        }
    }

    #[cfg(any(specmm_loom, specmm_shuttle))]
    fn credit_early(&self) {
        self.vma.file().credit_mmap_miss(1, self.vma.flags.pattern());
    }

    /// One classic pass. The mmap lock is held; the first pass does not wait for I/O or a page lock under it.
    pub(super) fn handle_classically(&mut self, pass: Pass) -> ClassicPass<'m> {
        let tables = &self.mm.tables;
        // Tables are made only once there is a page to map: a fault that fails leaves none behind.
        let seen = tables.walk(self.address, &rcu::read()).map(|walk| walk.get(self.address));
        match seen {
            Ok(seen) if !seen.is_none() => return self.upgrade_classically(seen),
            Ok(_) => {}
            Err(_) => tables.make_room(),
        }
        let mut copy = if self.write {
            self.vma.prepare_anon_vma();
            match alloc_page(&self.mm.shared, Use::Private) {
                Some(copy) => Some(copy),
                None => return ClassicPass { end: End::NoFrame, missed: false },
            }
        } else {
            None
        };
        if copy.is_none() && self.may_fault_around() {
            let section = rcu::read();
            // The classic form never aborts; without memory for a table the fault goes on and fails for that reason later.
            if self.map_pages(Mode::Classic(&section), &section).unwrap_or(false) {
                return ClassicPass::done(VmFault::NOPAGE);
            }
        }
        let Answer { step, missed } =
            filemap_fault(self.vma.file(), self.index, self.vma.flags.pattern(), pass);
        if missed {
            self.mm.count(Event::Pgmajfault);
        }
        let end = match step {
            Step::Locked(held) => {
                let section = rcu::read();
                let mode = Mode::Classic(&section);
                let finish = match copy.take() {
                    Some(copy) => self.map_copy(mode, held, copy),
                    None => self.map_page(mode, held),
                };
                match finish {
                    Ok(Finish::Set) => End::Done(VmFault::LOCKED),
                    Ok(Finish::Twin) => End::Done(VmFault::LOCKED | VmFault::NOPAGE),
                    Err(_no_table) => End::NoMemory(no_memory_for_a_table()),
                }
            }
            Step::Beyond(size) => End::Beyond(size),
            Step::Unreadable(error) => End::Unreadable(error),
            Step::NoMemory(error) => End::NoMemory(error),
            Step::Blocked(blocked) => End::Blocked(blocked, copy),
        };
        ClassicPass { end, missed }
    }

    fn upgrade_classically(&mut self, seen: Pte) -> ClassicPass<'m> {
        let copy = if self.needs_copy(seen) {
            self.vma.prepare_anon_vma();
            match alloc_page(&self.mm.shared, Use::Private) {
                Some(copy) => Some(copy),
                None => return ClassicPass { end: End::NoFrame, missed: false },
            }
        } else {
            None
        };
        let section = rcu::read();
        // Gone or changed meanwhile: the access is tried again and faults again if needed.
        if let Some(locked) = self.mm.tables.walk(self.address, &section).ok().and_then(|walk| walk.lock()) {
            self.upgrade(&locked, seen, copy);
        }
        ClassicPass::done(VmFault::NONE)
    }
}

/// The result of a classic pass.
pub(super) struct ClassicPass<'a> {
    pub(super) end: End<'a>,
    /// The page was looked up in the page cache and was absent.
    pub(super) missed: bool,
}

/// How a classic pass ended.
pub(super) enum End<'a> {
    /// With a result.
    Done(VmFault),
    /// With SIGBUS, because the file ends before the page, at this size.
    Beyond(u64),
    /// With SIGBUS, because the page cannot be read.
    Unreadable(IoError),
    /// No frame for a private copy, for now.
    NoFrame,
    /// With OOM: no memory for a page table or the index of the file.
    NoMemory(Error),
    /// Release the lock, wait, try again. The frame for a private copy is kept meanwhile, as in Linux.
    Blocked(Blocked, Option<PageHandle<'a>>),
}

impl ClassicPass<'_> {
    fn done(result: VmFault) -> Self {
        Self { end: End::Done(result), missed: false }
    }
}
