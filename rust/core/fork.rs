//! fork(2): what a child inherits from its parent.
//!
//! A child has a copy of its parent's memory, but only the thread that forked. Every other thread stopped wherever it was: inside
//! a read section, holding a page lock, halfway through a change. So the child uses nothing of the parent's, and no lock is taken
//! before the fork, which would have to wait for readers and stores.
//!
//! A child need not announce itself: a page that the kernel wipes in children tells (`MADV_WIPEONFORK`), whoever forked and
//! however.
//!
//! | state | in the child |
//! |---|---|
//! | the RCU domain: locks, deferred work | a new one; the parent's deferred work is left to it |
//! | slots and numbers of threads | wiped: the parent's sections are forgotten |
//! | `membarrier(2)` | registered again at the first section |
//! | a [`PageCache`](crate::PageCache), its frames, locks and workers | must not be used any more, nor dropped: see below |
//! | a [`File`](crate::File) | is opened again by [`PageCache::adopt`](crate::PageCache::adopt), which touches no lock of the parent's cache |
//! | an [`Mm`](crate::Mm) | as the cache |
//!
//! A program must forget ([`std::mem::forget`]) the caches, files and address spaces that it inherited, because dropping them
//! would take their locks and wait for threads that do not exist. The Python binding does all of this by itself. If a
//! [`Store`](crate::store::Store) forks while this library is calling it, it must not return in the child.
//!
//! ```standalone_crate
//! # unsafe extern "C" { fn fork() -> i32; fn _exit(code: i32) -> !; fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32; }
//! use specmm::{Io, PageCache, store::MemoryStore};
//! use std::sync::Arc;
//!
//! let cache = PageCache::new(1 << 20, Io::Threads)?;
//! let file = cache.open_store(Arc::new(MemoryStore::new(vec![7; 10_000])), 10_000)?;
//! // SAFETY: the child leaves by `_exit`.
//! let child = unsafe { fork() };
//! if child == 0 {
//!     let own = PageCache::new(1 << 20, Io::Threads).unwrap();
//!     let mut buf = [0; 3];
//!     own.adopt(&file).unwrap().pread(&mut buf, 5000).unwrap();
//!     // SAFETY: ends this process at once.
//!     unsafe { _exit(i32::from(buf != [7; 3])) };
//! }
//! let mut status = -1;
//! // SAFETY: `status` is there to be written.
//! assert_eq!(unsafe { waitpid(child, &raw mut status, 0) }, child);
//! assert_eq!(status, 0);
//! # Ok::<(), specmm::Error>(())
//! ```
