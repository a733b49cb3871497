//! The arena: anonymous memory for the bytes of all frames, taken from the system page by page as it is used.

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
#[allow(unsafe_code, reason = "the arena is raw memory from mmap(2)")]
mod imp {
    use super::super::PAGE_SIZE;
    use crate::error::{Error, Result};
    use crate::page::WORDS;
    use crate::sync::AtomicU64;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::ptr::NonNull;

    #[derive(Debug)]
    pub(crate) struct Memory {
        words: NonNull<AtomicU64>,
        frames: usize,
    }

    // SAFETY: the memory is owned, fixed, and only ever accessed as atomics.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    impl Memory {
        pub(crate) fn new(frames: usize) -> Result<Self> {
            let refused = || {
                Error::InvalidArgument(format!("capacity of {frames} pages: the system has no room for it"))
            };
            let bytes =
                frames.checked_mul(PAGE_SIZE).filter(|&n| isize::try_from(n).is_ok()).ok_or_else(refused)?;
            // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing that exists.
            let start = unsafe {
                mmap_anonymous(
                    std::ptr::null_mut(),
                    bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::NORESERVE,
                )
            }
            .map_err(|_| refused())?;
            let words = NonNull::new(start.cast()).ok_or_else(refused)?;
            Ok(Self { words, frames })
        }

        #[inline]
        pub(crate) fn words(&self, frame: usize) -> &[AtomicU64] {
            assert!(frame < self.frames);
            // SAFETY: in range by the assertion; zeroed anonymous memory is valid for atomics, page-aligned, and lives
            // as long as `self`.
            unsafe { std::slice::from_raw_parts(self.words.as_ptr().add(frame * WORDS), WORDS) }
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: the mapping is ours and borrows of it end with `self`. A failure would leak it, no more.
            let _ = unsafe { munmap(self.words.as_ptr().cast(), self.frames * PAGE_SIZE) };
        }
    }
}

#[cfg(any(specmm_loom, specmm_shuttle))]
mod imp {
    use crate::error::Result;
    use crate::page::WORDS;
    use crate::sync::AtomicU64;

    #[derive(Debug)]
    pub(crate) struct Memory(Vec<AtomicU64>);

    impl Memory {
        #[allow(clippy::unnecessary_wraps, reason = "as what ships")]
        pub(crate) fn new(frames: usize) -> Result<Self> {
            Ok(Self((0..frames * WORDS).map(|_| AtomicU64::new(0)).collect()))
        }
        pub(crate) fn words(&self, frame: usize) -> &[AtomicU64] {
            &self.0[frame * WORDS..(frame + 1) * WORDS]
        }
    }
}

pub(crate) use imp::Memory;
