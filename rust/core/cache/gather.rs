//! Many reads in one call.
//!
//! Owns: the order of the reads, and when an offset is checked. Each read returns what [`File::pread`] of the same bytes would,
//! one after the other, and all are of one version of the file. Reads that hit share read sections, and touch no shared count.

use super::arguments::{check_offset, check_room};
use super::coherence;
use super::copy_out::{Short, read_cached};
use super::direct_read::read_twice;
use super::file::File;
use super::one_version::{self, OneVersion, Verdict};
use super::open_file::OpenFile;
use super::read::try_read;
use crate::error::{Error, Result};
use crate::page::{Out, PAGE_SIZE};
use crate::rcu::ReadSection;
use crate::sync::{guard, operation};
use std::sync::Arc;

/// What one read section copies at most, in reads and in bytes: grace periods wait for it.
const SECTION_READS: usize = 16;
const SECTION_BYTES: usize = 64 << 10;

impl File {
    /// Reads `length` bytes at each offset, in order, into `out`, one after the other.
    ///
    /// A range is judged against the file when its turn comes. After an error `out` holds no promise.
    ///
    /// ```
    /// # use specmm::{Io, PageCache, store::MemoryStore};
    /// # use std::sync::Arc;
    /// let cache = PageCache::new(1 << 20, Io::Inline)?;
    /// let bytes = (0..=255).cycle().take(100_000).collect();
    /// let file = cache.open_store(Arc::new(MemoryStore::new(bytes)), 100_000)?;
    ///
    /// let mut rows = [0; 6];
    /// file.gather(&[256, 90_000, 7], 2, &mut rows)?;
    /// assert_eq!(rows, [0, 1, 144, 145, 7, 8]);
    /// assert!(matches!(file.gather(&[99_999], 2, &mut rows[..2]), Err(specmm::Error::Bus { offset: 99_999, .. })));
    /// # Ok::<(), specmm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Bus`] for a range past the end of the file, with its offset; [`Error::InvalidArgument`] for an offset
    /// beyond 16 TiB or an `out` of another size; otherwise as [`File::pread`].
    pub fn gather(&self, offsets: &[u64], length: usize, out: &mut [u8]) -> Result<()> {
        self.gather_into(offsets, length, out.into())
    }

    /// As [`File::gather`], into raw memory: after `Ok` all of it is written.
    ///
    /// # Errors
    /// As [`File::gather`].
    pub fn gather_into(&self, offsets: &[u64], length: usize, mut out: Out<'_>) -> Result<()> {
        check_room(offsets, length, &out)?;
        let total = out.len();
        let call = self.one_version_now()?;
        let mut done = 0;
        if call.is_some() {
            done = self.gather_cached_into(offsets, length, out.part(0..total))?;
            if done == offsets.len() {
                return Ok(());
            }
        }
        let open = self.open_file()?;
        let mut call = call.map_or_else(|| one_version::one_version(&open.mapping), Ok)?;
        loop {
            let (rest, room) = (&offsets[done..], out.part(done * length..total));
            let gathered = try_gather(&open, &call, rest, length, room)?;
            done = 0;
            let gathered = match one_version::judge(&open.mapping, &mut call, gathered)? {
                Verdict::OneVersion => gathered,
                Verdict::Again => false,
                Verdict::ReadTwice => {
                    read_twice(&open, &mut call, offsets, length, out.part(0..total))? == Some(length)
                }
            };
            if gathered {
                return Ok(());
            }
        }
    }

    /// As [`File::gather_into`], for a part of a call: see [`File::one_version`]. False: a change was found.
    ///
    /// # Errors
    /// As [`File::gather`].
    pub fn gather_part(
        &self,
        call: &OneVersion,
        offsets: &[u64],
        length: usize,
        out: Out<'_>,
    ) -> Result<bool> {
        check_room(offsets, length, &out)?;
        try_gather(&self.open_file()?, call, offsets, length, out)
    }

    /// The part of [`File::gather`] that takes no lock: serves reads from the cache, up to the first one that misses or lies
    /// outside the file as the cache knows it. Returns how many it served; all of them are of one version.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] and [`Error::Closed`] as [`File::gather`].
    pub fn gather_cached(&self, offsets: &[u64], length: usize, out: &mut [u8]) -> Result<usize> {
        self.gather_cached_into(offsets, length, out.into())
    }

    /// As [`File::gather_cached`], into raw memory: of what was served all is written.
    ///
    /// # Errors
    /// As [`File::gather`].
    pub fn gather_cached_into(&self, offsets: &[u64], length: usize, out: Out<'_>) -> Result<usize> {
        operation!("hit");
        check_room(offsets, length, &out)?;
        let epoch = self.current(&crate::rcu::read())?.mapping.version.epoch();
        let done = in_sections(offsets, length, out, |batch, room, section| {
            gather_in_section(self.current(section)?, batch, length, room, section)
        })?;
        // If the file was found to have changed meanwhile, nothing is served.
        let now = self.current(&crate::rcu::read())?.mapping.version.epoch();
        Ok(if guard!("gather_cached.one_version", now == epoch) { done } else { 0 })
    }
}

