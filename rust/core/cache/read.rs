//! Reads that may have to wait: `generic_file_buffered_read` of Linux 5.12.

use super::accessed;
use super::address_space::index_of;
use super::coherence;
use super::coherence::TRIES;
use super::copy_out::{CopyOut, Marked};
use super::file::OpenFile;
use super::filemap::FoundOrCreated;
use super::one_version;
use super::one_version::{OneVersion, Verdict};
use super::patience::{NotRead, should_give_up};
use super::stats::Stat;
use crate::error::{Error, IoError, Result};
use crate::page::{Out, PAGE_SIZE, PageFlags, PageHandle, PageRef};
use crate::store::Change;
use crate::sync::yield_now;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

impl OpenFile {
    /// Reads into `out` from `offset`; short only at the end of the file.
    pub(super) fn buffered_read(self: &Arc<Self>, mut out: Out<'_>, offset: u64) -> Result<usize> {
        let mapping = &self.mapping;
        let room = out.len();
        // One page is of one version, if it can be had.
        if room <= PAGE_SIZE - (offset % PAGE_SIZE as u64) as usize {
            coherence::settle(&mapping, false)?;
            for _ in 0..TRIES {
                if let Some(n) = self.try_read(out.part(0..room), offset, None)? {
                    return Ok(n);
                }
            }
        }
        let mut call = one_version::one_version(&mapping)?;
        loop {
            let read = self.try_read(out.part(0..room), offset, Some(&call))?;
            let read = match one_version::judge(&mapping, &mut call, read.is_some())? {
                Verdict::OneVersion => read,
                Verdict::Again => None,
                Verdict::ReadTwice => self.read_twice(&mut call, &[offset], room, out.part(0..room))?,
            };
            if let Some(n) = read {
                return Ok(n);
            }
        }
    }

