//! Reading a cached page without a reference: nothing shared is written.
//!
//! Owns: the copy-out protocol. A page may be removed, reused, truncated or punched during the copy; the generation tells.
//!
//! First find the page, then read its generation, then check slot, mapping and index, UPTODATE, size, then copy; accept only
//! if the generation and the slot are what they were. A remover or zeroer changes slot, mapping and size first, then the
//! generation, then bytes. A failed attempt leaves zeros in the caller's buffer where it had copied.
//!
//! Linux has no such path yet; a proposal of October 2025 reads small ranges this way, and four holes were found in it by
//! eye: hole punch, migration, split, and a freed page reused before the copy. The generation covers all four.

use super::AddressSpace;
use super::accessed::{self, is_active};
use super::address_space::index_of;
use super::stats::Stat;
use super::version::Version;
use crate::page::{Out, PAGE_SIZE, PageFlags, PageRef};
use crate::rcu::ReadSection;
use crate::sync::guard;

/// What a copy-out attempt came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CopyOut<'f> {
    /// The bytes are in the buffer; from this page.
    Copied(PageRef<'f>),
    /// The page is absent, not up to date, marked, or the file ends before the range does.
    Unavailable,
    /// The page changed under the copy.
    Changed,
}

/// Whether a page with the readahead marker may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marked {
    /// No: the slow path must meet the marker.
    Refuse,
    /// Yes: this is the slow path.
    Serve,
}

/// One attempt to copy `out.len()` bytes from `within` of the page at `index`. The range lies inside the page.
#[inline]
pub(super) fn copy_out<'f>(
    mapping: &'f AddressSpace,
    index: u64,
    within: usize,
    mut out: Out<'_>,
    marked: Marked,
    section: &ReadSection,
) -> CopyOut<'f> {
    let found = mapping.pages.find(index, section);
    let Some(pfn) = found.entry.as_page() else { return CopyOut::Unavailable };
    let page = mapping.frames().page(pfn);
    let generation = page.generation();
    // After the generation: if any of these is stale, a removal or truncation was in progress and the generation
    // moves before the bytes do.
    if !guard!("copy_out.slot", found.is_unchanged())
        || !guard!("copy_out.mapping", page.is_at(mapping.id(), index))
    {
        return CopyOut::Changed;
    }
    let flags = page.flags();
    if !guard!("copy_out.uptodate", flags.has(PageFlags::UPTODATE))
        || (marked == Marked::Refuse && flags.has(PageFlags::READAHEAD))
    {
        return CopyOut::Unavailable;
    }
    let length = out.len();
    let end = index * PAGE_SIZE as u64 + (within + length) as u64;
    if !guard!("copy_out.size", end <= mapping.i_size()) {
        return CopyOut::Unavailable;
    }
    page.bytes().read_into(within, out.part(0..length));
    if page.is_generation(generation) && guard!("copy_out.slot_again", found.is_unchanged()) {
        CopyOut::Copied(page)
    } else {
        // These bytes may be another file's.
        out.zero();
        CopyOut::Changed
    }
}

/// The lock-free hit: the whole range from the cache, or nothing. Answers the bytes copied: fewer than asked only at
/// the end of the file.
#[inline]
pub(super) fn read_cached(
    mapping: &AddressSpace,
    mut out: Out<'_>,
    offset: u64,
    section: &ReadSection,
) -> Option<usize> {
    // Before the size and any page.
    let epoch = mapping.version.epoch();
    if !guard!("read_cached.young", !Version::is_young(epoch)) {
        return None;
    }
    let n = usize::try_from(mapping.i_size().saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
    let within = (offset % PAGE_SIZE as u64) as usize;
    // Most reads lie in one page, and their cost is counted in instructions.
    if n <= PAGE_SIZE - within && n > 0 {
        let page = hit(mapping, index_of(offset), within, out.part(0..n), section)?;
        accessed::touch(&mapping.shared, page);
        mapping.shared.count(Stat::Hits, 1);
        return Some(n);
    }
    read_cached_pages(mapping, out.part(0..n), offset, epoch, section)
}

fn read_cached_pages(
    mapping: &AddressSpace,
    mut out: Out<'_>,
    offset: u64,
    epoch: u64,
    section: &ReadSection,
) -> Option<usize> {
    let (mut done, mut pages, mut all_active) = (0, 0, true);
    while done < out.len() {
        let at = offset + done as u64;
        let within = (at % PAGE_SIZE as u64) as usize;
        let step = (out.len() - done).min(PAGE_SIZE - within);
        let Some(page) = hit(mapping, index_of(at), within, out.part(done..done + step), section) else {
            // All or nothing: the caller gets no part of a read that failed.
            out.part(0..done).zero();
            return None;
        };
        all_active &= is_active(page);
        done += step;
        pages += 1;
    }
    // A page may be of a version that came after another page's.
    if !guard!("read_cached.one_version", mapping.version.epoch() == epoch) {
        mapping.shared.count(Stat::Retries, 1);
        out.zero();
        return None;
    }
    // Only now: of a read that starts over, each page would count as touched twice.
    if !all_active {
        let touched = index_of(offset)..index_of(offset) + pages;
        touched
            .filter_map(|index| mapping.peek(index, section))
            .for_each(|page| accessed::touch(&mapping.shared, page));
    }
    mapping.shared.count(Stat::Hits, pages);
    Some(done)
}

/// One page's part of a hit.
#[inline]
fn hit<'f>(
    mapping: &'f AddressSpace,
    index: u64,
    within: usize,
    out: Out<'_>,
    section: &ReadSection,
) -> Option<PageRef<'f>> {
    match copy_out(mapping, index, within, out, Marked::Refuse, section) {
        CopyOut::Copied(page) => Some(page),
        CopyOut::Unavailable => None,
        CopyOut::Changed => {
            mapping.shared.count(Stat::Retries, 1);
            None
        }
    }
}
