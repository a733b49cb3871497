//! The page-cache half of a classic fault: `filemap_fault`.
//!
//! Owns: one pass, from the look-up to the locked page, and the wait between two passes. Does not own page tables, nor the
//! speculative form (`speculation`). Mirrors `filemap_fault` of Linux 5.12.
//!
//! It never waits while the caller holds a lock that it may drop: it returns `Step::Blocked`; the caller drops its lock, waits in
//! [`unblock`], and tries again with [`Pass::Tried`].

use super::address_space::{AddressSpace, HeldPage};
use super::arrival::bring;
use super::coherence;
use super::creation::{FoundOrCreated, find_or_create, find_or_create_waiting};
use super::fill::read_page;
use super::open_file::{MMAP_LOTSAMISS, OpenFile};
use super::readahead::{page_cache_async_ra, page_cache_sync_ra, read_around};
use super::wait::NotRead;
use crate::error::{Error, IoError};
use crate::page::{PageFlags, PageHandle};
use crate::sync::{guard, operation};
use std::sync::Arc;

pub use super::advice::Pattern;

/// Whether the caller may still drop its lock to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The first pass: it never waits under the caller's lock.
    First,
    /// A later pass, after `Step::Blocked` (`FAULT_FLAG_TRIED`): it waits in place.
    Tried,
}

/// The outcome of a classic pass.
#[derive(Debug)]
pub(crate) enum Step<'f> {
    /// The page, locked, up to date and within the file.
    Locked(HeldPage<'f>),
    /// The file ends before the page, at this size.
    Beyond(u64),
    /// The page cannot be read.
    Unreadable(IoError),
    /// No memory for the file's index.
    NoMemory(Error),
    /// The caller must wait for something first.
    Blocked(Blocked),
}

/// What a pass must wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Blocked {
    /// Reading the window that a marker announces, then the page.
    AsyncReadahead,
    /// Sequential readahead or reading the window around the fault, then the page.
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

/// The result of a classic pass.
#[derive(Debug)]
pub(crate) struct Answer<'f> {
    pub(crate) step: Step<'f>,
    /// The page was absent (`PGMAJFAULT`).
    pub(crate) missed: bool,
}

/// One pass of the classic `filemap_fault`.
pub(crate) fn filemap_fault(open: &Arc<OpenFile>, index: u64, pattern: Pattern, pass: Pass) -> Answer<'_> {
    operation!("classic fault");
    let mapping = &open.mapping;
    let answer = |step, missed| Answer { step, missed };
    if let Some(size) = mapping.ends_before(index) {
        return answer(Step::Beyond(size), false);
    }
    let mut missed = false;
    let found = mapping.find_get_page(index, &crate::rcu::read());
    match found {
        Some(handle) if pass == Pass::First && announces_window(open, &handle, pattern) => {
            return answer(Step::Blocked(Blocked::AsyncReadahead), false);
        }
        Some(_) => {}
        None => {
            missed = true;
            match (sync_mmap_readahead(open, pattern, pass), pass) {
                (Some(around), Pass::First) => {
                    return answer(Step::Blocked(Blocked::SyncReadahead(around)), true);
                }
                (Some(around), Pass::Tried) => read_sync(open, index, around),
                (None, _) => {}
            }
        }
    }
    let step = match pass {
        // A wait for a store that may stall can be given up only while the caller holds no lock.
        Pass::Tried if !mapping.read_by.may_stall() => hold_waiting(open, index, found),
        Pass::First | Pass::Tried => hold_without_waiting(open, index, found),
    };
    answer(step, missed)
}

fn announces_window(open: &OpenFile, handle: &PageHandle<'_>, pattern: Pattern) -> bool {
    pattern != Pattern::Random && open.ra_pages() != 0 && handle.page().flags().has(PageFlags::READAHEAD)
}

/// Decides on readahead for a miss and debits the miss (`do_sync_mmap_readahead`).
fn sync_mmap_readahead(open: &OpenFile, pattern: Pattern, pass: Pass) -> Option<Around> {
    if pattern == Pattern::Random || open.ra_pages() == 0 {
        return None;
    }
    if pattern == Pattern::Sequential {
        return Some(Around::Sequential);
    }
    // One debit per fault: a later pass has already paid.
    let misses = match pass {
        Pass::First => open.debit_mmap_miss(),
        Pass::Tried => open.misses(),
    };
    (misses <= MMAP_LOTSAMISS).then_some(Around::Window)
}

fn read_sync(open: &Arc<OpenFile>, index: u64, around: Around) {
    match around {
        Around::Sequential => drop(page_cache_sync_ra(open, index, open.ra_pages())),
        Around::Window => read_around(open, index),
    }
}

