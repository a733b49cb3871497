//! Reading a cached page without a reference: nothing shared is written.
//!
//! Owns: the copy-out protocol. A page may be removed, reused, truncated or punched during the copy; its generation shows that.
//!
//! First find the page, then read its generation, then check slot, mapping and index, UPTODATE and size, then copy; accept the
//! copy only if generation and slot are unchanged. A thread that removes or zeroes a page changes slot, mapping and size first,
//! then the generation, then the bytes. A failed attempt leaves zeros in the caller's buffer where it had copied.
//!
//! Linux has no such path yet. A patch of October 2025, "mm/filemap: Implement fast short reads" (Message-ID
//! 20251017141536.577466-1-kirill@shutemov.name), reads small ranges this way; review found four races in it: hole punch,
//! migration, split, and a freed page reused before the copy. The generation covers all four.

use super::AddressSpace;
use super::accessed::{self, is_active};
use super::address_space::index_of;
use super::stats::Stat;
use super::version::Version;
use crate::page::{Out, PAGE_SIZE, PageFlags, PageRef};
use crate::rcu::ReadSection;
use crate::sync::{duty, guard, in_order, operation};

/// The outcome of a copy-out attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum CopyOut<'f> {
    /// The bytes are in the buffer.
    Copied(Copied<'f>),
    /// The page is absent, not up to date or marked, or the file ends before the range does.
    Unavailable,
    /// The page changed during the copy.
    Changed,
}

/// A successful copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied<'f> {
    /// The page it was made of.
    pub(super) page: PageRef<'f>,
    /// Bytes copied: at least one, unless none were asked for.
    length: usize,
    /// The file's size when the copy was made.
    size: u64,
}

/// Whether a page with the readahead marker may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    /// No: the marker must be handled by the slow path.
    Refuse,
    /// Yes: this is the slow path.
    Serve,
}

/// Whether a part of the range may be served if the file ends within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// No: the file may be longer by now.
    Refuse,
    /// Yes.
    Serve,
}

/// One attempt to copy `out.len()` bytes from `offset` on, a range within one page.
#[inline]
pub(super) fn copy_out<'f>(
    mapping: &'f AddressSpace,
    offset: u64,
    mut out: Out<'_>,
    marked: Marked,
    short: Short,
    section: &ReadSection,
) -> CopyOut<'f> {
    operation!("hit");
    let found = mapping.pages.find(index_of(offset), section);
    let Some(pfn) = found.entry.as_page() else { return CopyOut::Unavailable };
    let page = mapping.frames().page(pfn);
    let (generation, is_unchanged);
    // If the slot, or anything that `copy` checks, is stale, a removal or truncation was in progress, and the generation changes
    // before the bytes do.
    in_order!(
        "copy_out.generation_first",
        generation = page.generation(),
        is_unchanged = guard!("copy_out.slot", found.is_unchanged())
    );
    if !is_unchanged {
        return CopyOut::Changed;
    }
    let room = out.len();
    let answer = copy(mapping, page, generation, offset, out.part(0..room), marked, short);
    match answer {
        CopyOut::Copied(copied) if !guard!("copy_out.slot_again", found.is_unchanged()) => {
            // These bytes may be another file's.
            duty!("copy_out.slot.wipe", out.part(0..copied.length).zero());
            CopyOut::Changed
        }
        answer => answer,
    }
}

/// The same for a page to which the caller holds a reference, so that its frame cannot be reused.
pub(super) fn copy_held<'f>(
    mapping: &AddressSpace,
    page: PageRef<'f>,
    offset: u64,
    out: Out<'_>,
) -> CopyOut<'f> {
    copy(mapping, page, page.generation(), offset, out, Marked::Serve, Short::Refuse)
}

/// The part of an attempt between the two checks of the slot.
#[allow(
    clippy::inline_always,
    reason = "the cost of a hit is counted in instructions, and a call here costs a fifth of it"
)]
#[inline(always)]
fn copy<'f>(
    mapping: &AddressSpace,
    page: PageRef<'f>,
    generation: u64,
    offset: u64,
    mut out: Out<'_>,
    marked: Marked,
    short: Short,
) -> CopyOut<'f> {
    if !guard!("copy_out.mapping", page.is_at(mapping.id(), index_of(offset))) {
        return CopyOut::Changed;
    }
    let flags = page.flags();
    if !guard!("copy_out.uptodate", flags.has(PageFlags::UPTODATE))
        || (marked == Marked::Refuse && flags.has(PageFlags::READAHEAD))
    {
        return CopyOut::Unavailable;
    }
    // After the flags: a page that is being cut may have been filled for its new end.
    let size = mapping.i_size();
    let mut length = out.len();
    if !guard!("copy_out.size", offset + length as u64 <= size) {
        if short == Short::Refuse || offset >= size {
            return CopyOut::Unavailable;
        }
        length = (size - offset) as usize;
    }
    page.bytes().read_into(within(offset), out.part(0..length));
    if page.is_generation(generation) {
        CopyOut::Copied(Copied { page, length, size })
    } else {
        // These bytes may be another file's.
        duty!("copy_out.wipe", out.part(0..length).zero());
        CopyOut::Changed
    }
}

