//! Reads that may have to wait: `generic_file_buffered_read` of Linux 5.12.
//!
//! Owns: the steps of a read that is not a hit, page by page: examining the store, bringing in the page, copying. Does not own
//! the copy itself (`copy_out`), readahead (`readahead`), nor the wait for bytes (`arrival`). Holds a reference to the page that
//! it copies, and no lock.

use super::accessed;
use super::address_space::index_of;
use super::again::read_again;
use super::arrival::bring;
use super::coherence::{self, TRIES};
use super::copy_out::{CopyOut, copy_held};
use super::creation::{FoundOrCreated, find_or_create_waiting};
use super::direct_read::read_twice;
use super::one_version::{self, OneVersion, Verdict};
use super::open_file::OpenFile;
use super::readahead::{page_cache_async_ra, page_cache_sync_ra};
use super::stats::Stat;
use super::wait::NotRead;
use crate::error::{Error, Result};
use crate::page::{Out, PAGE_SIZE, PageFlags, PageHandle};
use crate::sync::{operation, yield_now};
use std::sync::Arc;

/// Reads into `out` from `offset` on; short only at the end of the file.
pub(super) fn buffered_read(open: &Arc<OpenFile>, mut out: Out<'_>, offset: u64) -> Result<usize> {
    operation!("read");
    let mapping = &open.mapping;
    let room = out.len();
    // A single page is of one version, if it can be read at all.
    if room <= PAGE_SIZE - (offset % PAGE_SIZE as u64) as usize {
        coherence::settle(mapping, false)?;
        for _ in 0..TRIES {
            if let Some(n) = try_read(open, out.part(0..room), offset, None)? {
                return Ok(n);
            }
        }
    }
    let mut call = one_version::one_version(mapping)?;
    loop {
        let read = try_read(open, out.part(0..room), offset, Some(&call))?;
        let read = match one_version::judge(mapping, &mut call, read.is_some())? {
            Verdict::OneVersion => read,
            Verdict::Again => None,
            Verdict::ReadTwice => read_twice(open, &mut call, &[offset], room, out.part(0..room))?,
        };
        if let Some(n) = read {
            return Ok(n);
        }
    }
}

/// One attempt at a read; None if the file changed meanwhile. If the call must be of one version, the attempt ends as soon as a
/// change is found.
pub(super) fn try_read(
    open: &Arc<OpenFile>,
    mut out: Out<'_>,
    offset: u64,
    call: Option<&OneVersion>,
) -> Result<Option<usize>> {
    operation!("read");
    let mapping = &open.mapping;
    let room = out.len();
    let wanted = |size: u64| usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(room);
    let moved = || call.is_some_and(|call| !one_version::is_current(mapping, call));
    let (mut done, mut looked) = (0, false);
    loop {
        // The size may change between pages; nothing past it is read.
        let size = mapping.i_size();
        let n = wanted(size);
        if done >= n {
            break;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_SIZE as u64) as usize;
        let step = (n - done).min(PAGE_SIZE - within);
        let index = index_of(at);
        let rest = index_of(offset + n as u64 - 1) - index + 1;
        let mut found = mapping.find_get_page(index, &crate::rcu::read());
        if !looked && !found.as_ref().is_some_and(is_at_hand) {
            looked = true;
            coherence::follow_changes(mapping)?;
            if moved() {
                return Ok(None);
            }
            found = found.filter(|found| found.page().is_at(mapping.id(), index));
        }
        // The reference prevents reclaim from taking the page before it is copied, however small the cache.
        let held = match make_uptodate(open, index, rest, found) {
            Ok(Some(handle)) => handle,
            Ok(None) => continue,
            Err(Error::Io(error)) if error.is_change() => {
                coherence::follow_changes(mapping)?;
                return Ok(None);
            }
            // The file was made shorter by others: retry with the new size.
            Err(Error::Io(error)) if error.is_short_read() => {
                if coherence::revalidate(mapping, false)? == size {
                    return Err(Error::Io(error));
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        if moved() {
            return Ok(None);
        }
        // Without a copy, the page or the size has changed meanwhile: retry with the new size.
        let part = out.part(done..done + step);
        if let CopyOut::Copied(copied) = copy_held(mapping, held.page(), at, part) {
            accessed::touch(&mapping.shared, copied.page);
            done += step;
            open.set_prev_pos(offset + done as u64);
        } else {
            mapping.shared.count(Stat::Retries, 1);
            // Otherwise a model would keep reading the same stale slot.
            if cfg!(specmm_loom) {
                yield_now();
            }
        }
    }
    Ok(Some(done))
}

/// Whether a page can be read without the store.
pub(super) fn is_at_hand(found: &PageHandle<'_>) -> bool {
    let flags = found.page().flags();
    flags.has(PageFlags::UPTODATE) && !flags.has(PageFlags::READAHEAD)
}

/// Brings the page at `index` into the cache. `found` is the result of the caller's look-up; `rest` is the number of pages wanted
/// from `index` on. None if the page was truncated meanwhile.
pub(super) fn make_uptodate<'f>(
    open: &'f Arc<OpenFile>,
    index: u64,
    rest: u64,
    found: Option<PageHandle<'f>>,
) -> Result<Option<PageHandle<'f>>> {
    let mapping = &open.mapping;
    let missed = found.is_none();
    let handle = match found.or_else(|| page_cache_sync_ra(open, index, rest)) {
        Some(handle) => handle,
        None => match find_or_create_waiting(mapping, index, Some(&open.closed))? {
            FoundOrCreated::Page(handle) => handle,
            // The caller checks the size again.
            FoundOrCreated::Beyond(_) => return Ok(None),
            FoundOrCreated::NoMemory(error) => return Err(error),
            FoundOrCreated::NoFrame | FoundOrCreated::Unstable => {
                let page = format!("page {index} of {}", mapping.name.to_string_lossy());
                return Err(mapping.shared.out_of_frames(page));
            }
        },
    };
    let page = handle.page();
    if page.flags().has(PageFlags::READAHEAD) {
        page_cache_async_ra(open, page, index, rest);
    }
    if page.flags().has(PageFlags::UPTODATE) {
        mapping.shared.count(if missed { Stat::Misses } else { Stat::Hits }, 1);
        coherence::catch_up(mapping)?;
        return Ok(Some(handle));
    }
    mapping.shared.count(Stat::Misses, 1);
    read_again(open, index);
    match bring(mapping, page, index, Some(&open.closed)) {
        Ok(true) => {
            coherence::catch_up(mapping)?;
            Ok(Some(handle))
        }
        // Truncated during the wait; the caller will notice.
        Ok(false) => Ok(None),
        Err(NotRead::Failed(error)) => Err(Error::Io(error)),
        Err(NotRead::Left(error)) => Err(error),
    }
}
