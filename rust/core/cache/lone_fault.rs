//! `filemap_fault` alone, without an address space: for showing and comparing its two forms.
//!
//! Owns: the result of such a call. Does not own the two forms (`filemap`, `speculation`). Waits as the classic form does between
//! its passes.

use super::advice::{Advice, Pattern};
use super::coherence::follow_changes;
use super::filemap::{Pass, Step, filemap_fault, unblock};
use super::open_file::OpenFile;
use super::read_error::may_come;
use super::speculation::filemap_fault_speculative;
use super::vm_fault::{Abort, VmFault};
use super::wait::NotRead;
use crate::error::Result;
use crate::sync::operation;
use std::sync::Arc;

/// The result of [`File::filemap_fault`](super::File::filemap_fault).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilemapFault {
    /// LOCKED, possibly with MAJOR; RETRY if speculation aborted; SIGBUS or OOM.
    pub result: VmFault,
    /// Why speculation aborted.
    pub abort: Option<Abort>,
}

/// The speculative form alone; the page is unlocked and put before this returns.
pub(super) fn fault_speculatively(open: &OpenFile, index: u64) -> FilemapFault {
    operation!("speculative fault");
    let section = crate::rcu::read();
    match filemap_fault_speculative(&open.mapping, index, &section) {
        Ok(_held) => FilemapFault { result: VmFault::LOCKED, abort: None },
        Err(abort) => FilemapFault { result: VmFault::RETRY, abort: Some(abort) },
    }
}

