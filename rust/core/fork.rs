//! fork(2): what a child does before it uses this library.
//!
//! A child has a copy of its parent's memory and only the thread that forked. Every other thread stopped wherever it was:
//! inside a read section, holding a page lock, halfway through a change. So nothing of the parent is used in the child, and
//! no lock is taken before the fork, which would have to wait for readers and for stores.
//!
//! | state | in the child |
//! |---|---|
//! | the RCU domain: slots, locks, deferred work | a new one; the parent's sections are forgotten and its deferred work is left to it |
//! | thread numbers | begin anew |
//! | `membarrier(2)` | registered again at the first section |
//! | a [`PageCache`](crate::PageCache), its frames, locks and workers | must not be used any more, nor dropped: see below |
//! | a [`File`](crate::File) | is opened again by [`PageCache::adopt`](crate::PageCache::adopt), which touches no lock of the parent's cache |
//! | an [`Mm`](crate::Mm) | as the cache |
//!
//! A program forgets ([`std::mem::forget`]) the caches, files and address spaces that it inherited, because dropping them
//! would take their locks and wait for threads that are not there. The Python binding does all of this by itself.
//!
//! A new lock that the process has once belongs into a `sync::PerProcess`, and its `forked` is called below.

/// Makes the library usable in a child of fork. The child calls it once, before anything else here.
///
/// ```standalone_crate
/// # unsafe extern "C" { fn fork() -> i32; fn _exit(code: i32) -> !; fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32; }
/// use specmm::{Io, PageCache, store::MemoryStore};
/// use std::sync::Arc;
///
/// let cache = PageCache::new(1 << 20, Io::Threads)?;
/// let file = cache.open_store(Arc::new(MemoryStore::new(vec![7; 10_000])), 10_000, "sevens", 32)?;
/// // SAFETY: the child calls `fork::child` first, and leaves by `_exit`.
/// let child = unsafe { fork() };
/// if child == 0 {
///     // SAFETY: nothing was called in this process before.
///     unsafe { specmm::fork::child() };
///     let own = PageCache::new(1 << 20, Io::Threads).unwrap();
///     let mut buf = [0; 3];
///     own.adopt(&file).unwrap().pread(&mut buf, 5000).unwrap();
///     // SAFETY: ends this process at once.
///     unsafe { _exit(i32::from(buf != [7; 3])) };
/// }
/// let mut status = -1;
/// // SAFETY: `status` is there to be written.
/// assert_eq!(unsafe { waitpid(child, &raw mut status, 0) }, child);
/// assert_eq!(status, 0);
/// # Ok::<(), specmm::Error>(())
/// ```
///
/// # Safety
/// The process is the child of a fork, and the calling thread, which forked, is its only one so far. The fork was not made
/// inside an [`rcu::read`](crate::rcu::read) section or a call of this library, but for a [`Store`](crate::store::Store)
/// that this library called: such a store must not return in the child.
pub unsafe fn child() {
    crate::sync::thread_slot::forked();
    crate::rcu::forked();
}
