//! Reading past the cache, twice, for files whose version keeps changing.
//!
//! Owns: such a read. Does not own the decision to make one (`one_version`). If two successive reads agree, all of it was in the
//! file at the moment between them. Linux has `O_DIRECT`, which guarantees less.

use super::coherence::look;
use super::one_version::{OneVersion, count_rewritten, look_at_rest};
use super::open_file::OpenFile;
use super::patience::should_give_up;
use super::stats::Stat;
use crate::error::{Error, IoError, Result};
use crate::page::{Out, PAGE_SIZE};
use crate::store::Change;
use crate::sync::{guard, operation};
use std::hash::{DefaultHasher, Hasher};

/// Reads `length` bytes at each offset past the cache, twice. If both reads agree and meanwhile the file was at most touched (its
/// ctime moved) or grew, everything read was in the file at the moment between them, and the result is the length of the last
/// read: less than `length` at the end of the file. Otherwise returns None and counts one attempt of the call.
pub(super) fn read_twice(
    open: &OpenFile,
    call: &mut OneVersion,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
) -> Result<Option<usize>> {
    operation!("read");
    let Some(before) = look_at_rest(&open.mapping)? else {
        count_rewritten(&open.mapping, call)?;
        return Ok(None);
    };
    let end = before.size.unwrap_or(u64::MAX);
    let all = out.part(0..offsets.len() * length);
    let first = read_past_the_cache(open, offsets, length, end, Some(all))?;
    let between = look(&open.mapping)?;
    let second = read_past_the_cache(open, offsets, length, end, None)?;
    let after = look(&open.mapping)?;
    let stood_still = between.since(&before) != Change::Written && after.since(&between) != Change::Written;
    if guard!("read_twice.agree", first == second) && guard!("read_twice.stood_still", stood_still) {
        return Ok(Some(first.1));
    }
    count_rewritten(&open.mapping, call)?;
    Ok(None)
}

