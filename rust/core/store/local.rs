//! A regular file on this machine.

use super::{Look, MAX_SIZE, Opening, Store, open_regular};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// An open regular file.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
    writable: bool,
}

impl LocalFile {
    /// Opens `path` for reading, and as `how` says. Never truncates, and never blocks.
    ///
    /// # Errors
    /// Those of open(2); EISDIR for a directory; for anything else that is not a regular file, or is generated as it is read
    /// (`/proc`, `/sys`), an error that says what it is; EFBIG beyond 16 TiB.
    pub fn open(path: &Path, how: Opening) -> io::Result<Self> {
        let file = open_regular(path, how)?;
        if file.metadata()?.size() > MAX_SIZE {
            return Err(rustix::io::Errno::FBIG.into());
        }
        Ok(Self { file, writable: how.write })
    }

    /// Device and inode number: two opens of one file have the same.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

impl Store for LocalFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        if !self.writable {
            return Err(rustix::io::Errno::INVAL.into());
        }
        self.file.set_len(size)
    }

    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        LocalFile::identity(self).map(Some)
    }

    fn size(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.file.metadata()?.size()))
    }

    /// The modification time.
    fn version(&self) -> io::Result<Option<u64>> {
        Ok(self.look()?.version)
    }

    /// Size, modification time and change time, by fstat(2): half of what statx(2) costs.
    fn look(&self) -> io::Result<Look> {
        // Only compared, so times before 1970 may wrap. The kernel's types differ between machines.
        #[allow(clippy::cast_sign_loss, reason = "as said")]
        fn nanoseconds(seconds: i64, rest: u64) -> u64 {
            (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(rest)
        }
        let stat = rustix::fs::fstat(&self.file)?;
        #[allow(
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "no size is less than nothing; types as above"
        )]
        Ok(Look {
            size: Some(stat.st_size as u64),
            version: Some(nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as u64)),
            changed: Some(nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as u64)),
        })
    }
}
