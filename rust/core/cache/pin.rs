//! Pins: a page's bytes as a slice that does not change.
//!
//! Owns: that guarantee. A pin is a snapshot: while it exists, its frame is neither freed nor reused, and nothing writes to it.
//! Counts like `FOLL_PIN` of `mm/gup.c`, but guarantees more: in Linux others may write to a pinned page.
//!
//! Why the bytes do not change. A page is pinned under its lock, up to date and within the file. From then on, only four things
//! could change its bytes:
//!
//! | what | why it does not |
//! |---|---|
//! | a read of the page | a read only fills a page that is not up to date, under the page lock |
//! | a truncation that cuts the page in two | takes the page out of the file instead of zeroing its tail (`zero_tail`) |
//! | the frame's next owner | the pin holds a reference |
//! | a store through a mapping | mappings of file pages are read-only or private: a store goes to a copy |
//!
//! So a `&[u8]` over the frame is sound: everything else that can reach the frame only loads from it.

use super::accessed;
use super::address_space::index_of;
use super::arguments::check_offset;
use super::coherence;
use super::direct_read::read_twice;
use super::file::File;
use super::one_version;
use super::open_file::OpenFile;
use super::read::{is_at_hand, make_uptodate};
use super::read_error::{self, ReadError};
use super::vmscan::wait_for_frame;
use crate::error::{Error, Result};
use crate::page::{Out, PAGE_SIZE, PageFlags, Use};
use crate::sync::{guard, in_order, operation};
use std::ops::Range;
use std::sync::Arc;

/// Unconfirmed fills before a page is read past the cache.
const FILLS: u32 = 16;

/// Pinned bytes of one page: they do not change while this exists, whatever happens to the file. A pin holds one frame of the
/// cache.
#[must_use = "dropping this ends the pin"]
pub struct Pinned {
    open: Arc<OpenFile>,
    pfn: u32,
    within: Range<usize>,
}

impl File {
    /// Pins `length` bytes at `offset`, which must lie within one page. Reads the page if it is not cached.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for zero bytes or more than the page has from `offset` on, with that number in the message;
    /// [`Error::Bus`] past the end of the file or if the page cannot be read; [`Error::OutOfFrames`], [`Error::Closed`].
    pub fn pin(&self, offset: u64, length: usize) -> Result<Pinned> {
        check_offset(offset)?;
        let within = (offset % PAGE_SIZE as u64) as usize;
        let most = PAGE_SIZE - within;
        if length == 0 || length > most {
            return Err(Error::InvalidArgument(format!(
                "a pin of {length} bytes at offset {offset}: a pin has 1 to {most} bytes there, those of one page"
            )));
        }
        pin(&self.open_file()?, offset, within..within + length)
    }
}

pub(super) fn pin(open: &Arc<OpenFile>, offset: u64, within: Range<usize>) -> Result<Pinned> {
    operation!("pin");
    let index = index_of(offset);
    let end = offset + within.len() as u64;
    let mapping = &open.mapping;
    coherence::look_at_the_end(mapping, offset, within.len())?;
    coherence::settle(mapping, true)?;
    let mut found = mapping.find_get_page(index, &crate::rcu::read());
    if !found.as_ref().is_some_and(is_at_hand) {
        coherence::follow_changes(mapping)?;
        found = found.filter(|found| found.page().is_at(mapping.id(), index));
    }
    let mut changed = 0;
    let mut first = Some(found);
    loop {
        let found = first.take().unwrap_or_else(|| mapping.find_get_page(index, &crate::rcu::read()));
        let size = mapping.i_size();
        if end > size {
            return Err(Error::Bus { index, offset, size, cause: None });
        }
        let handle = match make_uptodate(open, index, 1, found) {
            Ok(Some(handle)) => handle,
            Ok(None) => continue,
            Err(Error::Io(cause)) if cause.is_change() && !mapping.read_by.may_stall() => {
                changed += 1;
                if changed == FILLS {
                    return pin_past_the_cache(open, offset, within);
                }
                coherence::follow_changes(mapping)?;
                continue;
            }
            Err(Error::Io(cause)) => match read_error::judge_read_error(mapping, index, cause) {
                ReadError::Unreadable(size, cause) => {
                    return Err(Error::Bus { index, offset, size, cause: Some(cause) });
                }
                _ => continue,
            },
            Err(error) => return Err(error),
        };
        let page = handle.page();
        let lock = page.lock();
        // Truncation changes the size, then locks the pages that it removes or cuts.
        if !guard!("pin.mapping", page.is_at(mapping.id(), index))
            || !guard!("pin.size", end <= mapping.i_size())
        {
            continue;
        }
        debug_assert!(page.flags().has(PageFlags::UPTODATE), "our reference kept {page:?}");
        // Truncation checks for pins under the page lock, before it changes bytes.
        let is_pinned;
        in_order!("pin.seed.after_unlock", is_pinned = mapping.frames().pin(page), drop(lock));
        if !is_pinned {
            return Err(Error::Closed("the page cache".into()));
        }
        accessed::touch(&mapping.shared, page);
        return hold(open, handle.into_pfn(), within);
    }
}