/// Hashes the bytes before `end`, and copies them to `out` if there is one. Returns the hash and the length of the last read.
fn read_past_the_cache(
    open: &OpenFile,
    offsets: &[u64],
    length: usize,
    end: u64,
    mut out: Option<Out<'_>>,
) -> Result<(u64, usize)> {
    let mapping = &open.mapping;
    let mut buffer = mapping.shared.in_flight.buffer(length.next_multiple_of(PAGE_SIZE))?;
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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use crate::cache::patience::tests::give_up;
    use crate::store::{Look, Store};
    use crate::sync::{Mutex, Tally};
    use crate::{Error, File, Io, Out, PageCache, StoreOptions};
    use std::io;
    use std::sync::Arc;

    const SIZE: u64 = 3 << 20;

    fn byte(at: u64) -> u8 {
        (at % 251) as u8
    }

    type Change = Box<dyn FnMut(u64, &mut Look, &mut u8) + Send>;

    /// A file whose bytes are shifted by a number; each read and each look is told to `change` first.
    struct Shifting {
        state: Mutex<(Look, u8, Change)>,
        reads: Tally,
        calls: Tally,
    }

    impl Shifting {
        fn turn(&self) -> (Look, u8) {
            self.calls.add(1);
            let (look, shift, change) = &mut *self.state.lock();
            change(self.calls.tallied(), look, shift);
            (*look, *shift)
        }
    }

    impl Store for Shifting {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.reads.add(1);
            let (look, shift) = self.turn();
            let n = (look.size.unwrap_or(SIZE).saturating_sub(offset) as usize).min(buf.len());
            for (at, byte_) in (offset..).zip(&mut buf[..n]) {
                *byte_ = byte(at).wrapping_add(shift);
            }
            Ok(n)
        }

        fn look(&self) -> io::Result<Look> {
            Ok(self.turn().0)
        }
    }

    fn open(
        change: impl FnMut(u64, &mut Look, &mut u8) + Send + 'static,
    ) -> (Arc<Shifting>, PageCache, File) {
        let look = Look { size: Some(SIZE), version: Some(5), changed: Some(7) };
        let state = Mutex::new((look, 0, Box::new(|_: u64, _: &mut Look, _: &mut u8| {}) as Change));
        let store = Shifting { state, reads: Tally::new(), calls: Tally::new() };
        let store = Arc::new(store);
        let cache = PageCache::new(8 << 20, Io::Inline).unwrap();
        let options = StoreOptions::default().name("shifting").ra_pages(0);
        let file = cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, SIZE, options).unwrap();
        // The first call after this is number 1.
        let opened = store.calls.tallied();
        let mut change = change;
        store.state.lock().2 = Box::new(move |call, look, shift| change(call - opened, look, shift));
        (store, cache, file)
    }

    #[test]
    fn each_range_is_read_twice_in_pieces_of_a_mebibyte() {
        let (store, cache, file) = open(|_, _, _| {});
        let mut call = file.one_version().unwrap();
        // Offsets, length, reads of each of the two passes, and the length of the last.
        for (offsets, length, reads, last) in [
            (vec![5], 10, 1, 10),
            (vec![5, 5000, 70], 10, 3, 10),
            (vec![0], 2 << 20, 2, 2 << 20),
            (vec![1], (1 << 20) + 1, 2, (1 << 20) + 1),
            (vec![9, SIZE - 4], 10, 2, 4),
            (vec![SIZE - 4, 9], 10, 2, 10),
            (vec![SIZE, 3], 10, 1, 10),
            (vec![3, SIZE], 10, 1, 0),
            (vec![SIZE + 9], 10, 0, 0),
            (vec![], 10, 0, 0),
            (vec![4], 0, 0, 0),
        ] {
            let before = (store.reads.tallied(), cache.stats());
            let mut out = vec![0xff; offsets.len() * length];
            let read = file.read_twice(&mut call, &offsets, length, Out::from(&mut out[..])).unwrap();
            assert_eq!(read, Some(last), "{offsets:?} {length}");
            assert_eq!(store.reads.tallied() - before.0, 2 * reads, "{offsets:?} {length}");
            assert_eq!(cache.stats().reads - before.1.reads, 2 * reads);
            for (row, &offset) in out.chunks(length.max(1)).zip(&offsets) {
                let has = (SIZE.saturating_sub(offset) as usize).min(length);
                assert!(row[..has].iter().zip(offset..).all(|(&found, at)| found == byte(at)));
                assert!(row[has..].iter().all(|&rest| rest == 0xff), "what the file does not have stays");
            }
        }
        assert_eq!(cache.stats().frames_in_use, 0, "past the cache");
        assert_eq!(cache.stats().bytes_in_flight, 0);
        let refused = file.read_twice(&mut call, &[0], 3, Out::from(&mut [0; 4][..]));
        assert!(matches!(refused, Err(Error::InvalidArgument(_))));
        cache.check().unwrap();
    }

    #[test]
    fn two_reads_that_differ_count_as_a_try() {
        // A look, a read, a look, a read, a look: what changes at one of them, and whether the call notices.
        type Change = fn(&mut Look, &mut u8);
        let bytes: Change = |_, shift| *shift += 1;
        let written: Change = |look, _| look.version = Some(6);
        let touched: Change = |look, _| look.changed = Some(8);
        let grown: Change = |look, _| look.size = Some(SIZE + 9);
        let shorter: Change = |look, _| look.size = Some(20);
        for (change, noticed) in [
            (bytes, [false, false, true, true, false]),
            (written, [false, true, true, true, true]),
            (touched, [false; 5]),
            (grown, [false; 5]),
            (shorter, [false, true, true, true, true]),
        ] {
            for at in 1..=5 {
                let (_store, cache, file) = open(move |call, look, shift| {
                    if call == at {
                        change(look, shift);
                    }
                });
                let mut call = file.one_version_now().unwrap().unwrap();
                let mut out = [0; 8];
                let read = file.read_twice(&mut call, &[10], 8, Out::from(&mut out[..])).unwrap();
                assert_eq!(read.is_none(), noticed[at as usize - 1], "{at} {read:?}");
                cache.check().unwrap();
            }
        }
    }

    /// Of zeros, like the ends of pages; the first and the fifth read find only half of what they ask for.
    struct Halves(Tally);

    impl Store for Halves {
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
            self.0.add(1);
            let n = if [1, 5].contains(&self.0.tallied()) { buf.len() / 2 } else { buf.len() };
            buf[..n].fill(0);
            Ok(n)
        }
    }

    #[test]
    fn where_each_range_ends_is_part_of_what_is_compared() {
        let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
        let file = cache.open_store(Arc::new(Halves(Tally::new())), SIZE).unwrap();
        let mut call = file.one_version().unwrap();
        let mut read = || file.read_twice(&mut call, &[0, 100, 200], 8, Out::from(&mut [0; 24][..]));
        assert_eq!((read().unwrap(), read().unwrap()), (None, Some(8)));
    }

    /// The time of a write that begins now.
    fn now() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_nanos()).unwrap()
    }

    #[test]
    fn a_file_that_differs_each_time_is_stale_at_the_third() {
        type Change = fn(u64, &mut Look, &mut u8);
        let differs: Change = |_, _, shift| *shift = shift.wrapping_add(1);
        let is_never_at_rest: Change = |_, look, _| look.version = Some(now());
        for change in [differs, is_never_at_rest] {
            let (_store, _cache, file) = open(change);
            let mut call = file.one_version_now().unwrap().unwrap();
            let mut read = || file.read_twice(&mut call, &[10], 8, Out::from(&mut [0; 8][..]));
            assert_eq!((read().unwrap(), read().unwrap()), (None, None));
            let stale = read();
            assert!(
                matches!(&stale, Err(Error::Io(error)) if error.errno() == 116 && error.file == "shifting"),
                "{stale:?}"
            );
        }
    }

    #[test]
    fn a_long_read_can_be_given_up_between_two_pieces() {
        let (store, cache, file) = open(|_, _, _| {});
        let mut call = file.one_version().unwrap();
        let mut out = vec![0; 2 << 20];
        give_up(true);
        let left = file.read_twice(&mut call, &[0], out.len(), Out::from(&mut out[..]));
        give_up(false);
        assert!(matches!(&left, Err(Error::Interrupted(name)) if name == "shifting"), "{left:?}");
        assert_eq!((store.reads.tallied(), cache.stats().bytes_in_flight), (1, 0));
    }

    #[test]
    fn it_waits_until_the_last_write_has_ended() {
        // Written once, written before each of the first looks, or appended to.
        for (writes, looks, rests) in
            [(1, 2 + 2, true), (2, 3 + 2, true), (3, 4, false), (9, 4, false), (0, 2 + 2, true)]
        {
            let found = || {
                let (store, _cache, file) = open(move |call, look, _| {
                    if call <= writes.max(1) {
                        look.version = Some(now());
                    }
                    if writes == 0 && call == 2 {
                        look.size = Some(SIZE + 9);
                        look.version = Some(now());
                    }
                });
                let mut call = file.one_version_now().unwrap().unwrap();
                let before = (store.calls.tallied(), store.reads.tallied());
                let read = file.read_twice(&mut call, &[10], 8, Out::from(&mut [0; 8][..])).unwrap();
                let looked = store.calls.tallied() - before.0 - (store.reads.tallied() - before.1);
                (read.is_some(), looked)
            };
            // A machine that stops for longer than a version is young sees an old one.
            assert!((0..5).any(|_| found() == (rests, looks)), "{writes}: {:?}", found());
        }
    }
}
