//! The page-cache half of a fault: `filemap_fault`, speculative and classic.
//!
//! Owns: finding the page, locking it, judging whether it may be mapped. Does not own page tables. Mirrors
//! `filemap_fault` and `next_uptodate_page` of Linux 5.12 with the speculative series.
//!
//! The speculative form never sleeps, never allocates, starts no I/O and reports no error: it returns a locked page or
//! the cause to abort. The classic form never waits either while the caller holds a lock that it may drop: it returns
//! `Step::Blocked`, the caller drops its lock, lets `OpenFile::unblock` do the waiting, and comes again with
//! [`Pass::Tried`].

use super::Abort;
use super::address_space::{AddressSpace, Created, HeldPage, Lookup};
use super::coherence;
use super::file::OpenFile;
use super::patience::{NotRead, Wait};
use super::readahead::{MMAP_LOTSAMISS, MMAP_MISS_MAX};
use super::vmscan::wait_for_frame;
use crate::error::{Error, IoError};
use crate::page::{LockedPage, PageFlags, PageHandle, PageRef};
use crate::rcu::ReadSection;
use crate::sync::{Ordering, give_back, guard, seeded};
use std::sync::Arc;

/// What the mapping says about its access pattern (`VM_RAND_READ`, `VM_SEQ_READ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pattern {
    /// Nothing.
    #[default]
    Normal,
    /// No readahead.
    Random,
    /// Readahead from the fault on, and no miss accounting.
    Sequential,
}

/// Whether the caller may still drop its lock to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The first time: nothing waits under the caller's lock.
    First,
    /// Come again after `Step::Blocked` (`FAULT_FLAG_TRIED`): waits where it is.
    Tried,
}

/// What a classic pass came to.
#[derive(Debug)]
pub(crate) enum Step<'f> {
    /// The page, locked, up to date, within the file.
    Locked(HeldPage<'f>),
    /// The file ends before the page, at this size.
    Beyond(u64),
    /// The page cannot be read.
    Unreadable(IoError),
    /// No memory for the index of the file.
    NoMemory(Error),
    /// Something must be waited for first.
    Blocked(Blocked),
}

/// What must be waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Blocked {
    /// The window that a marker announces, then the page.
    AsyncReadahead,
    /// Sequential readahead or the window around the fault, then the page.
    SyncReadahead(Around),
    /// The page's lock or its bytes.
    Page,
}

/// The readahead that a miss asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Around {
    Sequential,
    Window,
}

/// The answer of a classic pass.
#[derive(Debug)]
pub(crate) struct Answer<'f> {
    pub(crate) step: Step<'f>,
    /// The page was absent (`PGMAJFAULT`).
    pub(crate) missed: bool,
}

