//! A file read as a stream: the standard library's `Read` and `Seek` over a [`File`].
//!
//! Owns: a position. Does not own the reading (`pread`). Not synchronised: it is used through `&mut`. Mirrors lseek(2) and
//! read(2).

use super::File;
use crate::store::MAX_SIZE;
use rustix::io::Errno;
use std::io::{self, Read, Seek, SeekFrom};

/// A reader with a position in a file, like [`std::fs::File`].
///
/// Each reader has its own position, and so does a clone. Every read costs a look-up in the cache; to make many small reads
/// cheap, wrap it in a [`std::io::BufReader`].
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
    /// At most `i64::MAX`, the maximum of `loff_t`.
    position: u64,
}

impl File {
    /// A reader of this file as a stream, positioned at its beginning.
    #[must_use]
    pub fn reader(&self) -> FileReader {
        FileReader { file: self.clone(), position: 0 }
    }
}

impl FileReader {
    /// The file it reads.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Read for FileReader {
    /// Reads from the position on; fewer bytes than asked for only at the end of the file.
    ///
    /// # Errors
    /// As [`File::pread`]; EINVAL for a read that would end past `i64::MAX`. On an error the position is unchanged.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // As in `rw_verify_area`.
        if i64::try_from(self.position.saturating_add(buf.len() as u64)).is_err() {
            return Err(Errno::INVAL.into());
        }
        if self.position > MAX_SIZE {
            // No file is that long.
            self.file.size()?;
            return Ok(0);
        }
        let n = self.file.pread(buf, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for FileReader {
    /// Moves to any position up to `i64::MAX`, including past the end of the file. For [`SeekFrom::End`] the store is asked for
    /// its current size.
    ///
    /// # Errors
    /// As [`File::look`]; EINVAL for a position before the beginning or past `i64::MAX`. On an error the position is unchanged.
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
