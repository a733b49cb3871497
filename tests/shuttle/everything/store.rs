//! The stores: one that other programs write to, and one that may stall.

use super::{PAGE, PAGES, WORDS};
use crate::shuttle_harness::word;
use crate::store::{Look, MemoryStore, ReadBy, Store};
use crate::sync::Mutex;
use std::io;

/// Words of all versions of the file that others change are told apart by these bits.
const VERSION: u32 = 48;

/// The word at `at` of a version of file number `file`.
pub(super) fn versioned(file: u64, version: u64, at: u64) -> u64 {
    version << VERSION | word(file, at)
}

/// Which version a word belongs to.
pub(super) fn version_of(found: u64) -> u64 {
    found >> VERSION
}

/// Words of a version: every other one is a page shorter.
pub(super) fn length(version: u64) -> u64 {
    (PAGES - version % 2) * WORDS
}

/// A file that other programs rewrite, longer or shorter than before.
pub(super) struct Rewritten {
    file: u64,
    version: Mutex<u64>,
}

impl Rewritten {
    pub(super) fn new(file: u64) -> Self {
        Self { file, version: Mutex::new(0) }
    }

    /// Another version.
    pub(super) fn rewrite(&self) {
        *self.version.lock() += 1;
    }

    /// The newest version.
    pub(super) fn version(&self) -> u64 {
        *self.version.lock()
    }
}

impl Store for Rewritten {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let version = self.version.lock();
        let bytes: Vec<u8> =
            (0..length(*version)).flat_map(|at| versioned(self.file, *version, at).to_ne_bytes()).collect();
        let from = bytes.len().min(offset as usize);
        let n = buf.len().min(bytes.len() - from);
        buf[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(Some((0, self.file)))
    }

    fn look(&self) -> io::Result<Look> {
        let version = self.version();
        Ok(Look { size: Some(length(version) * PAGE / WORDS), version: Some(version), changed: None })
    }
}

/// A file that only workers read.
pub(super) struct Remote(pub(super) MemoryStore);

impl Store for Remote {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: None }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.truncate(size)
    }
}