/// The lock-free hit: the whole range from the cache, or nothing. Returns the number of bytes copied: fewer than asked for only
/// at the end of the file, if that is allowed.
#[inline]
pub(super) fn read_cached(
    mapping: &AddressSpace,
    out: Out<'_>,
    offset: u64,
    short: Short,
    section: &ReadSection,
) -> Option<usize> {
    operation!("hit");
    // Loaded before the size and any page.
    let epoch = mapping.version.epoch();
    if !guard!("read_cached.young", !Version::is_young(epoch)) {
        return None;
    }
    // Most reads lie within one page, and their cost is counted in instructions. (An empty read does not.)
    if out.len().wrapping_sub(1) < PAGE_SIZE - within(offset) {
        let Some(copied) = hit(mapping, offset, out, short, section) else {
            return is_past_the_end(mapping, offset, short).then_some(0);
        };
        accessed::touch(&mapping.shared, copied.page);
        mapping.shared.count(Stat::Hits, 1);
        return Some(copied.length);
    }
    read_cached_pages(mapping, out, offset, epoch, short, section)
}

/// Whether the range starts past the end of the file and may be served as empty.
#[cold]
fn is_past_the_end(mapping: &AddressSpace, offset: u64, short: Short) -> bool {
    short == Short::Serve && offset >= mapping.i_size()
}

fn read_cached_pages(
    mapping: &AddressSpace,
    mut out: Out<'_>,
    offset: u64,
    epoch: u64,
    short: Short,
    section: &ReadSection,
) -> Option<usize> {
    let (mut wanted, mut done, mut pages, mut all_active) = (out.len(), 0, 0, true);
    while done < wanted {
        let at = offset + done as u64;
        let step = (wanted - done).min(PAGE_SIZE - within(at));
        // The file's size is taken from the copy of the first page; the others must be complete.
        let may_be = if pages == 0 { short } else { Short::Refuse };
        let Some(copied) = hit(mapping, at, out.part(done..done + step), may_be, section) else {
            // All or nothing: the caller gets no part of a failed read.
            duty!("read_cached.missed.wipe", out.part(0..done).zero());
            return is_past_the_end(mapping, offset, short).then_some(0);
        };
        if pages == 0 {
            wanted = wanted.min(usize::try_from(copied.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        }
        all_active &= is_active(copied.page);
        done += copied.length;
        pages += 1;
        if short == Short::Refuse && wanted < out.len() {
            duty!("read_cached.short.wipe", out.part(0..done).zero());
            return None;
        }
    }
    // One page may be of a later version than another.
    if !guard!("read_cached.one_version", mapping.version.epoch() == epoch) {
        count_retry(mapping);
        duty!("read_cached.changed.wipe", out.part(0..done).zero());
        return None;
    }
    // Only now: otherwise a read that starts over would touch each page twice.
    if !all_active {
        let touched = index_of(offset)..index_of(offset) + pages;
        let touched = touched.filter_map(|index| mapping.peek(index, section));
        touched.for_each(|page| accessed::touch(&mapping.shared, page));
    }
    mapping.shared.count(Stat::Hits, pages);
    Some(done)
}

/// One page's part of a hit.
#[inline]
fn hit<'f>(
    mapping: &'f AddressSpace,
    offset: u64,
    out: Out<'_>,
    short: Short,
    section: &ReadSection,
) -> Option<Copied<'f>> {
    match copy_out(mapping, offset, out, Marked::Refuse, short, section) {
        CopyOut::Copied(copied) => Some(copied),
        CopyOut::Unavailable => None,
        CopyOut::Changed => {
            count_retry(mapping);
            None
        }
    }
}

#[cold]
fn count_retry(mapping: &AddressSpace) {
    mapping.shared.count(Stat::Retries, 1);
}