/// Takes over a pinned frame and its reference, unless the file was closed meanwhile.
fn hold(open: &Arc<OpenFile>, pfn: u32, within: Range<usize>) -> Result<Pinned> {
    let is_open = open.pins.begin();
    let pinned = Pinned { open: Arc::clone(open), pfn, within };
    if is_open { Ok(pinned) } else { Err(Error::Closed(format!("file {:?}", open.mapping.name))) }
}

/// A pin of a frame that is not a page of the file, filled by [`read_twice`]: for a file whose state differs at every look, so
/// that no page becomes up to date.
fn pin_past_the_cache(open: &Arc<OpenFile>, offset: u64, within: Range<usize>) -> Result<Pinned> {
    let mapping = &open.mapping;
    let index = index_of(offset);
    let handle = loop {
        match mapping.frames().alloc(Use::File) {
            Some(handle) => break handle,
            None if wait_for_frame(&mapping.shared) => {}
            None => {
                let what = format!("page {index} of {}", mapping.name.to_string_lossy());
                return Err(mapping.shared.out_of_frames(what));
            }
        }
    };
    let mut bytes = [0; PAGE_SIZE];
    let mut call = one_version::one_version(mapping)?;
    let start = index * PAGE_SIZE as u64;
    let read = loop {
        match read_twice(open, &mut call, &[start], PAGE_SIZE, Out::from(&mut bytes[..])) {
            Ok(Some(read)) => break read,
            Ok(None) => {}
            Err(Error::Io(cause)) => {
                return Err(Error::Bus { index, offset, size: mapping.i_size(), cause: Some(cause) });
            }
            Err(error) => return Err(error),
        }
    };
    if within.end > read {
        return Err(Error::Bus { index, offset, size: start + read as u64, cause: None });
    }
    handle.page().bytes().write(0, &bytes);
    if !mapping.frames().pin(handle.page()) {
        return Err(Error::Closed("the page cache".into()));
    }
    hold(open, handle.into_pfn(), within)
}

impl Pinned {
    /// The number of pinned bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.within.len()
    }

    /// Always false: a pin has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.within.is_empty()
    }

    /// Copies the bytes, for models, in which page bytes have no addresses.
    #[cfg(all(test, any(specmm_loom, specmm_shuttle)))]
    pub(crate) fn read(&self, buf: &mut [u8]) {
        self.open.mapping.frames().page(self.pfn).bytes().read(self.within.start, buf);
    }
}

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
impl std::ops::Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        #[allow(
            unsafe_code,
            reason = "bytes that nobody writes while the pin lives: see the top of this file"
        )]
        // SAFETY: the frame is pinned, and stays so while `self` is borrowed.
        let page = unsafe { self.open.mapping.frames().pinned_bytes(self.pfn) };
        &page[self.within.clone()]
    }
}

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        operation!("unpin");
        let frames = self.open.mapping.frames();
        let reference = frames.page(self.pfn).adopt();
        let page = reference.page();
        // A truncated page has no other reference, and a frame must not be freed while it is pinned.
        in_order!("unpin.seed.put_first", frames.unpin(page), drop(reference));
        self.open.pins.end();
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("pfn", &self.pfn).field("within", &self.within).finish_non_exhaustive()
    }
}
