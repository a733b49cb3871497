//! Arrays sized by the capacity of a cache: memory that starts zeroed and that the system allocates page by page, as it is used.
//!
//! So a new cache costs a few calls of mmap(2), however large it is.

use super::WORDS;
use crate::sync::AtomicU64;

/// Types that may start as zeros.
///
/// # Safety
/// All bytes zero are a value of the type, and dropping one does nothing.
pub(super) unsafe trait Zero: Sized {
    /// That value, for the model checkers.
    #[cfg(any(specmm_loom, specmm_shuttle))]
    fn zero() -> Self;
}

macro_rules! begins_as_zeros {
    ($($type:ty: $zero:expr),*) => {$(
        // SAFETY: integers and atomics of them, for which zero is a value, and no drop.
        unsafe impl Zero for $type {
            #[cfg(any(specmm_loom, specmm_shuttle))]
            fn zero() -> Self {
                $zero
            }
        }
    )*};
}

begins_as_zeros! {
    u32: 0,
    u64: 0,
    [AtomicU64; WORDS]: std::array::from_fn(|_| AtomicU64::new(0)),
    super::Page: super::Page::unused(),
    super::lru::Link: super::lru::Link::default()
}

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
mod imp {
    use super::Zero;
    use crate::error::{Error, Result};
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::ptr::NonNull;

    /// An array of zeros, untouched.
    #[derive(Debug)]
    pub(in super::super) struct Zeroed<T: Zero> {
        first: NonNull<T>,
        length: usize,
    }

    // SAFETY: the memory is owned, as a boxed slice owns its.
    unsafe impl<T: Zero + Send> Send for Zeroed<T> {}
    // SAFETY: as above.
    unsafe impl<T: Zero + Sync> Sync for Zeroed<T> {}

    impl<T: Zero> Zeroed<T> {
        /// At least one, for `what`.
        ///
        /// # Errors
        /// [`Error::OutOfMemory`], with that name.
        pub(in super::super) fn new(length: usize, what: &'static str) -> Result<Self> {
            let bytes = length.saturating_mul(size_of::<T>());
            let refused = || Error::out_of_memory(what, bytes);
            if isize::try_from(bytes).is_err() {
                return Err(refused());
            }
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
            Ok(Self { first: NonNull::new(start.cast()).ok_or_else(refused)?, length })
        }
    }

    impl<T: Zero> std::ops::Deref for Zeroed<T> {
        type Target = [T];

        #[inline]
        fn deref(&self) -> &[T] {
            // SAFETY: page-aligned memory of that length, all of it values: zeros at first. It lives as long as `self`.
            unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.length) }
        }
    }

    impl<T: Zero> std::ops::DerefMut for Zeroed<T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut [T] {
            // SAFETY: as above, and the borrow is exclusive.
            unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.length) }
        }
    }

    impl<T: Zero> Drop for Zeroed<T> {
        fn drop(&mut self) {
            // SAFETY: the mapping is ours and borrows of it end with `self`. A failure would leak it, no more.
            let _ = unsafe { munmap(self.first.as_ptr().cast(), self.length * size_of::<T>()) };
        }
    }
}

#[cfg(any(specmm_loom, specmm_shuttle))]
mod imp {
    use super::Zero;
    use crate::error::Result;

    #[derive(Debug)]
    pub(in super::super) struct Zeroed<T>(Vec<T>);

    impl<T: Zero> Zeroed<T> {
        #[allow(clippy::unnecessary_wraps, reason = "as what ships")]
        pub(in super::super) fn new(length: usize, _what: &'static str) -> Result<Self> {
            Ok(Self((0..length).map(|_| T::zero()).collect()))
        }
    }

    impl<T> std::ops::Deref for Zeroed<T> {
        type Target = [T];
        fn deref(&self) -> &[T] {
            &self.0
        }
    }

    impl<T> std::ops::DerefMut for Zeroed<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.0
        }
    }
}

pub(super) use imp::Zeroed;

/// Whether the system would allocate so much now.
pub(crate) fn has_room(bytes: usize) -> bool {
    // The checkers' memory is a vector, which would be filled.
    cfg!(any(specmm_loom, specmm_shuttle)) || Zeroed::<u64>::new(bytes / size_of::<u64>(), "a trial").is_ok()
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_little_and_not_for_the_whole_address_space() {
        assert!(has_room(1 << 20));
        for bytes in [1 << 60, isize::MAX as usize, usize::MAX] {
            assert!(!has_room(bytes), "{bytes}");
        }
        let Err(crate::Error::OutOfMemory { what, bytes }) = Zeroed::<u64>::new(1 << 60, "a trial") else {
            panic!("there is no such memory");
        };
        assert_eq!((&*what, bytes), ("a trial", 1 << 63));
    }
}
