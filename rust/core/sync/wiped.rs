//! Memory that a forked child finds zeroed, and the number that tells a process from its ancestors.
//!
//! A pid is not enough: the first process of a pid namespace has pid 1, as its parent may have too. Nor is a hook: C code can
//! fork without calling it. Memory that the kernel wipes always tells (`MADV_WIPEONFORK`, Linux 4.14); where the kernel does not
//! know that advice, a handler of `pthread_atfork` wipes, which misses only forks that bypass the C library.

use super::{AtomicPtr, AtomicU64, Numbers, Ordering};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ptr::{NonNull, null_mut};

/// Zeroed memory that is taken from the system as it is used, and zeroed again in each child: by the kernel, else by `wipe`.
/// `None`: the system has no memory.
pub(super) fn map(bytes: usize, wipe: extern "C" fn()) -> Option<NonNull<u8>> {
    // SAFETY: a fresh private mapping at an address that the kernel chooses touches nothing that exists.
    let start = unsafe {
        mmap_anonymous(
            null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    };
    let start = NonNull::new(start.ok()?.cast::<u8>())?;
    // The variable is for tests of the fallback.
    let by_kernel = std::env::var_os("SPECMM_NO_WIPEONFORK").is_none()
        // SAFETY: the range is the mapping just made.
        && unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxWipeOnFork) }.is_ok();
    if !by_kernel {
        wipe_by_hand(wipe);
    }
    Some(start)
}

/// Returns memory to the system whose address only the caller knows.
pub(super) fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller got it from `map` and did not share its address.
    let _leaked_if_refused = unsafe { munmap(start.as_ptr().cast(), bytes) };
}

#[cold]
fn wipe_by_hand(wipe: extern "C" fn()) {
    // SAFETY: handlers only store into memory that is never given back.
    let _short_of_memory = unsafe { libc::pthread_atfork(None, None, Some(wipe)) };
}

/// A word in wiped memory: the number of this process, or 0 before the first call. Relaxed throughout: the word orders no other
/// memory, and the kernel has zeroed it.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());

/// Used instead of the word if there is no page for it.
static PLAIN: AtomicU64 = AtomicU64::new(0);

/// The greatest number given out in this process or, before its fork, in an ancestor.
static LAST: Numbers = Numbers::new();

/// The number of this process among its ancestors and itself: greater than each of theirs. The first call in a child of a
/// fork, however it was made, gives it one.
#[inline]
pub(crate) fn epoch() -> u64 {
    // SAFETY: null, or a word that is never given back.
    match unsafe { WORD.load(Ordering::Relaxed).as_ref() } {
        Some(word) => match word.load(Ordering::Relaxed) {
            0 => begin(word),
            epoch => epoch,
        },
        None => begin(word()),
    }
}

#[cold]
fn begin(word: &AtomicU64) -> u64 {
    let mine = LAST.next();
    match word.compare_exchange(0, mine, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => mine,
        Err(faster) => faster,
    }
}

#[cold]
fn word() -> &'static AtomicU64 {
    const BYTES: usize = size_of::<AtomicU64>();
    let mapped = map(BYTES, wipe_word);
    if mapped.is_none() {
        // Before another thread can find the word, number it, and fork.
        wipe_by_hand(wipe_word);
    }
    let mine = mapped.map_or((&raw const PLAIN).cast_mut(), |page| page.as_ptr().cast());
    let word = match WORD.compare_exchange(null_mut(), mine, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => mine,
        Err(faster) => {
            if let Some(page) = mapped {
                unmap(page, BYTES);
            }
            faster
        }
    };
    // SAFETY: a static, or a page of zeros that is never given back.
    unsafe { &*word }
}

extern "C" fn wipe_word() {
    // SAFETY: as in `epoch`.
    if let Some(word) = unsafe { WORD.load(Ordering::Relaxed).as_ref() } {
        word.store(0, Ordering::Relaxed);
    }
}