impl AddressSpace {
    /// Speculative `filemap_fault`: the page locked and with a reference, or the cause to abort. Every abort gives back
    /// what was taken (the series as posted leaked the reference).
    #[inline]
    pub(crate) fn filemap_fault_speculative(
        &self,
        index: u64,
        section: &ReadSection,
    ) -> Result<HeldPage<'_>, Abort> {
        // 1. A count of zero or a changed slot is as good as absent here: only the locked path may wait it out.
        let Lookup::Found(handle) = self.find_get_page_once(index, section) else {
            return Err(Abort::FileMiss);
        };
        self.hold(handle, index)
    }

    /// What follows the look-up of a speculative fault.
    #[inline]
    pub(super) fn hold<'f>(&self, handle: PageHandle<'f>, index: u64) -> Result<HeldPage<'f>, Abort> {
        let page = handle.page();
        // 2. Left in place: the locked path must meet it and start the window.
        if !guard!("filemap.spec.readahead", !page.flags().has(PageFlags::READAHEAD)) {
            return Err(put_on_abort(handle, Abort::FileReadahead));
        }
        // 3 and 4. From here on truncation and reclaim wait for us: what is found stays true until unlock.
        let lock = seeded!(
            "filemap.seed.mapping_before_lock",
            self.look_and_lock(page, index),
            self.lock_and_look(page, index)
        );
        let lock = match lock {
            Ok(lock) => lock,
            Err(cause) => return Err(put_on_abort(handle, cause)),
        };
        // 5 and 6.
        let cause = if !guard!("filemap.spec.uptodate", page.flags().has(PageFlags::UPTODATE)) {
            Abort::FileNotUptodate
        } else if !guard!("filemap.spec.eof", index < self.pages_in_file()) {
            Abort::FileEof
        } else {
            return Ok(HeldPage { lock, handle });
        };
        give_back!("filemap.spec.unlock", lock);
        Err(put_on_abort(handle, cause))
    }

    /// Locks the page if it is still the one looked for.
    #[inline]
    fn lock_and_look<'f>(&self, page: PageRef<'f>, index: u64) -> Result<LockedPage<'f>, Abort> {
        let Some(lock) = page.try_lock() else { return Err(Abort::FileLocked) };
        if guard!("filemap.spec.mapping", page.is_at(self.id(), index)) {
            Ok(lock)
        } else {
            give_back!("filemap.spec.mapping.unlock", lock);
            Err(Abort::FileMapping)
        }
    }

    /// The wrong order, for models: truncation may come between.
    #[cfg(any(specmm_loom, specmm_shuttle))]
    fn look_and_lock<'f>(&self, page: PageRef<'f>, index: u64) -> Result<LockedPage<'f>, Abort> {
        if page.is_at(self.id(), index) {
            page.try_lock().ok_or(Abort::FileLocked)
        } else {
            Err(Abort::FileMapping)
        }
    }

    /// The first page in `*next..=last` that fault-around may map, locked and with a reference; `*next` moves past it
    /// (`next_uptodate_page`). Skips whatever is not ready.
    pub(crate) fn next_uptodate_page(
        &self,
        next: &mut u64,
        last: u64,
        section: &ReadSection,
    ) -> Option<(u64, HeldPage<'_>)> {
        while *next <= last {
            let index = *next;
            *next += 1;
            let Lookup::Found(handle) = self.find_get_page_once(index, section) else { continue };
            let page = handle.page();
            let flags = page.flags();
            // A page that is up to date stays so until it is freed, which our reference prevents: once is enough. The lock
            // is only tried where it looks free.
            if !guard!("filemap.around.uptodate", flags.has(PageFlags::UPTODATE))
                || !guard!("filemap.around.readahead", !flags.has(PageFlags::READAHEAD))
                || flags.has(PageFlags::LOCKED)
            {
                continue;
            }
            let Some(lock) = page.try_lock() else { continue };
            let held = HeldPage { lock, handle };
            if guard!("filemap.around.mapping", page.is_at(self.id(), index))
                && guard!("filemap.around.eof", index < self.pages_in_file())
            {
                return Some((index, held));
            }
        }
        None
    }

    /// Whether a locked page is still what was looked for.
    pub(super) fn is_mine(&self, held: &HeldPage<'_>, index: u64) -> bool {
        guard!("filemap.classic.mapping", held.lock.page().is_at(self.id(), index))
    }
}

/// Puts the reference of an attempt that aborts. The patch as posted did not.
fn put_on_abort(handle: PageHandle<'_>, cause: Abort) -> Abort {
    give_back!("filemap.spec.put", handle);
    cause
}