    /// One try at a read; None if the file changed meanwhile. Of a call that must be of one version it ends where a change is
    /// found.
    pub(super) fn try_read(
        self: &Arc<Self>,
        mut out: Out<'_>,
        offset: u64,
        call: Option<&OneVersion>,
    ) -> Result<Option<usize>> {
        let mapping = &self.mapping;
        let room = out.len();
        let wanted = |size: u64| usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(room);
        let moved = || call.is_some_and(|call| !one_version::is_current(&mapping, call));
        let (mut done, mut looked) = (0, false);
        loop {
            // The size may change between pages: what is beyond it is not read.
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
            if !looked && !self.is_at_hand(index) {
                looked = true;
                coherence::follow_changes(&mapping)?;
                if moved() {
                    return Ok(None);
                }
            }
            // The reference keeps reclaim from taking the page before it was copied, however small the cache.
            let _held = match self.make_uptodate(index, rest) {
                Ok(Some(handle)) => handle,
                Ok(None) => continue,
                Err(Error::Io(error)) if error.is_change() => {
                    coherence::follow_changes(&mapping)?;
                    return Ok(None);
                }
                // Somebody else made the file shorter: once more from the new size.
                Err(Error::Io(error)) if error.is_short_read() => {
                    if coherence::revalidate(&mapping, false)? == size {
                        return Err(Error::Io(error));
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if moved() {
                return Ok(None);
            }
            let section = crate::rcu::read();
            // Anything but a copy means that the page or the size changed meanwhile: once more from the size.
            let part = out.part(done..done + step);
            if let CopyOut::Copied(page) = mapping.copy_out(index, within, part, Marked::Serve, &section) {
                accessed::touch(&mapping.shared, page);
                done += step;
                self.set_prev_pos(offset + done as u64);
            } else {
                mapping.shared.count(Stat::Retries, 1);
                // Or a model goes on reading the same stale slot.
                if cfg!(specmm_loom) {
                    yield_now();
                }
            }
        }
        Ok(Some(done))
    }

    /// Whether the page at `index` is read without the store.
    pub(super) fn is_at_hand(&self, index: u64) -> bool {
        let page = self.mapping.peek(index, &crate::rcu::read()).map(PageRef::flags);
        page.is_some_and(|flags| flags.has(PageFlags::UPTODATE) && !flags.has(PageFlags::READAHEAD))
    }

    /// Reads `length` bytes at each offset past the cache, twice. If both reads agree, and meanwhile nothing but the ctime moved
    /// or the file grew, what was read was all there at the moment between them. Otherwise None, and that was one of the tries
    /// of the call. Answers the bytes of the last read, fewer than `length` at the end of the file.
    pub(super) fn read_twice(
        &self,
        call: &mut OneVersion,
        offsets: &[u64],
        length: usize,
        mut out: Out<'_>,
    ) -> Result<Option<usize>> {
        let Some(before) = one_version::look_at_rest(&self.mapping)? else {
            one_version::count_rewritten(&self.mapping, call)?;
            return Ok(None);
        };
        let end = before.size.unwrap_or(u64::MAX);
        let all = out.part(0..offsets.len() * length);
        let first = self.read_past_the_cache(offsets, length, end, Some(all))?;
        let between = coherence::look(&self.mapping)?;
        let second = self.read_past_the_cache(offsets, length, end, None)?;
        let after = coherence::look(&self.mapping)?;
        let stood_still =
            between.since(&before) != Change::Written && after.since(&between) != Change::Written;
        if first == second && stood_still {
            return Ok(Some(first.1));
        }
        one_version::count_rewritten(&self.mapping, call)?;
        Ok(None)
    }

    /// What the bytes before `end` hash to, and how many the last read had. They are written to `out` if there is one.
    fn read_past_the_cache(
        &self,
        offsets: &[u64],
        length: usize,
        end: u64,
        mut out: Option<Out<'_>>,
    ) -> Result<(u64, usize)> {
        let mapping = &self.mapping;
        let mut buffer = mapping.shared.in_flight.buffer(length.max(1).next_multiple_of(PAGE_SIZE))?;
        let (mut hash, mut done) = (DefaultHasher::new(), 0);
        for (number, offset) in offsets.iter().enumerate() {
            done = 0;
            let length_here = usize::try_from(end.saturating_sub(*offset)).unwrap_or(usize::MAX).min(length);
            while done < length_here {
                let wanted = buffer.bytes.len().min(length_here - done);
                let bytes = &mut buffer.bytes[..wanted];
                mapping.shared.count(Stat::Reads, 1);
                let got = mapping.store.read_at(bytes, offset + done as u64);
                let got = got.map_err(|error| Error::Io(IoError::new(error, &mapping.name)))?;
                hash.write(&bytes[..got]);
                if let Some(out) = &mut out {
                    let at = number * length + done;
                    out.part(at..at + got).put(&bytes[..got]);
                }
                done += got;
                if got < wanted {
                    break;
                }
                if should_give_up() {
                    return Err(Error::Interrupted(mapping.name.clone()));
                }
            }
            hash.write_usize(done);
        }
        Ok((hash.finish(), done))
    }

    /// Brings the page at `index` into the cache; `rest` pages are wanted from here on. None if it was truncated meanwhile.
    pub(super) fn make_uptodate(self: &Arc<Self>, index: u64, rest: u64) -> Result<Option<PageHandle<'_>>> {
        let mapping = &self.mapping;
        let absent = |index| mapping.peek(index, &crate::rcu::read()).is_none();
        let missed = absent(index);
        if missed {
            self.page_cache_sync_ra(index, rest);
        }
        let handle = match self.find_or_create_waiting(index, Some(self))? {
            FoundOrCreated::Page(handle) => handle,
            // The caller looks at the size again.
            FoundOrCreated::Beyond(_) => return Ok(None),
            FoundOrCreated::NoMemory(error) => return Err(error),
            FoundOrCreated::NoFrame | FoundOrCreated::Unstable => {
                return Err(mapping
                    .shared
                    .out_of_frames(format!("page {index} of {}", mapping.name.to_string_lossy())));
            }
        };
        let page = handle.page();
        if page.flags().has(PageFlags::READAHEAD) {
            self.page_cache_async_ra(page, index, rest);
        }
        if page.flags().has(PageFlags::UPTODATE) {
            mapping.shared.count(if missed { Stat::Misses } else { Stat::Hits }, 1);
            coherence::catch_up(&mapping)?;
            return Ok(Some(handle));
        }
        mapping.shared.count(Stat::Misses, 1);
        self.read_again(index);
        match mapping.bring(page, index, Some(self)) {
            Ok(true) => {
                coherence::catch_up(&mapping)?;
                Ok(Some(handle))
            }
            // Truncated while we waited: the caller finds out.
            Ok(false) => Ok(None),
            Err(NotRead::Failed(error)) => Err(Error::Io(error)),
            Err(NotRead::Left(error)) => Err(error),
        }
    }
}
