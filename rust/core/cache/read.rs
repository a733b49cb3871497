//! Reads that may have to wait: `generic_file_buffered_read` of Linux 5.12.

use super::address_space::index_of;
use super::copy_out::{CopyOut, Marked};
use super::file::OpenFile;
use super::filemap::FoundOrCreated;
use super::page_cache::Stat;
use super::patience::NotRead;
use crate::error::{Error, Result};
use crate::page::{Out, PAGE_SIZE, PageFlags, PageHandle};
use std::sync::Arc;

impl OpenFile {
    /// Reads into `out` from `offset`; short only at the end of the file.
    pub(super) fn buffered_read(self: &Arc<Self>, mut out: Out<'_>, offset: u64) -> Result<usize> {
        let mapping = &self.mapping;
        let room = out.len();
        let wanted = |size: u64| usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(room);
        let mut done = 0;
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
            // The reference keeps reclaim from taking the page before it was copied, however small the cache.
            let _held = match self.make_uptodate(index, rest) {
                Ok(Some(handle)) => handle,
                Ok(None) => continue,
                // Somebody else made the file shorter: once more from the new size.
                Err(Error::Io(error)) if error.is_short_read() => {
                    if mapping.revalidate()? == size {
                        return Err(Error::Io(error));
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let section = crate::rcu::read();
            // Anything but a copy means that the page or the size changed meanwhile: once more from the size.
            match mapping.copy_out(index, within, out.part(done..done + step), Marked::Serve, &section) {
                CopyOut::Copied(page) => {
                    mapping.shared.touch(page);
                    done += step;
                    self.set_prev_pos(offset + done as u64);
                }
                _ => mapping.shared.count(Stat::Retries, 1),
            }
        }
        Ok(done)
    }

    /// Brings the page at `index` into the cache; `rest` pages are wanted from here on. None if it was truncated meanwhile.
    pub(super) fn make_uptodate(self: &Arc<Self>, index: u64, rest: u64) -> Result<Option<PageHandle<'_>>> {
        let mapping = &self.mapping;
        let absent = |index| mapping.peek(index, &crate::rcu::read()).is_none();
        let missed = absent(index);
        if missed {
            mapping.follow_changes()?;
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
            return Ok(Some(handle));
        }
        mapping.shared.count(Stat::Misses, 1);
        self.read_again(index);
        match mapping.bring(page, index, Some(self)) {
            Ok(true) => Ok(Some(handle)),
            // Truncated while we waited: the caller finds out.
            Ok(false) => Ok(None),
            Err(NotRead::Failed(error)) => Err(Error::Io(error)),
            Err(NotRead::Left(error)) => Err(error),
        }
    }
}