/// First pass: the page, if that is possible without waiting; `found` is the result of the look-up.
pub(super) fn hold_without_waiting<'f>(
    open: &'f OpenFile,
    index: u64,
    mut found: Option<PageHandle<'f>>,
) -> Step<'f> {
    operation!("classic fault");
    let mapping = &open.mapping;
    loop {
        let handle = match take_or_create(mapping, index, found.take()) {
            Ok(handle) => handle,
            Err(step) => return step,
        };
        let Some(lock) = handle.page().try_lock() else { return Step::Blocked(Blocked::Page) };
        let held = HeldPage { lock, handle };
        if !mapping.is_mine(&held, index) {
            continue;
        }
        if !guard!("filemap.classic.uptodate", held.handle.page().flags().has(PageFlags::UPTODATE)) {
            return Step::Blocked(Blocked::Page);
        }
        return within_file(open, held, index);
    }
}

/// Later passes: waits here for the page and its bytes; `found` is the result of the look-up.
pub(super) fn hold_waiting<'f>(
    open: &'f OpenFile,
    index: u64,
    mut found: Option<PageHandle<'f>>,
) -> Step<'f> {
    operation!("classic fault");
    let mapping = &open.mapping;
    loop {
        let handle = match take_or_create(mapping, index, found.take()) {
            Ok(handle) => handle,
            Err(step) => return step,
        };
        let held = HeldPage { lock: handle.page().lock(), handle };
        if !mapping.is_mine(&held, index) {
            continue;
        }
        if let Err(error) = read_page(mapping, &held.lock, index) {
            return Step::Unreadable(error);
        }
        return within_file(open, held, index);
    }
}

/// The page that the look-up found, or a new one; otherwise how the pass ends.
fn take_or_create<'f>(
    mapping: &'f AddressSpace,
    index: u64,
    found: Option<PageHandle<'f>>,
) -> Result<PageHandle<'f>, Step<'f>> {
    match found.map_or_else(|| find_or_create(mapping, index), FoundOrCreated::Page) {
        FoundOrCreated::Page(handle) => Ok(handle),
        FoundOrCreated::Beyond(size) => Err(Step::Beyond(size)),
        FoundOrCreated::NoMemory(error) => Err(Step::NoMemory(error)),
        // A frame, or the end of a truncation, is waited for once the caller has dropped its lock.
        FoundOrCreated::NoFrame | FoundOrCreated::Unstable => Err(Step::Blocked(Blocked::Page)),
    }
}

/// Checks the size again under the page lock: truncation changes the size before it takes page locks.
fn within_file<'f>(open: &OpenFile, held: HeldPage<'f>, index: u64) -> Step<'f> {
    let end = open.mapping.ends_before(index);
    if guard!("filemap.classic.eof", end.is_none()) {
        Step::Locked(held)
    } else {
        Step::Beyond(end.unwrap_or_default())
    }
}

/// Waits for what blocked a pass; the caller has dropped its lock. False if there was no frame.
///
/// Errors of the store are left to the next pass, which reads again. If that pass must not wait, because the store may stall, the
/// `unblock` after it reports them.
pub(crate) fn unblock(
    open: &Arc<OpenFile>,
    index: u64,
    blocked: Blocked,
    pass: Pass,
) -> Result<bool, NotRead> {
    // If the store cannot be examined, reading it fails too, and the next pass gets the error.
    let _met_again = coherence::follow_changes(&open.mapping);
    match blocked {
        Blocked::AsyncReadahead => {
            let found = open.mapping.find_get_page(index, &crate::rcu::read());
            if let Some(handle) = found {
                page_cache_async_ra(open, handle.page(), index, open.ra_pages());
            }
        }
        Blocked::SyncReadahead(around) => read_sync(open, index, around),
        Blocked::Page => {}
    }
    match find_or_create_waiting(&open.mapping, index, None).map_err(NotRead::Left)? {
        FoundOrCreated::Page(handle) => match bring(&open.mapping, handle.page(), index, None) {
            Err(NotRead::Failed(_)) if pass == Pass::First => Ok(true),
            Err(error) => Err(error),
            // A page that was truncated meanwhile need not be read.
            Ok(_) => {
                let _met_again = coherence::catch_up(&open.mapping);
                Ok(true)
            }
        },
        FoundOrCreated::Beyond(_) | FoundOrCreated::NoMemory(_) => Ok(true),
        FoundOrCreated::NoFrame | FoundOrCreated::Unstable => Ok(false),
    }
}
