//! Bytes in memory.

use super::{Look, Store};
use crate::sync::Mutex;
use std::io;

/// A store that keeps its bytes in memory: for tests, examples and benches.
#[derive(Debug, Default)]
pub struct MemoryStore {
    bytes: Mutex<Vec<u8>>,
}

impl MemoryStore {
    /// A store with these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Mutex::new(bytes) }
    }
}

impl Store for MemoryStore {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = buf.len().min(bytes.len() - from);
        buf[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut bytes = self.bytes.lock();
        let more = size.saturating_sub(bytes.len());
        bytes.try_reserve_exact(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(size, 0);
        Ok(())
    }

    fn size(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.bytes.lock().len() as u64))
    }

    /// None: others cannot write to it.
    fn look(&self) -> io::Result<Look> {
        Ok(Look::default())
    }
}
