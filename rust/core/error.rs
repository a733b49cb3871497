//! What can go wrong, with the value that was wrong.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An operating-system or store error with the file it happened on. Cloned so that every waiter gets its own.
#[derive(Debug, Clone)]
pub struct IoError {
    /// The store's error.
    pub source: Arc<std::io::Error>,
    /// The file's name, as it was given.
    pub file: OsString,
}

impl IoError {
    /// An error with the name of its file.
    #[must_use]
    pub fn new(source: std::io::Error, file: impl AsRef<OsStr>) -> Self {
        Self { source: Arc::new(source), file: file.as_ref().to_owned() }
    }

    /// Others changed the file while it was read; its errno is ESTALE.
    pub(crate) fn changed(file: &OsStr) -> Self {
        Self::new(std::io::Error::other(Changed), file)
    }

    /// Whether others changed the file.
    pub(crate) fn is_change(&self) -> bool {
        self.source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Changed>)
    }

    /// Whether the store ended before the bytes that the cache expected.
    pub(crate) fn is_short_read(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::UnexpectedEof
    }

    /// The size that the file was expected to have, if a read was short.
    pub(crate) fn size_expected(&self) -> Option<u64> {
        Some(self.source.get_ref()?.downcast_ref::<ShortRead>()?.size)
    }

    /// The errno, or EIO if the store gave none; ESTALE for a file that others keep rewriting while it is read.
    #[must_use]
    pub fn errno(&self) -> i32 {
        let is_refused =
            || self.source.get_ref().is_some_and(|why| why.is::<NotRegular>() || why.is::<NotItsSize>());
        self.source.raw_os_error().unwrap_or_else(|| {
            let errno = if is_refused() { rustix::io::Errno::INVAL } else { rustix::io::Errno::IO };
            let errno = if self.is_change() { rustix::io::Errno::STALE } else { errno };
            errno.raw_os_error()
        })
    }
}

/// Others changed the file while it was read.
#[derive(Debug)]
struct Changed;

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the file kept being rewritten while it was read")
    }
}

impl std::error::Error for Changed {}

/// A path names something that is not a regular file; what it is, in words.
#[derive(Debug)]
pub(crate) struct NotRegular(pub(crate) &'static str);

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a regular file: it is {}", self.0)
    }
}

impl std::error::Error for NotRegular {}

/// A path names a file that has more or fewer bytes than its size says.
#[derive(Debug)]
pub(crate) struct NotItsSize {
    /// The size it reports.
    pub(crate) size: u64,
    /// The bytes it was found to have, up to one more than the size; None: reading it waits.
    pub(crate) has: Option<usize>,
}

impl fmt::Display for NotItsSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = "read it whole, without a cache";
        match *self {
            Self { size: 0, has: Some(_) } => {
                write!(f, "it reports no size but has contents, like files of /proc: {whole}")
            }
            Self { size, has: Some(has) } => {
                let more = if has as u64 > size { "more" } else { "fewer" };
                write!(f, "it reports {size} bytes but has {more}, like files of /sys: {whole}")
            }
            Self { size, has: None } => {
                write!(f, "it reports {size} bytes, and reading it waits for more: {whole}")
            }
        }
    }
}

impl std::error::Error for NotItsSize {}

/// The store ended before the bytes that the cache expected.
#[derive(Debug)]
pub(crate) struct ShortRead {
    pub(crate) got: usize,
    pub(crate) expected: usize,
    pub(crate) offset: u64,
    /// The file's size, as the cache knew it.
    pub(crate) size: u64,
}

impl fmt::Display for ShortRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { got, expected, offset, .. } = self;
        write!(f, "short read: {got} of {expected} bytes at offset {offset}")
    }
}

impl std::error::Error for ShortRead {}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.to_string_lossy(), self.source)
    }
}

/// What holds the frames of a cache in which none can be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    /// Pinned pages.
    pub pinned: usize,
    /// Private copies of pages.
    pub private: usize,
    /// Locked pages, which are usually being read.
    pub locked: usize,
    /// Pages that somebody is using at the moment.
    pub other: usize,
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pinned, private, locked, other } = self;
        write!(f, "{pinned} pinned, {private} private copies, {locked} being read, {other} in use")
    }
}

