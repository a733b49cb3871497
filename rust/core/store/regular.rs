//! Opening a regular file, and nothing else.
//!
//! Owns: the refusal of anything else a path may name, and of files that are generated as they are read, such as those of /proc,
//! whose size means nothing. Opening a device may have effects, and opening a FIFO blocks: so the path is checked first, and
//! since it may name another file by then, open(2) does not block either, and what was opened is checked again.

use crate::error::{NotItsSize, NotRegular};
use crate::sync::pause;
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// The size that files of /sys usually report.
const MADE_UP: u64 = 4096;

/// Two changes of a file this far apart have different times.
const TICK: Duration = Duration::from_millis(10);

/// How a regular file is opened, besides reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opening {
    /// Also for writing.
    pub write: bool,
    /// It is created if it does not exist.
    pub create: bool,
    /// It must not exist.
    pub exclusive: bool,
}

/// Opens the regular file at `path`; never blocks on anything else that it may name.
///
/// # Errors
/// Those of open(2); EISDIR for a directory; for anything else that is not a regular file, an error that says what it is, whose
/// errno as an [`IoError`](crate::error::IoError) is EINVAL. The same for a file that has contents but reports no size, as in
/// /proc, or has fewer bytes than it reports, as in /sys; those of read(2) if such a file cannot be read.
pub fn open_regular(path: &Path, how: Opening) -> io::Result<File> {
    // A terminal must not become this process's controlling terminal either.
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= if how.write { OFlags::RDWR } else { OFlags::RDONLY };
    flags.set(OFlags::CREATE, how.create || how.exclusive);
    flags.set(OFlags::EXCL, how.exclusive);
    // If the path cannot be checked, open(2) has the better error.
    let look = || match std::fs::metadata(path) {
        Ok(metadata) if !how.exclusive => require_regular(&metadata),
        _ => Ok(()),
    };
    loop {
        look()?;
        match open(path, flags, Mode::from_raw_mode(0o666)) {
            Ok(descriptor) => {
                let file = File::from(descriptor);
                let metadata = file.metadata()?;
                require_regular(&metadata)?;
                require_its_size(&file, &metadata)?;
                fcntl_setfl(&file, OFlags::empty())?;
                return Ok(file);
            }
            // Somebody holds a lease on the file, and is being told to release it.
            Err(Errno::AGAIN) => pause(Duration::from_millis(1)),
            Err(Errno::INTR) => {}
            Err(error) => {
                look()?;
                return Err(error.into());
            }
        }
    }
}

fn require_regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let other = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        return Err(Errno::ISDIR.into());
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() {
        "a block device"
    } else {
        "a character device"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, NotRegular(other)))
}

/// A file without blocks is generated as it is read, unless it is empty or a hole. Its bytes are counted as long as reading does
/// not block.
fn require_its_size(file: &File, metadata: &Metadata) -> io::Result<()> {
    let size = metadata.size();
    if metadata.blocks() > 0 || size > MADE_UP {
        return Ok(());
    }
    let mut room = [0; MADE_UP as usize + 1];
    let mut has = 0;
    // Some return nothing unless there is room for everything.
    while has as u64 <= size {
        match file.read_at(&mut room[has..], has as u64) {
            Ok(0) => break,
            Ok(n) => has += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, NotItsSize { size, has: None }));
            }
            Err(error) => return Err(error),
        }
    }
    if has as u64 == size {
        return Ok(());
    }
    // Somebody may be writing to it right now; after a tick of the clock that shows.
    pause(TICK);
    let now = file.metadata()?;
    let told = |of: &Metadata| (of.size(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec());
    if told(&now) != told(metadata) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, NotItsSize { size, has: Some(has) }))
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::{Io, PageCache};

    #[test]
    fn a_file_that_is_made_up_as_it_is_read_is_refused_with_that_reason() {
        let cache = PageCache::new(1 << 16, Io::Inline).unwrap();
        let mut refused = 0;
        for path in ["/proc/version", "/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            let path = Path::new(path);
            if std::fs::read(path).map_or(true, |content| content.is_empty()) {
                continue;
            }
            let error = cache.open(path).unwrap_err();
            let crate::Error::Io(io) = &error else { panic!("{error}") };
            assert_eq!(io.errno(), Errno::INVAL.raw_os_error());
            assert!(error.to_string().contains("it reports"), "{error}");
            refused += 1;
        }
        assert!(refused > 0, "there is /proc/version");
    }

    #[test]
    fn files_that_are_empty_short_or_holes_are_not() {
        let path = std::env::temp_dir().join(format!("specmm-regular-{}", std::process::id()));
        for size in [0, 1, MADE_UP - 1, MADE_UP, MADE_UP + 1] {
            for content in [vec![7; size as usize], vec![]] {
                std::fs::write(&path, &content).unwrap();
                let file = open_regular(&path, Opening { write: true, ..Opening::default() }).unwrap();
                file.set_len(size).unwrap();
                assert_eq!(open_regular(&path, Opening::default()).unwrap().metadata().unwrap().size(), size);
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
