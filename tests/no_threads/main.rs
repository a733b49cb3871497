//! Who reads and who makes room where the system has no memory for another thread: the callers, and nothing waits for a thread
//! that never began. The limit is one on the address space.
#![cfg(not(any(specmm_loom, specmm_shuttle)))]
#![allow(missing_docs, reason = "a test suite")]
#![allow(unsafe_code, reason = "a limit of the process")]

use specmm::store::Store;
use specmm::{Io, PAGE_SIZE, PageCache};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PAGE: u64 = PAGE_SIZE as u64;
/// More than a cache without background reclaim has.
const FRAMES: u64 = 512;
const PAGES: u64 = 4 * FRAMES;

/// Limits the address space to so much more than the process has now.
fn limit(more: Option<u64>) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let has: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls read and write `limits` only.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &raw mut limits), 0);
        limits.rlim_cur = more.map_or(limits.rlim_max, |more| (has << 10) + more);
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const limits), 0);
    }
}

/// Counts reads by callers and by the cache's threads.
#[derive(Default)]
struct Watched([AtomicU64; 2]);

impl Watched {
    /// Since the last call.
    fn reads(&self) -> [u64; 2] {
        self.0.each_ref().map(|reads| reads.swap(0, Relaxed))
    }
}

impl Store for Watched {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        let is_worker = std::thread::current().name() == Some("specmm-io");
        self.0[usize::from(is_worker)].fetch_add(1, Relaxed);
        Ok(buf.len())
    }

    fn truncate(&self, _size: u64) -> std::io::Result<()> {
        Ok(())
    }
}

/// In one test: the limit is the process's.
#[test]
fn without_room_for_a_thread_callers_read_and_reclaim() {
    // Room for what the calls allocate but for no thread's stack; for a stack, but not for what every thread may reserve; for all.
    for (more, has_workers) in [(Some(3 << 20), false), (Some(256 << 20), true), (None, true)] {
        let cache = PageCache::new(FRAMES * PAGE, Io::Threads).unwrap();
        let store = Arc::new(Watched::default());
        let file = cache.open_store(Arc::clone(&store) as Arc<dyn Store>, PAGES * PAGE).unwrap();
        let read = || {
            let before = cache.stats();
            for page in 0..PAGES {
                file.pread(&mut [0], page * PAGE).unwrap();
            }
            cache.settle();
            let after = cache.stats();
            let direct = after.direct_reclaims - before.direct_reclaims;
            (store.reads(), direct, after.evictions_background - before.evictions_background)
        };
        limit(more);
        let ([by_callers, by_workers], direct, background) = read();
        limit(None);
        assert_eq!((by_workers > 0, background > 0), (has_workers, has_workers), "with {more:?} more bytes");
        assert!(has_workers || (by_callers > 0 && direct > 0));
        // Threads begin once there is room.
        let ([_, by_workers], _, background) = read();
        assert!(by_workers > 0 && background > 0, "after {more:?} more bytes");
        cache.check().unwrap();
    }
}