/// The classic form alone, repeated until it is LOCKED or fails.
pub(super) fn fault_classically(open: &Arc<OpenFile>, index: u64) -> Result<FilemapFault> {
    operation!("classic fault");
    let pattern = match open.advice() {
        Advice::Random => Pattern::Random,
        Advice::Sequential => Pattern::Sequential,
        _ => Pattern::Normal,
    };
    let mut pass = Pass::First;
    let mut result = VmFault::NONE;
    loop {
        let answer = filemap_fault(open, index, pattern, pass);
        let missed = if answer.missed { VmFault::MAJOR } else { VmFault::NONE };
        // As in Linux, an error adds no MAJOR of its own pass: only earlier passes contribute it.
        let end = match answer.step {
            Step::Locked(_held) => VmFault::LOCKED | missed,
            Step::Unreadable(error) if may_come(&open.mapping, &error) => {
                follow_changes(&open.mapping)?;
                continue;
            }
            Step::Beyond(_) | Step::Unreadable(_) => VmFault::SIGBUS,
            Step::NoMemory(_) => VmFault::OOM,
            Step::Blocked(blocked) => {
                let unblocked = unblock(open, index, blocked, pass);
                if unblocked.is_ok() {
                    result |= missed;
                }
                match unblocked {
                    Ok(true) => {
                        pass = Pass::Tried;
                        continue;
                    }
                    Ok(false) => VmFault::OOM,
                    Err(NotRead::Failed(error)) if may_come(&open.mapping, &error) => {
                        follow_changes(&open.mapping)?;
                        continue;
                    }
                    Err(NotRead::Failed(_)) => VmFault::SIGBUS,
                    Err(NotRead::Left(error)) => return Err(error),
                }
            }
        };
        return Ok(FilemapFault { result: result | end, abort: None });
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::Error;
    use crate::cache::{CacheOptions, File, Io, PageCache, StoreOptions};
    use crate::page::PAGE_SIZE;
    use crate::store::{Fault, FaultyStore, Look, MemoryStore, Plan, ReadBy, Store};
    use crate::sync::{AtomicU64, Numbers, Ordering};
    use std::io;
    use std::time::Duration;

    const PAGE: u64 = PAGE_SIZE as u64;

    /// A file of three pages and a bit, without readahead, in which this read goes wrong.
    fn opened(frames: u64, plan: Plan) -> (PageCache, File) {
        let options = CacheOptions::default().io(Io::Inline).frame_timeout(Duration::ZERO);
        let cache = PageCache::with_options(frames * PAGE, options).unwrap();
        let size = 3 * PAGE + 1;
        let store = FaultyStore::new(Arc::new(MemoryStore::new(vec![7; size as usize])), plan);
        let file = cache.open_store_with(Arc::new(store), size, StoreOptions::default().ra_pages(0)).unwrap();
        (cache, file)
    }

    fn fault(file: &File, index: u64, speculative: bool) -> (VmFault, Option<Abort>) {
        let FilemapFault { result, abort } = file.filemap_fault(index, speculative).unwrap();
        (result, abort)
    }

    #[test]
    fn a_fault_alone_says_how_it_ended_and_leaves_nothing_locked() {
        let (cache, file) = opened(8, Plan { read: 2, fault: Fault::Error(5), for_ever: true });
        let major = VmFault::LOCKED | VmFault::MAJOR;
        for (index, speculative, result, abort) in [
            (0, true, VmFault::RETRY, Some(Abort::FileMiss)),
            (0, false, major, None),
            (0, false, VmFault::LOCKED, None),
            (0, true, VmFault::LOCKED, None),
            (4, false, VmFault::SIGBUS, None),
            (4, true, VmFault::RETRY, Some(Abort::FileMiss)),
            // Its first pass missed, and so has read; the next failed.
            (3, false, VmFault::SIGBUS | VmFault::MAJOR, None),
            (3, false, VmFault::SIGBUS, None),
        ] {
            assert_eq!(fault(&file, index, speculative), (result, abort), "{index} {speculative}");
            cache.check().unwrap();
        }
    }

    #[test]
    fn a_store_that_stalls_may_fail_too() {
        let plan = Plan { read: 1, fault: Fault::Error(5), for_ever: true };
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(vec![7; PAGE_SIZE])), plan));
        let cache = PageCache::new(8 * PAGE, Io::Threads).unwrap();
        let options = StoreOptions::default().ra_pages(0).timeout(Duration::from_secs(60));
        let file = cache.open_store_with(store, PAGE, options).unwrap();
        assert_eq!(fault(&file, 0, false), (VmFault::SIGBUS | VmFault::MAJOR, None));
        assert_eq!(fault(&file, 0, false), (VmFault::SIGBUS, None));
        cache.check().unwrap();
    }

    /// A store that others write to during each of its first reads, and that then can be looked at once.
    struct Rewritten {
        by: ReadBy,
        changes: u64,
        blind_after: u64,
        reads: Numbers,
        looked_after: AtomicU64,
    }

    impl Store for Rewritten {
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
            self.reads.next();
            Ok(buf.len())
        }

        fn read_by(&self) -> ReadBy {
            self.by
        }

        fn look(&self) -> io::Result<Look> {
            let reads = self.reads.drawn();
            if self.looked_after.swap(reads, Ordering::Relaxed) == reads && reads == self.blind_after {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Ok(Look { size: Some(PAGE), version: Some(reads.min(self.changes)), changed: None })
        }
    }

    #[test]
    fn what_changes_while_it_is_read_is_followed_and_read_again() {
        let good = Some(VmFault::LOCKED | VmFault::MAJOR);
        let bad = Some(VmFault::SIGBUS | VmFault::MAJOR);
        for (by, changes, blind_after, result, reads) in [
            (ReadBy::Caller, 1, 0, good, 3),
            (ReadBy::Caller, 3, 0, good, 4),
            (ReadBy::Caller, 2, 2, None, 2),
            (ReadBy::Caller, u64::MAX, 0, bad, 101),
            (ReadBy::Workers { timeout: None }, 2, 0, good, 3),
            (ReadBy::Workers { timeout: None }, 3, 0, good, 4),
            (ReadBy::Workers { timeout: None }, 2, 2, None, 2),
            (ReadBy::Workers { timeout: None }, u64::MAX, 0, bad, 101),
        ] {
            let looked_after = AtomicU64::new(u64::MAX);
            let store = Rewritten { by, changes, blind_after, reads: Numbers::new(), looked_after };
            let store = Arc::new(store);
            // A caller that reads inline does so whatever the store asks for.
            let io = if by == ReadBy::Caller { Io::Inline } else { Io::Threads };
            let cache = PageCache::new(8 * PAGE, io).unwrap();
            let options = StoreOptions::default().ra_pages(0);
            let file = cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, PAGE, options).unwrap();
            match file.filemap_fault(0, false) {
                Ok(fault) => assert_eq!(Some(fault.result), result, "{by:?}, {changes} changes"),
                Err(Error::Io(error)) => {
                    assert_eq!((error.source.kind(), result), (io::ErrorKind::PermissionDenied, None));
                }
                Err(error) => panic!("{error:?}"),
            }
            assert_eq!(store.reads.drawn(), reads, "{by:?}, {changes} changes");
            cache.check().unwrap();
        }
    }

    #[test]
    fn without_a_frame_it_is_out_of_memory() {
        let (cache, file) = opened(1, Plan { read: 9, fault: Fault::Error(5), for_ever: false });
        let pin = file.pin(0, 1).unwrap();
        assert_eq!(fault(&file, 1, false).0, VmFault::OOM | VmFault::MAJOR);
        drop(pin);
        assert_eq!(fault(&file, 1, false).0, VmFault::LOCKED | VmFault::MAJOR);
        cache.check().unwrap();
    }
}
