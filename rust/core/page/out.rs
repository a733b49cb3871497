//! Memory that a read fills.
//!
//! Owns: the right to write some bytes. Nothing is ever read through it and no reference to them is made, so they may be
//! uninitialised, and somebody else may read them meanwhile, as with a Python buffer: `&mut [u8]` would promise the compiler that
//! neither is so.

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::NonNull;

/// Bytes to be written, and not to be read.
///
/// ```
/// use specmm::{Io, Out, PageCache, StoreOptions, store::MemoryStore};
/// use std::{mem::MaybeUninit, sync::Arc};
///
/// let cache = PageCache::new(1 << 20, Io::Inline)?;
/// let file = cache.open_store_with(Arc::new(MemoryStore::new(vec![7; 100])), 100, StoreOptions::default().ra_pages(0))?;
///
/// let mut bytes = [MaybeUninit::uninit(); 8];
/// assert_eq!(file.pread_into(Out::from(&mut bytes[..]), 95)?, 5);
/// // SAFETY: those that were read are initialised, the others are not.
/// assert_eq!(unsafe { bytes[4].assume_init() }, 7);
/// # Ok::<(), specmm::Error>(())
/// ```
pub struct Out<'a> {
    pointer: NonNull<u8>,
    length: usize,
    memory: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

// SAFETY: it is a right to write, as `&mut [MaybeUninit<u8>]` is, which is `Send`.
unsafe impl Send for Out<'_> {}

impl Out<'_> {
    /// `length` bytes from `pointer` on.
    ///
    /// # Safety
    /// They may be written through `pointer` as long as this lives, and no reference to them exists in Rust meanwhile. Whoever
    /// else reads or writes them at that time gets a mixture of bytes.
    #[must_use]
    pub const unsafe fn from_raw(pointer: NonNull<u8>, length: usize) -> Self {
        Self { pointer, length, memory: PhantomData }
    }

    /// How many bytes fit.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no bytes fit.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A part of it.
    ///
    /// # Panics
    /// When the range is not within it.
    #[inline(always)]
    #[must_use]
    pub fn part(&mut self, range: Range<usize>) -> Out<'_> {
        if range.start > range.end || range.end > self.length {
            outside(&range, self.length);
        }
        // SAFETY: the range is within, and `self` is not used while the part lives.
        unsafe { Out::from_raw(self.pointer.add(range.start), range.end - range.start) }
    }

    /// Writes zeros everywhere.
    #[inline]
    pub fn zero(&mut self) {
        // SAFETY: the bytes may be written.
        unsafe { self.pointer.write_bytes(0, self.length) }
    }

    /// Writes as many of the bytes as fit.
    #[inline]
    pub(crate) fn put(self, bytes: &[u8]) {
        let count = bytes.len().min(self.length);
        // SAFETY: there is room for them, which may be written; and as nobody may write `bytes`, they do not overlap.
        unsafe { self.pointer.copy_from_nonoverlapping(NonNull::from(bytes).cast(), count) }
    }

    /// Writes as many of the words as fit, in native byte order.
    #[inline]
    pub(super) fn put_words(self, words: impl Iterator<Item = u64>) {
        let room = self.pointer.cast::<u64>();
        for (n, word) in (0..self.length / size_of::<u64>()).zip(words) {
            // SAFETY: there is room for one more, which may be written; it may begin anywhere.
            unsafe { room.add(n).write_unaligned(word) }
        }
    }
}

impl<'a> From<&'a mut [u8]> for Out<'a> {
    #[inline]
    fn from(bytes: &'a mut [u8]) -> Self {
        // SAFETY: the slice is borrowed for `'a`, and only bytes that are initialised are written to it.
        unsafe { Self::from_raw(NonNull::from(&mut *bytes).cast(), bytes.len()) }
    }
}

impl<'a> From<&'a mut [MaybeUninit<u8>]> for Out<'a> {
    #[inline]
    fn from(bytes: &'a mut [MaybeUninit<u8>]) -> Self {
        // SAFETY: the slice is borrowed for `'a`.
        unsafe { Self::from_raw(NonNull::from(&mut *bytes).cast(), bytes.len()) }
    }
}

#[cold]
fn outside(range: &Range<usize>, length: usize) -> ! {
    panic!("{range:?} is not within {length} bytes");
}

impl fmt::Debug for Out<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Out of {} bytes", self.length)
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_put_is_written() {
        let mut bytes = [9; 32];
        let mut out = Out::from(&mut bytes[1..]);
        assert_eq!([0..0, 0..1, 0..2].map(|range| out.part(range).is_empty()), [true, false, false]);
        out.part(0..2).zero();
        out.part(3..6).put(&[1, 2, 3, 4]);
        out.part(7..10).put(&[8]);
        out.part(10..28).put_words([5, 6, 7].map(|word| u64::from_ne_bytes([word; 8])).into_iter());
        out.part(31..31).zero();
        let mut right = [9; 32];
        right[1..3].fill(0);
        right[4..9].copy_from_slice(&[1, 2, 3, 9, 8]);
        right[11..19].fill(5);
        right[19..27].fill(6);
        assert_eq!(bytes, right);
    }

    #[test]
    fn nothing_beyond_the_end_is_written() {
        type Write = fn(&mut Out<'_>);
        let beyond: [Write; 4] = [
            |out| out.part(3..9).zero(),
            |out| out.part(9..9).zero(),
            |out| out.part(0..usize::MAX).zero(),
            #[allow(clippy::reversed_empty_ranges)]
            |out| out.part(5..4).zero(),
        ];
        for write in beyond {
            let mut bytes = [9; 16];
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                write(&mut Out::from(&mut bytes[4..12]));
            }));
            let why = refused.unwrap_err();
            let why = why.downcast_ref::<String>().unwrap();
            assert!(why.ends_with("is not within 8 bytes"), "{why}");
            assert_eq!(bytes, [9; 16]);
        }
    }
}
