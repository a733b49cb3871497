//! Filling locked pages with bytes from a store.
//!
//! Owns: the read of a store, the interpretation of its result, and how a run of pages is read in pieces (`in_flight`). Does not
//! own which thread does it (`io`) nor which pages are read (`readahead`). Mirrors `mpage_readahead` and its completion.
//!
//! The caller has locked the pages of a run; they are filled, marked up to date and unlocked. The first piece that fails ends the
//! run: the remaining pages stay in the cache, not up to date. The next reader requests them again (`again`), in the end a single
//! page, and gets the error.

use super::address_space::AddressSpace;
use super::requests::{Answer, Source};
use super::stats::Stat;
use crate::error::{IoError, ShortRead};
use crate::page::{Frames, LockedPage, PAGE_SIZE, PageFlags};
use crate::reserve;
use crate::store::ReadBy;
use crate::sync::{duty, guard, in_order, operation, seeded};
use std::io;
use std::sync::Arc;
use std::time::Instant;

impl Source for AddressSpace {
    fn id(&self) -> u64 {
        self.id()
    }

    fn read_by(&self) -> ReadBy {
        self.read_by
    }

    fn fill(&self, mut first: u64, pfns: Vec<u32>, answer: Option<Arc<Answer>>) {
        operation!("readahead");
        let mut locks = Locks { frames: self.frames(), pfns: pfns.into_iter() };
        if let Some(answer) = answer {
            for page in &mut locks {
                let read = read_page(self, &page, first);
                // A thread that sees the page unlocked expects the answer.
                in_order!("fill.answer_first", _ = answer.get_or_init(|| read), drop(page));
            }
            return;
        }
        // No thread waits for these bytes yet: one that needs them later reads again and gets the error.
        while locks.pfns.len() > 0 {
            let piece = self.shared.in_flight.buffer(locks.pfns.len() * PAGE_SIZE).and_then(|buffer| {
                let count = buffer.bytes.len() / PAGE_SIZE;
                Ok((reserve::vec(count, "a window")?, count, buffer))
            });
            let Ok((mut pages, count, mut buffer)) = piece else {
                // Reading page by page needs no memory. After an unreadable page, the others are left until they are needed.
                for page in &mut locks {
                    if read_page(self, &page, first).is_err() {
                        break;
                    }
                    first += 1;
                }
                return;
            };
            pages.extend(locks.by_ref().take(count));
            if read_run(self, &pages, first, &mut buffer.bytes).is_err() {
                // Unlock the last page first: a thread waiting for one then finds those after it unlocked, and can request them
                // together (`again`).
                drop(locks);
                while pages.pop().is_some() {}
                return;
            }
            first += count as u64;
        }
    }

    fn cancel(&self, pfns: Vec<u32>) {
        drop(Locks { frames: self.frames(), pfns: pfns.into_iter() });
    }
}

/// The locks of a run's pages; those not taken out are unlocked on drop.
struct Locks<'f> {
    frames: &'f Frames,
    pfns: std::vec::IntoIter<u32>,
}

impl<'f> Iterator for Locks<'f> {
    type Item = LockedPage<'f>;

    fn next(&mut self) -> Option<LockedPage<'f>> {
        self.pfns.next().map(|pfn| self.frames.page(pfn).adopt_lock())
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        while let Some(pfn) = self.pfns.next_back() {
            drop(self.frames.page(pfn).adopt_lock());
        }
    }
}

/// Whether a locked page still has to be read.
pub(super) fn is_unread(lock: &LockedPage<'_>) -> bool {
    guard!("read_page.not_uptodate", !lock.page().flags().has(PageFlags::UPTODATE))
}

/// Reads one locked page, unless another thread did so while the caller waited for the lock: bytes that are up to date are not
/// written again, because they may be being copied.
pub(super) fn read_page(mapping: &AddressSpace, page: &LockedPage<'_>, index: u64) -> Result<(), IoError> {
    operation!("read");
    if !is_unread(page) {
        return Ok(());
    }
    read_run(mapping, std::slice::from_ref(page), index, &mut [0; PAGE_SIZE])
}

/// Fills a run of locked pages, or a piece of one, from the store: all of them or none. The store writes into `buffer`, zeroed,
/// of that size and private to this thread, because page bytes are only accessed as atomics.
fn read_run(
    mapping: &AddressSpace,
    pages: &[LockedPage<'_>],
    first: u64,
    buffer: &mut [u8],
) -> Result<(), IoError> {
    let version = mapping.version.expected();
    let (short, now);
    in_order!(
        "fill.looks_last",
        short = read_store(mapping, pages.len(), first, buffer)?,
        now = version.map(|_| mapping.store.look())
    );
    // A file that others empty and write again has the size it had: that a read came between is no error, but a change.
    seeded!(
        "fill.short_at_once",
        bug = if let Some(short) = &short {
            return Err(short.clone());
        }
    );
    if let Some((version, now)) = version.zip(now) {
        let now = now.and_then(|now| now.past_an_append(&version, || mapping.store.look()));
        let now = now.map_err(|error| IoError::new(error, &mapping.name))?;
        if !guard!("fill.one_version", mapping.version.vouches(&version, &now)) {
            return Err(IoError::changed(&mapping.name));
        }
    }
    if let Some(short) = short {
        return Err(short);
    }
    for (page, bytes) in pages.iter().zip(buffer.chunks_exact(PAGE_SIZE)) {
        in_order!("fill.bytes_first", page.page().bytes().write(0, bytes), page.set_uptodate());
    }
    Ok(())
}

/// Reads what the file has of a run into a zeroed buffer; returns the error that it is if that is less than the file should have.
fn read_store(
    mapping: &AddressSpace,
    pages: usize,
    first: u64,
    buffer: &mut [u8],
) -> Result<Option<IoError>, IoError> {
    let offset = first * PAGE_SIZE as u64;
    let room = buffer.len();
    let (size, expected, read) = loop {
        let size = mapping.i_size();
        let expected = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(room);
        let started = Instant::now();
        let read = if expected == 0 { Ok(0) } else { mapping.store.read_at(&mut buffer[..expected], offset) };
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        mapping.shared.count(Stat::Reads, 1);
        mapping.shared.count(Stat::IoNanoseconds, nanoseconds);
        // Truncation waits for the locks of the pages that it removes, not for that of the page it cuts in two. It sets the size
        // before it changes the store: a read that is short for the old size may be complete for the new one.
        let is_short = matches!(read, Ok(n) if n < expected);
        if is_short && seeded!("fill.short_again", mapping.i_size() != size, bug = false) {
            duty!("fill.wipe", buffer.fill(0));
            continue;
        }
        break (size, expected, read);
    };
    mapping.again.note(pages, !matches!(read, Ok(n) if n == expected));
    match read {
        Ok(n) if n == expected => {
            mapping.shared.count(Stat::ReadBytes, n as u64);
            Ok(None)
        }
        Ok(got) => {
            mapping.shared.count(Stat::ReadErrors, 1);
            let short = ShortRead { got, expected, offset, size };
            Ok(Some(IoError::new(io::Error::new(io::ErrorKind::UnexpectedEof, short), &mapping.name)))
        }
        Err(error) => {
            mapping.shared.count(Stat::ReadErrors, 1);
            Err(IoError::new(error, &mapping.name))
        }
    }
}
