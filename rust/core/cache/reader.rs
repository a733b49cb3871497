//! A file read as a stream: `Read` and `Seek` of the standard library over a [`File`].
//!
//! Owns: a position. Mirrors what lseek(2) and read(2) make of one; `pread` does the reading.

use super::File;
use crate::store::MAX_SIZE;
use rustix::io::Errno;
use std::io::{self, Read, Seek, SeekFrom};

/// A position in a file, from which it is read on, as [`std::fs::File`] does it.
///
/// Every reader has a position of its own, and so has a clone of one. A read of a few bytes costs a look-up in the cache;
/// [`std::io::BufReader`] around it makes one of many.
///
/// ```
/// use specmm::{Io, PageCache, store::MemoryStore};
/// use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
/// use std::sync::Arc;
///
/// let cache = PageCache::new(1 << 20, Io::Inline)?;
/// let poem = b"one\ntwo\nthree\n";
/// let file = cache.open_store(Arc::new(MemoryStore::new(poem.to_vec())), poem.len() as u64)?;
/// let lines: Vec<String> = BufReader::new(file.reader()).lines().collect::<Result<_, _>>()?;
/// assert_eq!(lines, ["one", "two", "three"]);
///
/// let mut reader = file.reader();
/// reader.seek(SeekFrom::End(-6))?;
/// let mut end = String::new();
/// reader.read_to_string(&mut end)?;
/// assert_eq!(end, "three\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FileReader {
    file: File,
    /// Never more than `i64::MAX`, as `loff_t` has it.
    position: u64,
}

impl File {
    /// Reads this file as a stream, from its beginning.
    #[must_use]
    pub fn reader(&self) -> FileReader {
        FileReader { file: self.clone(), position: 0 }
    }
}

impl FileReader {
    /// The file that is read.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Read for FileReader {
    /// Short only at the end of the file.
    ///
    /// # Errors
    /// As [`File::pread`]; EINVAL for a read that would end beyond `i64::MAX`. The position stays.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // As `rw_verify_area` has it.
        if i64::try_from(self.position.saturating_add(buf.len() as u64)).is_err() {
            return Err(Errno::INVAL.into());
        }
        if self.position > MAX_SIZE {
            // No file goes on there.
            self.file.size()?;
            return Ok(0);
        }
        let n = self.file.pread(buf, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for FileReader {
    /// Any position up to `i64::MAX` will do, beyond the end of the file too. For [`SeekFrom::End`] the store is asked where that
    /// is by now.
    ///
    /// # Errors
    /// As [`File::look`]; EINVAL for a position before the beginning or beyond `i64::MAX`.
    /// The position stays.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.open_file()?;
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.file.look()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        match position.filter(|&position| i64::try_from(position).is_ok()) {
            Some(position) => {
                self.position = position;
                Ok(position)
            }
            None => Err(Errno::INVAL.into()),
        }
    }
}