impl OpenFile {
    /// One pass of the classic `filemap_fault`.
    pub(crate) fn filemap_fault(self: &Arc<Self>, index: u64, pattern: Pattern, pass: Pass) -> Answer<'_> {
        let mapping = &self.mapping;
        let answer = |step, missed| Answer { step, missed };
        if let Some(size) = mapping.ends_before(index) {
            return answer(Step::Beyond(size), false);
        }
        let mut missed = false;
        let found = mapping.find_get_page(index, &crate::rcu::read());
        match found {
            Some(handle) if pass == Pass::First && self.announces_window(&handle, pattern) => {
                return answer(Step::Blocked(Blocked::AsyncReadahead), false);
            }
            Some(_) => {}
            None => {
                missed = true;
                match (self.sync_mmap_readahead(pattern, pass), pass) {
                    (Some(around), Pass::First) => {
                        return answer(Step::Blocked(Blocked::SyncReadahead(around)), true);
                    }
                    (Some(around), Pass::Tried) => self.read_sync(index, around),
                    (None, _) => {}
                }
            }
        }
        let step = match pass {
            // The wait for a store that may stall can be left only where the caller holds no lock.
            Pass::Tried if !mapping.read_by.may_stall() => self.hold_waiting(index, found),
            Pass::First | Pass::Tried => self.hold_without_waiting(index, found),
        };
        answer(step, missed)
    }

    fn announces_window(&self, handle: &PageHandle<'_>, pattern: Pattern) -> bool {
        pattern != Pattern::Random && self.ra_pages() != 0 && handle.page().flags().has(PageFlags::READAHEAD)
    }

    /// Decides about readahead for a miss and debits it (`do_sync_mmap_readahead`).
    fn sync_mmap_readahead(&self, pattern: Pattern, pass: Pass) -> Option<Around> {
        if pattern == Pattern::Random || self.ra_pages() == 0 {
            return None;
        }
        if pattern == Pattern::Sequential {
            return Some(Around::Sequential);
        }
        // One debit a fault: a pass that comes again has paid already.
        let misses = match pass {
            Pass::First => self.debit_mmap_miss(),
            Pass::Tried => self.mmap_miss.load(Ordering::Relaxed),
        };
        (misses <= MMAP_LOTSAMISS).then_some(Around::Window)
    }

    fn read_sync(self: &Arc<Self>, index: u64, around: Around) {
        match around {
            Around::Sequential => {
                self.page_cache_sync_ra(index, self.ra_pages());
            }
            Around::Window => self.read_around(index),
        }
    }

    /// First pass: the page if it can be had at once; `found` is what the look-up found.
    pub(super) fn hold_without_waiting<'f>(
        self: &'f Arc<Self>,
        index: u64,
        mut found: Option<PageHandle<'f>>,
    ) -> Step<'f> {
        let mapping = &self.mapping;
        loop {
            let handle = match found.take().map_or_else(|| self.find_or_create(index), FoundOrCreated::Page) {
                FoundOrCreated::Page(handle) => handle,
                FoundOrCreated::Beyond(size) => return Step::Beyond(size),
                FoundOrCreated::NoMemory(error) => return Step::NoMemory(error),
                // Without the caller's lock a frame may be waited for, or the end of a truncation.
                FoundOrCreated::NoFrame | FoundOrCreated::Unstable => return Step::Blocked(Blocked::Page),
            };
            let Some(lock) = handle.page().try_lock() else { return Step::Blocked(Blocked::Page) };
            let held = HeldPage { lock, handle };
            if !mapping.is_mine(&held, index) {
                continue;
            }
            if !guard!("filemap.classic.uptodate", held.handle.page().flags().has(PageFlags::UPTODATE)) {
                return Step::Blocked(Blocked::Page);
            }
            return self.within_file(held, index);
        }
    }

    /// Later passes: waits for the page and its bytes here; `found` is what the look-up found.
    pub(super) fn hold_waiting<'f>(
        self: &'f Arc<Self>,
        index: u64,
        mut found: Option<PageHandle<'f>>,
    ) -> Step<'f> {
        let mapping = &self.mapping;
        loop {
            let handle = match found.take().map_or_else(|| self.find_or_create(index), FoundOrCreated::Page) {
                FoundOrCreated::Page(handle) => handle,
                FoundOrCreated::Beyond(size) => return Step::Beyond(size),
                FoundOrCreated::NoMemory(error) => return Step::NoMemory(error),
                // What was waited for is gone again: once more.
                FoundOrCreated::NoFrame | FoundOrCreated::Unstable => return Step::Blocked(Blocked::Page),
            };
            let held = HeldPage { lock: handle.page().lock(), handle };
            if !mapping.is_mine(&held, index) {
                continue;
            }
            if let Err(error) = super::fill::read_page(mapping, &held.lock, index) {
                return Step::Unreadable(error);
            }
            return self.within_file(held, index);
        }
    }

    /// The size once more, under the page lock: truncation changes it before it takes page locks.
    fn within_file<'f>(&self, held: HeldPage<'f>, index: u64) -> Step<'f> {
        let end = self.mapping.ends_before(index);
        if guard!("filemap.classic.eof", end.is_none()) {
            Step::Locked(held)
        } else {
            Step::Beyond(end.unwrap_or_default())
        }
    }

    /// Finds the page or creates it, unlocked and not up to date (`pagecache_get_page` with `FGP_FOR_MMAP`).
    pub(super) fn find_or_create(self: &Arc<Self>, index: u64) -> FoundOrCreated<'_> {
        let mapping = &self.mapping;
        loop {
            if let Some(handle) = mapping.find_get_page(index, &crate::rcu::read()) {
                return FoundOrCreated::Page(handle);
            }
            let stable = seeded!("filemap.create.invalidate_lock", Some(None), mapping.stable().map(Some));
            let Some(_stable) = stable else { return FoundOrCreated::Unstable };
            if let Some(size) = seeded!("filemap.create.eof", None, mapping.ends_before(index)) {
                return FoundOrCreated::Beyond(size);
            }
            match mapping.add_page(index) {
                Created::New(HeldPage { lock, handle }) => {
                    drop(lock);
                    return FoundOrCreated::Page(handle);
                }
                Created::Exists => {}
                // Perhaps the last one went to this page, by another's hand.
                Created::NoFrame if mapping.peek(index, &crate::rcu::read()).is_some() => {}
                Created::NoFrame => return FoundOrCreated::NoFrame,
                Created::NoMemory(error) => return FoundOrCreated::NoMemory(error),
            }
        }
    }

    /// As [`OpenFile::find_or_create`], but waits for a frame when none can be freed; `NoFrame` when the wait was in vain. Where
    /// the store may stall, waits for a truncation too; `open` is the open file whose closing ends that.
    pub(super) fn find_or_create_waiting(
        self: &Arc<Self>,
        index: u64,
        open: Option<&Self>,
    ) -> Result<FoundOrCreated<'_>, Error> {
        loop {
            match self.find_or_create(index) {
                FoundOrCreated::NoFrame if wait_for_frame(&self.mapping.shared) => {}
                FoundOrCreated::Unstable => {
                    drop(Wait::new(&self.mapping, open).until(index, || self.mapping.stable())?);
                }
                other => return Ok(other),
            }
        }
    }

    /// Waits for what blocked a pass; the caller has dropped its lock. False if no frame could be had.
    ///
    /// Errors of the store are left for the next pass to meet, which reads once more; where that pass must not wait, because the
    /// store may stall, the unblocking that follows it tells them.
    pub(crate) fn unblock(
        self: &Arc<Self>,
        index: u64,
        blocked: Blocked,
        pass: Pass,
    ) -> Result<bool, NotRead> {
        // A file that cannot be looked at cannot be read either, which the next pass meets.
        let _met_again = coherence::follow_changes(&self.mapping);
        match blocked {
            Blocked::AsyncReadahead => {
                let found = self.mapping.find_get_page(index, &crate::rcu::read());
                if let Some(handle) = found {
                    self.page_cache_async_ra(handle.page(), index, self.ra_pages());
                }
            }
            Blocked::SyncReadahead(around) => self.read_sync(index, around),
            Blocked::Page => {}
        }
        match self.find_or_create_waiting(index, None).map_err(NotRead::Left)? {
            FoundOrCreated::Page(handle) => match self.mapping.bring(handle.page(), index, None) {
                Err(NotRead::Failed(_)) if pass == Pass::First => Ok(true),
                Err(error) => Err(error),
                // A page that was truncated meanwhile is not worth reading.
                Ok(_) => {
                    let _met_again = coherence::catch_up(&self.mapping);
                    Ok(true)
                }
            },
            FoundOrCreated::Beyond(_) | FoundOrCreated::NoMemory(_) => Ok(true),
            FoundOrCreated::NoFrame | FoundOrCreated::Unstable => Ok(false),
        }
    }

    /// One miss more, unless saturated; the value after. One compare-and-exchange that knows whether it moved.
    fn debit_mmap_miss(&self) -> u32 {
        let mut misses = self.mmap_miss.load_then_write(Ordering::Relaxed);
        while misses < MMAP_MISS_MAX {
            match self.mmap_miss.compare_exchange(misses, misses + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return misses + 1,
                Err(found) => misses = found,
            }
        }
        misses
    }

    /// `entries` hits, credited after they were published. A zero counter is not written.
    #[inline]
    pub(crate) fn credit_mmap_miss(&self, entries: u32, pattern: Pattern) {
        if pattern == Pattern::Random || self.ra_pages() == 0 {
            return;
        }
        let mut misses = self.mmap_miss.load_then_write(Ordering::Relaxed);
        while misses > 0 {
            let left = misses.saturating_sub(entries);
            match self.mmap_miss.compare_exchange(misses, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => misses = found,
            }
        }
    }
}

/// What [`OpenFile::find_or_create`] came to.
pub(super) enum FoundOrCreated<'f> {
    /// The page with a reference, unlocked.
    Page(PageHandle<'f>),
    /// The file ends before it, at this size.
    Beyond(u64),
    /// No frame is free.
    NoFrame,
    /// No memory for the index.
    NoMemory(Error),
    /// Somebody truncates the file, which is not waited for, because the store may stall.
    Unstable,
}
