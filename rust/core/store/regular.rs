//! Opening a regular file, and nothing else.
//!
//! Owns: the refusal of whatever else a path may name. Opening a device may set something going, and opening a FIFO waits
//! for whoever writes to it: so a look comes first, and as the path may name another file by then, nothing is waited for in
//! open(2) either, and what was opened is looked at again.

use crate::error::NotRegular;
use crate::sync::pause;
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// How a regular file is to be opened, beside reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opening {
    /// For writing too.
    pub write: bool,
    /// It is made if it is missing.
    pub create: bool,
    /// It must be missing.
    pub exclusive: bool,
}

/// Opens the regular file that `path` names, never waiting for anything else that it may name.
///
/// # Errors
/// What open(2) says; EISDIR for a directory, and for anything else that is not a regular file an error that says what it is,
/// with EINVAL once it is an [`IoError`](crate::error::IoError).
pub fn open_regular(path: &Path, how: Opening) -> io::Result<File> {
    // A terminal must not become this process's either.
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= if how.write { OFlags::RDWR } else { OFlags::RDONLY };
    flags.set(OFlags::CREATE, how.create || how.exclusive);
    flags.set(OFlags::EXCL, how.exclusive);
    // What is wrong with a path that cannot be looked at, open(2) says better.
    let look = || match std::fs::metadata(path) {
        Ok(metadata) if !how.exclusive => require_regular(&metadata),
        _ => Ok(()),
    };
    loop {
        look()?;
        match open(path, flags, Mode::from_raw_mode(0o666)) {
            Ok(descriptor) => {
                let file = File::from(descriptor);
                require_regular(&file.metadata()?)?;
                fcntl_setfl(&file, OFlags::empty())?;
                return Ok(file);
            }
            // Somebody has a lease on the file, and is being told to give it up.
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