/// Everything that specmm reports.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// An argument that can never work; the message names it.
    InvalidArgument(String),
    /// An access beyond the end of the file, or to a page that cannot be read (then `cause` says why). Linux: SIGBUS.
    Bus {
        /// Page index in the file.
        index: u64,
        /// Byte offset in the file.
        offset: u64,
        /// The file's size in bytes.
        size: u64,
        /// The read error, unless the access was beyond the end.
        cause: Option<IoError>,
    },
    /// An access that no mapping allows. Linux: SIGSEGV.
    Segmentation {
        /// The address.
        address: u64,
        /// Whether it was a store.
        write: bool,
        /// Why, in words.
        reason: &'static str,
    },
    /// Every frame is in use, and none can be reclaimed.
    OutOfFrames {
        /// All frames of the cache.
        capacity: usize,
        /// What holds them.
        holders: Holders,
        /// What the frame was needed for.
        what: String,
    },
    /// The system has no memory for something whose size depends on a capacity, a window, an argument or what is cached.
    /// Linux: ENOMEM.
    OutOfMemory {
        /// What it was for.
        what: Cow<'static, str>,
        /// Bytes requested.
        bytes: usize,
    },
    /// The object is closed.
    Closed(String),
    /// The self-check found an inconsistency: a bug in specmm.
    Invariant(String),
    /// A read or change of the file failed.
    Io(IoError),
    /// A store did not return a page within its time-out.
    TimedOut {
        /// The file's name, as it was given.
        file: OsString,
        /// Byte offset of the page that was waited for.
        offset: u64,
        /// How long the caller waited.
        timeout: Duration,
    },
    /// A wait for the store of this file was given up, because the program wants its threads to
    /// ([`give_up_waiting_when`](crate::give_up_waiting_when)).
    Interrupted(OsString),
    /// A valid request that specmm does not support (yet).
    Unsupported(String),
    /// The object cannot be closed while pins of it live.
    Pinned(String),
}

impl Error {
    #[cold]
    pub(crate) fn out_of_memory(what: &'static str, bytes: usize) -> Self {
        Self::OutOfMemory { what: Cow::Borrowed(what), bytes }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidArgument(what)
            | Self::Invariant(what)
            | Self::Unsupported(what)
            | Self::Pinned(what) => f.write_str(what),
            Self::Bus { index, offset, size, cause: None } => {
                write!(f, "offset {offset} (page {index}) is beyond the end of the file at {size}")
            }
            Self::Bus { index, offset, cause: Some(cause), .. } => {
                write!(f, "offset {offset} (page {index}) cannot be read: {cause}")
            }
            Self::Segmentation { address, write, reason } => {
                write!(f, "{} at {address:#x}: {reason}", if *write { "store" } else { "load" })
            }
            Self::OutOfFrames { capacity, holders, what } => {
                write!(f, "none of the {capacity} frames can be freed ({holders}): none left for {what}")
            }
            Self::OutOfMemory { what, bytes } => {
                write!(f, "the system has no memory for {what}: {bytes} bytes")
            }
            Self::Closed(what) => write!(f, "{what} is closed"),
            Self::TimedOut { file, offset, timeout } => {
                let (file, timeout) = (file.to_string_lossy(), timeout.as_secs_f64());
                write!(f, "{file}: the store did not return offset {offset} within {timeout} s")
            }
            Self::Interrupted(file) => {
                write!(f, "{}: the wait for its store was interrupted", file.to_string_lossy())
            }
            Self::Io(error) => error.fmt(f),
        }
    }
}

/// Converts to the kinds of [`std::io::Error`] that users of the standard library distinguish.
///
/// An error with an errno, from the system or a store, keeps it and so its kind. Every other one keeps the [`Error`], which
/// [`std::io::Error::get_ref`] returns: an access beyond the end, or a store that ends too early, is `UnexpectedEof`; frames and
/// files that pins hold are `ResourceBusy`; use of a closed object, and an access that no mapping allows, are `InvalidInput`.
/// [`Error::Interrupted`] is `Other`, because `Interrupted` would make [`Read::read_exact`](std::io::Read::read_exact) and
/// others try again forever, when the program wants its thread back.
///
/// ```
/// use specmm::{Io, PageCache};
/// use std::io::ErrorKind;
///
/// let cache = PageCache::new(1 << 20, Io::Inline)?;
/// let error = std::io::Error::from(cache.open("/nowhere").unwrap_err());
/// assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::NotFound, Some(2)));
/// # Ok::<(), specmm::Error>(())
/// ```
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            Error::Io(io) | Error::Bus { cause: Some(io), .. } => match io.source.raw_os_error() {
                Some(errno) => return Self::from_raw_os_error(errno),
                None => io.source.kind(),
            },
            Error::InvalidArgument(_) | Error::Segmentation { .. } | Error::Closed(_) => {
                ErrorKind::InvalidInput
            }
            Error::Bus { cause: None, .. } => ErrorKind::UnexpectedEof,
            Error::OutOfFrames { .. } | Error::Pinned(_) => ErrorKind::ResourceBusy,
            Error::OutOfMemory { .. } => ErrorKind::OutOfMemory,
            Error::TimedOut { .. } => ErrorKind::TimedOut,
            Error::Unsupported(_) => ErrorKind::Unsupported,
            Error::Interrupted(_) | Error::Invariant(_) => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) | Self::Bus { cause: Some(error), .. } => Some(&*error.source),
            _ => None,
        }
    }
}
