//! The `kernel` row: the same touches and mappings, with the real mmap(2).
//!
//! Owns: real mappings of the file and raw accesses to them. An access to a real mapping raises SIGBUS if the file was made
//! shorter meanwhile; `sigbus` turns that into an error.

use super::sigbus::Guard;
use super::space::{Kind, Space};
use crate::error::{Error, IoError, Result};
use crate::page::PAGE_SIZE;
use crate::store::{Opening, open_regular};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::ffi::OsString;
use std::ffi::c_void;
use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

/// The address space of this process.
pub(super) struct Kernel {
    file: File,
    name: OsString,
    sigbus: Guard,
}

/// A real mapping; unmapped when dropped.
pub(super) struct Mapping {
    start: NonNull<c_void>,
    length: usize,
    /// Where in the file it begins.
    offset: u64,
    writable: bool,
}

// SAFETY: a mapping is a range of addresses of the whole process. Its bytes are only reached through relaxed atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range belongs to this mapping alone, and nothing borrows from it any more. A failure leaves a mapping
        // behind, which is harmless.
        let _harmless = unsafe { munmap(self.start.as_ptr(), self.length) };
    }
}

impl Kernel {
    pub(super) fn new(path: &Path) -> Result<Self> {
        let name = path.as_os_str().to_owned();
        let file =
            open_regular(path, Opening::default()).map_err(|error| Error::Io(IoError::new(error, &name)))?;
        Ok(Self { file, name, sigbus: Guard::new() })
    }

    fn error(&self, error: rustix::io::Errno) -> Error {
        Error::Io(IoError::new(error.into(), &self.name))
    }

    /// The file has lost the page at `offset`.
    #[cold]
    fn bus_error(&self, offset: u64) -> Error {
        let size = self.file.metadata().map_or(0, |found| found.len());
        Error::Bus { index: offset / PAGE_SIZE as u64, offset, size, cause: None }
    }
}

impl Space for Kernel {
    type Mapping = Mapping;

    fn map(&self, offset: u64, length: u64, kind: Kind) -> Result<Mapping> {
        let (prot, flags) = match kind {
            Kind::SharedRead => (ProtFlags::READ, MapFlags::SHARED),
            Kind::PrivateWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE),
        };
        let length = length as usize;
        // SAFETY: a new mapping at an address that the kernel chooses touches no existing one.
        let start = unsafe { mmap(std::ptr::null_mut(), length, prot, flags, &self.file, offset) };
        let start = NonNull::new(start.map_err(|error| self.error(error))?).expect("mmap never answers null");
        Ok(Mapping { start, length, offset, writable: kind == Kind::PrivateWrite })
    }

    fn unmap(&self, mapping: Mapping) -> Result<()> {
        drop(mapping);
        Ok(())
    }

    fn zap(&self, mapping: &Mapping, offset: u64, length: u64) -> Result<()> {
        let (offset, length) = (offset as usize, length as usize);
        assert!(offset + length <= mapping.length, "{offset} + {length} lies outside {}", mapping.length);
        // SAFETY: inside the mapping; no reference to its bytes is ever made, so they may change.
        unsafe { madvise(mapping.start.as_ptr().byte_add(offset), length, Advice::LinuxDontNeed) }
            .map_err(|error| self.error(error))
    }

    #[inline]
    fn touch(&self, mapping: &Mapping, offset: u64, write: bool) -> Result<u64> {
        let within = offset as usize;
        assert!(within < mapping.length && (mapping.writable || !write), "{offset} is no place to touch");
        // SAFETY: inside the mapping, which lives as long as this borrow.
        let byte = unsafe { mapping.start.as_ptr().byte_add(within).cast::<u8>() };
        let there = self.sigbus.watch(byte as usize, || {
            // SAFETY: as above; every access to the mapping is such an atomic one, and stores are made where it allows them.
            let byte = unsafe { AtomicU8::from_ptr(byte) };
            let value = byte.load(Ordering::Relaxed);
            if write {
                byte.store(value, Ordering::Relaxed);
            }
        });
        if there { Ok(0) } else { Err(self.bus_error(mapping.offset + offset)) }
    }

    fn faults_of_this_thread(&self) -> u64 {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` has room for the result, and all zeros is a valid value.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
            usage.assume_init()
        };
        u64::try_from(usage.ru_minflt + usage.ru_majflt).unwrap_or(0)
    }
}
