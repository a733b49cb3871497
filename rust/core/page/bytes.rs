//! A page's bytes: words that any thread may read and write at any time.
//!
//! Everything goes through relaxed 64-bit atomics, so two programs racing on the same bytes get some mixture of words and never
//! undefined behaviour. A store shorter than a word is a compare-and-exchange on its word (mixed-size accesses of one location
//! are undefined in Rust). What the bytes *mean* at a given moment is up to the flags, the generation and the page lock.

use super::{Out, PAGE_SIZE};
use crate::sync::{AtomicU64, Ordering, ordered_fence};

/// 64-bit words in a page.
pub const WORDS: usize = PAGE_SIZE / 8;

/// The bytes of one page frame.
#[derive(Clone, Copy)]
pub struct PageBytes<'f> {
    words: &'f [AtomicU64],
}

impl<'f> PageBytes<'f> {
    pub(super) fn new(words: &'f [AtomicU64]) -> Self {
        debug_assert_eq!(words.len(), WORDS);
        Self { words }
    }

    /// Reads `buf.len()` bytes from `offset`.
    ///
    /// # Panics
    /// When the range leaves the page.
    #[inline]
    pub fn read(self, offset: usize, buf: &mut [u8]) {
        self.read_into(offset, Out::from(buf));
    }

    /// As [`PageBytes::read`], into raw memory, all of which is written.
    ///
    /// # Panics
    /// When the range leaves the page.
    #[inline]
    pub fn read_into(self, offset: usize, out: Out<'_>) {
        assert!(offset + out.len() <= PAGE_SIZE, "{} bytes at {offset} leave the page", out.len());
        if offset % 8 == 0 && out.len() % 8 == 0 {
            let words = self.words(offset / 8, out.len() / 8);
            out.put_words(words);
        } else {
            self.read_ragged(offset, out);
        }
    }

    #[inline]
    fn words(self, first: usize, count: usize) -> impl ExactSizeIterator<Item = u64> {
        self.words[first..first + count].iter().map(|word| word.load(Ordering::Relaxed))
    }

    /// Reads a range that begins or ends inside a word.
    fn read_ragged(self, offset: usize, mut out: Out<'_>) {
        let word = |at: usize| self.words[at].load(Ordering::Relaxed).to_ne_bytes();
        let (first, skip) = (offset / 8, offset % 8);
        let head = if skip == 0 { 0 } else { out.len().min(8 - skip) };
        if head > 0 {
            out.part(0..head).put(&word(first)[skip..]);
        }
        let (first, whole) = (offset.div_ceil(8), (out.len() - head) / 8);
        let (done, end) = (head + whole * 8, out.len());
        out.part(head..done).put_words(self.words(first, whole));
        if done < end {
            out.part(done..end).put(&word(first + whole));
        }
    }

    /// Writes `data` at `offset`, leaving neighbouring bytes alone.
    ///
    /// # Panics
    /// When the range leaves the page.
    pub fn write(self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= PAGE_SIZE, "{} bytes at {offset} leave the page", data.len());
        // Whoever reads one of these bytes and then fences sees what happened before: the generation has moved
        // (`PageRef::is_generation`).
        ordered_fence!("page.bytes.fence", Release);
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (word, skip) = (at / 8, at % 8);
            let n = rest.len().min(8 - skip);
            let (now, later) = rest.split_at(n);
            if let Ok(bytes) = now.try_into() {
                self.words[word].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            } else {
                self.merge(word, skip, now);
            }
            at += n;
            rest = later;
        }
    }

    /// Replaces some bytes of one word.
    fn merge(self, word: usize, skip: usize, data: &[u8]) {
        let word = &self.words[word];
        let mut seen = word.load_then_write(Ordering::Relaxed);
        loop {
            let mut bytes = seen.to_ne_bytes();
            bytes[skip..skip + data.len()].copy_from_slice(data);
            match word.compare_exchange(seen, u64::from_ne_bytes(bytes), Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(found) => seen = found,
            }
        }
    }

    /// Writes zeros from `offset` to the end of the page.
    pub fn zero_from(self, offset: usize) {
        const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
        self.write(offset, &ZEROS[offset..]);
    }

    /// Copies another page's bytes, word by word.
    pub fn copy_from(self, other: PageBytes<'_>) {
        // As in `write`: the frame may have been a cached page a moment ago.
        ordered_fence!("page.bytes.copy.fence", Release);
        for (to, from) in self.words.iter().zip(other.words) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn any_range_reads_back_and_spares_its_neighbours() {
        let words: Vec<AtomicU64> =
            (0..WORDS).map(|_| AtomicU64::new(u64::from_ne_bytes([0xEE; 8]))).collect();
        let page = PageBytes::new(&words);
        for (offset, len) in
            [(0, 8), (0, 1), (7, 2), (3, 17), (4095, 1), (8, 4088), (1, 4095), (0, 4096), (12, 0)]
        {
            page.write(0, &[0xEE; PAGE_SIZE]);
            let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            page.write(offset, &data);
            let mut all = [0; PAGE_SIZE];
            page.read(0, &mut all);
            assert_eq!(&all[offset..offset + len], &data[..], "{offset} {len}");
            assert!(all[..offset].iter().chain(&all[offset + len..]).all(|&b| b == 0xEE), "{offset} {len}");
            let mut part = vec![0; len];
            page.read(offset, &mut part);
            assert_eq!(part, data);
        }
        page.zero_from(100);
        let mut all = [1; PAGE_SIZE];
        page.read(0, &mut all);
        assert!(all[100..].iter().all(|&b| b == 0));
        let other: Vec<AtomicU64> = (0..WORDS as u64).map(|word| AtomicU64::new(word << 40 | 3)).collect();
        page.copy_from(PageBytes::new(&other));
        assert!(
            words
                .iter()
                .zip(&other)
                .all(|(copy, word)| copy.load(Ordering::Relaxed) == word.load(Ordering::Relaxed))
        );
    }
}