/// Offset within its page of a byte of the file.
#[inline]
fn within(offset: u64) -> usize {
    (offset % PAGE_SIZE as u64) as usize
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::store::MemoryStore;
    use crate::{Io, PAGE_SIZE, PageCache, StoreOptions};
    use std::sync::Arc;

    /// Two pages and a half.
    const SIZE: usize = 2 * PAGE_SIZE + PAGE_SIZE / 2;

    fn byte(at: usize) -> u8 {
        (at % 251) as u8 + 1
    }

    #[test]
    fn hits_end_where_the_file_does() {
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let store = Arc::new(MemoryStore::new((0..SIZE).map(byte).collect()));
        let options = StoreOptions::default().ra_pages(0);
        let file = cache.open_store_with(store, SIZE as u64, options).unwrap();
        assert_eq!(file.read_cached(&mut [0; 8], 0), None, "nothing is cached");
        file.pread(&mut vec![0; SIZE], 0).unwrap();
        // Around the ends of pages, of the file and of the range of offsets.
        let edges = [0, PAGE_SIZE, 2 * PAGE_SIZE, SIZE, 3 * PAGE_SIZE, 4 * PAGE_SIZE];
        let around = edges.iter().flat_map(|edge| edge.saturating_sub(2)..edge + 3);
        for offset in around.clone().map(|at| at as u64).chain([u64::MAX - PAGE_SIZE as u64, u64::MAX]) {
            for length in around.clone() {
                let at = usize::try_from(offset).unwrap();
                let expected = SIZE.saturating_sub(at).min(length);
                let pages =
                    if expected == 0 { 0 } else { (at + expected - 1) / PAGE_SIZE - at / PAGE_SIZE + 1 };
                let mut buf = vec![0xee; length];
                let before = cache.stats();
                assert_eq!(file.read_cached(&mut buf, offset), Some(expected), "{length} bytes at {offset}");
                let after = cache.stats();
                assert_eq!(after.hits - before.hits, pages as u64, "{length} bytes at {offset}");
                assert!(buf[..expected].iter().zip(at..).all(|(&found, at)| found == byte(at)));
                assert!(buf[expected..].iter().all(|&rest| rest == 0xee), "what is not read stays");
                if offset < 1 << 44 {
                    assert_eq!(file.pread(&mut buf, offset).unwrap(), expected, "{length} bytes at {offset}");
                    buf.fill(0xff);
                    let whole = file.gather_cached(&[offset], length, &mut buf).unwrap();
                    assert!(whole == 1 || buf.iter().all(|&byte| byte == 0xff || byte == 0), "no part stays");
                    assert_eq!(whole == 1, expected == length, "{length} bytes at {offset}");
                }
            }
        }
        assert_eq!(cache.stats().reads, 3, "each page once");
        cache.check().unwrap();
    }

    #[test]
    fn pages_that_hits_use_again_and_again_survive_a_scan() {
        for (pages, hits, survive) in [(1, 3, true), (2, 3, true), (2, 0, false)] {
            let cache = PageCache::new(16 * PAGE_SIZE as u64, Io::Inline).unwrap();
            let store = Arc::new(MemoryStore::new(vec![7; 100 * PAGE_SIZE]));
            let options = StoreOptions::default().ra_pages(0);
            let file = cache.open_store_with(store, 100 * PAGE_SIZE as u64, options).unwrap();
            let mut buf = vec![0; pages * PAGE_SIZE];
            file.pread(&mut buf, 0).unwrap();
            for other in 10..10 + hits {
                assert_eq!(file.read_cached(&mut buf, 0), Some(buf.len()));
                file.pread(&mut buf[..9], other * PAGE_SIZE as u64).unwrap();
            }
            for page in 20..100 {
                file.pread(&mut buf[..9], page * PAGE_SIZE as u64).unwrap();
            }
            assert_eq!(file.read_cached(&mut buf, 0).is_some(), survive, "{pages} {hits}");
            cache.check().unwrap();
        }
        // A pin is a use as well.
        let cache = PageCache::new(16 * PAGE_SIZE as u64, Io::Inline).unwrap();
        let store = Arc::new(MemoryStore::new(vec![7; 100 * PAGE_SIZE]));
        let options = StoreOptions::default().ra_pages(0);
        let file = cache.open_store_with(store, 100 * PAGE_SIZE as u64, options).unwrap();
        for page in (10..14).chain(20..100) {
            if page < 20 {
                assert_eq!(file.pin(0, 9).unwrap().len(), 9);
            }
            file.pread(&mut [0; 9], page * PAGE_SIZE as u64).unwrap();
        }
        assert_eq!(file.read_cached(&mut [0; 9], 0), Some(9));
    }
}