/// One try; false if a change was found.
fn try_gather(
    open: &Arc<OpenFile>,
    call: &OneVersion,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
) -> Result<bool> {
    operation!("read");
    let total = out.len();
    let mut done = gather_cached(open, offsets, length, out.part(0..total))?;
    while let Some(&offset) = offsets.get(done) {
        // It has been checked by those who found that it is no hit.
        let row = out.part(done * length..(done + 1) * length);
        coherence::look_at_the_end(&open.mapping, offset, length)?;
        whole(open, offset, length)?;
        match try_read(open, row, offset, Some(call))? {
            None => return Ok(false),
            Some(n) if n < length => return Err(past_the_end(offset, open.mapping.i_size())),
            Some(_) => done += 1,
        }
        done += gather_cached(open, &offsets[done..], length, out.part(done * length..total))?;
    }
    Ok(one_version::is_current(&open.mapping, call))
}

/// Serves reads from the cache up to the first that misses, and returns how many it served.
fn gather_cached(open: &OpenFile, offsets: &[u64], length: usize, out: Out<'_>) -> Result<usize> {
    in_sections(offsets, length, out, |batch, room, section| {
        gather_in_section(open, batch, length, room, section)
    })
}

/// Divides reads among read sections: serves a batch in each, until one of them is not served whole.
fn in_sections(
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
    serve: impl Fn(&[u64], Out<'_>, &ReadSection) -> Result<usize>,
) -> Result<usize> {
    let mut done = 0;
    for batch in offsets.chunks(SECTION_READS.min(SECTION_BYTES / length.max(1)).max(1)) {
        let room = out.part(done * length..(done + batch.len()) * length);
        let served = serve(batch, room, &crate::rcu::read())?;
        done += served;
        if served < batch.len() {
            break;
        }
    }
    Ok(done)
}

fn gather_in_section(
    open: &OpenFile,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
    section: &ReadSection,
) -> Result<usize> {
    for (done, &offset) in offsets.iter().enumerate() {
        let row = out.part(done * length..(done + 1) * length);
        check_offset(offset)?;
        // A read beyond the known end is refused here: the file is looked at before it is judged.
        if read_cached(&open.mapping, row, offset, Short::Refuse, section).is_none() {
            return Ok(done);
        }
    }
    Ok(offsets.len())
}

/// Whether the file has the range now. An empty range lies in every file.
#[inline]
fn whole(open: &OpenFile, offset: u64, length: usize) -> Result<()> {
    let size = open.mapping.i_size();
    if length > 0 && offset.saturating_add(length as u64) > size {
        return Err(past_the_end(offset, size));
    }
    Ok(())
}

#[cold]
fn past_the_end(offset: u64, size: u64) -> Error {
    Error::Bus { index: offset / PAGE_SIZE as u64, offset, size, cause: None }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::store::{MemoryStore, Store};
    use crate::{Error, File, Io, Out, PAGE_SIZE, PageCache, StoreOptions, Verdict};
    use std::io;
    use std::sync::Arc;

    const PAGES: usize = 40;

    fn byte(at: u64) -> u8 {
        (at % 251) as u8
    }

    fn file(store: Arc<dyn Store>) -> (PageCache, File) {
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file = cache
            .open_store_with(
                store,
                (PAGES * PAGE_SIZE) as u64,
                StoreOptions::default().name("numbers").ra_pages(0),
            )
            .unwrap();
        (cache, file)
    }

    fn numbers() -> Vec<u8> {
        (0..(PAGES * PAGE_SIZE) as u64).map(byte).collect()
    }

    #[test]
    fn hits_and_misses_come_in_order() {
        let (cache, file) = file(Arc::new(MemoryStore::new(numbers())));
        // Across pages, twice the same, backwards; more of them than one section serves.
        let offsets: Vec<u64> = (0..200).map(|n| (n * 7919) % ((PAGES - 1) * PAGE_SIZE) as u64).collect();
        for length in [1, 100, 4096] {
            let mut out = vec![0; offsets.len() * length];
            file.gather(&offsets, length, &mut out).unwrap();
            for (row, offset) in out.chunks(length).zip(&offsets) {
                assert!((*offset..).zip(row).all(|(at, &found)| found == byte(at)), "at {offset}");
            }
        }
        assert_eq!(cache.stats().reads, 40, "each page is read once");
        cache.check().unwrap();
    }

    #[test]
    fn the_cached_part_ends_at_the_first_miss() {
        let (cache, file) = file(Arc::new(MemoryStore::new(numbers())));
        let page = PAGE_SIZE as u64;
        file.pread(&mut [0], 0).unwrap();
        file.pread(&mut [0], 2 * page).unwrap();
        let mut out = [0; 8];
        assert_eq!(file.gather_cached(&[8, 2 * page, page, 4], 2, &mut out).unwrap(), 2);
        assert_eq!(out[..4], [8, 9, byte(2 * page), byte(2 * page + 1)]);
        assert_eq!(cache.stats().reads, 2);
    }

    #[test]
    fn each_read_counts_once() {
        let (cache, file) = file(Arc::new(MemoryStore::new(numbers())));
        let page = PAGE_SIZE as u64;
        file.pread(&mut vec![0; 5 * PAGE_SIZE], 0).unwrap();
        let counts = || (cache.stats().hits, cache.stats().misses, cache.stats().reads);
        let mut before = counts();
        let mut gathers = |offsets: &[u64], length, expected| {
            let mut out = vec![0; offsets.len() * length];
            file.gather(offsets, length, &mut out).unwrap();
            for (row, offset) in out.chunks(length.max(1)).zip(offsets) {
                assert!((*offset..).zip(row).all(|(at, &found)| found == byte(at)), "at {offset}");
            }
            let after = counts();
            assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), expected);
            before = after;
        };
        let many: Vec<u64> = (0..100).map(|n| n * 97).collect();
        gathers(&many, 10, (100, 0, 0));
        assert_eq!(file.gather_cached(&many, 10, &mut [0; 1000]).unwrap(), 100);
        gathers(&many, 0, (100, 0, 0));
        gathers(&[7, page, 20 * page, 3 * page, 20 * page + 5], 10, (4, 1, 1));
        // More than a section copies.
        gathers(&[3, 9], 25 * PAGE_SIZE, (6 + 26, 20, 20));
        gathers(&[4], 25 * PAGE_SIZE, (26, 0, 0));
        cache.check().unwrap();
    }

    #[test]
    fn a_part_of_a_call_is_of_its_version() {
        let (_cache, file) = file(Arc::new(MemoryStore::new(numbers())));
        let mut out = [0; 4];
        for cached in [false, true] {
            let mut call = file.one_version().unwrap();
            assert!(file.gather_part(&call, &[5, 9000], 2, Out::from(&mut out[..])).unwrap());
            assert_eq!(out, [5, 6, byte(9000), byte(9001)]);
            file.revalidate_dropping().unwrap();
            if cached {
                file.pread(&mut [0; 9100], 0).unwrap();
            }
            assert!(!file.gather_part(&call, &[5, 9000], 2, Out::from(&mut out[..])).unwrap());
            assert_eq!(file.judge(&mut call, false).unwrap(), Verdict::Again);
            assert!(file.gather_part(&call, &[5, 9000], 2, Out::from(&mut out[..])).unwrap());
        }
        let call = file.one_version().unwrap();
        let refused = file.gather_part(&call, &[5], 2, Out::from(&mut out[..]));
        assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (cache, file) = file(Arc::new(MemoryStore::new(numbers())));
        let size = file.size().unwrap();
        for (offset, length) in [(size - 1, 2), (size, 1), (size + 5, 3)] {
            let mut out = vec![0; 2 * length];
            let answer = file.gather(&[0, offset], length, &mut out);
            assert!(
                matches!(answer, Err(Error::Bus { index, offset: at, size: of, cause: None })
                    if (index, at, of) == (offset / PAGE_SIZE as u64, offset, size)),
                "{answer:?}"
            );
        }
        assert_eq!(cache.stats().reads, 1, "of what does not fit nothing is read");
        file.gather(&[size + 5], 0, &mut []).unwrap();
        file.gather(&[size - 2], 2, &mut [0; 2]).unwrap();
        for offset in [(1 << 44) + 1, u64::MAX] {
            let answer = file.gather(&[offset], 1, &mut [0]);
            assert!(
                matches!(&answer, Err(Error::InvalidArgument(text)) if text.contains(&offset.to_string()))
            );
        }
        let answer = file.gather(&[0, 1], 3, &mut [0; 5]);
        assert!(matches!(&answer, Err(Error::InvalidArgument(text)) if text.contains("2 reads of 3 bytes")));
        assert!(matches!(file.gather(&[0, 1], usize::MAX, &mut []), Err(Error::InvalidArgument(_))));
        for (offsets, length) in [([0, 1], 3), ([0, u64::MAX], 2), ([0, (1 << 44) + 1], 2)] {
            let answer = file.gather_cached(&offsets, length, &mut [0; 4]);
            assert!(matches!(answer, Err(Error::InvalidArgument(_))), "{answer:?}");
        }
        file.close().unwrap();
        assert!(matches!(file.gather(&[], 1, &mut []), Err(Error::Closed(_))));
    }

    /// The store of the third page has gone.
    struct Broken;

    impl Store for Broken {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            if offset / PAGE_SIZE as u64 == 3 {
                return Err(io::Error::from_raw_os_error(5));
            }
            buf.fill(1);
            Ok(buf.len())
        }
    }

    #[test]
    fn a_read_that_fails_ends_it() {
        let (cache, file) = file(Arc::new(Broken));
        let page = PAGE_SIZE as u64;
        let mut out = [0; 3];
        let answer = file.gather(&[0, 3 * page, 5 * page], 1, &mut out);
        assert!(matches!(answer, Err(Error::Io(_))));
        assert_eq!(out[0], 1);
        assert_eq!(file.residency(5, Some(1)).unwrap(), [0], "what follows is not read");
        cache.check().unwrap();
    }
}
