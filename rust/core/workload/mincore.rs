//! The pages of a file in the kernel's page cache (`mm/mincore.c`), to show beside those in a specmm cache.
//!
//! Owns: a mapping of the range for as long as one call takes. Nothing in it is accessed, so no page is faulted in and a
//! file that shrinks raises no signal.
//!
//! Since Linux 5.2 the kernel tells only the file's owner and users that may write to it; for all others it reports every page as
//! present.

use crate::error::{Error, IoError, Result};
use crate::page::PAGE_SIZE;
use crate::reserve;
use crate::store::{Opening, open_regular};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::path::Path;

/// One byte per page from page `first` on, for `count` pages or up to the end of the file: 1 = in the kernel's page cache.
///
/// # Errors
/// The errors of open(2), fstat(2), mmap(2) and mincore(2); [`Error::OutOfMemory`] if there is no memory for the result.
pub fn kernel_residency(path: &Path, first: u64, count: u64) -> Result<Vec<u8>> {
    let io_error = |error| Error::Io(IoError::new(error, path));
    let open = || {
        let file = open_regular(path, Opening::default())?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    let (file, length) = open().map_err(io_error)?;
    let count = count.min(length.div_ceil(PAGE_SIZE as u64).saturating_sub(first));
    let mut pages = reserve::zeros(count as usize, "the residency of pages")?;
    if count > 0 {
        // The kernel's pages may be larger than ours, but are not smaller.
        let mut answers = reserve::zeros(count as usize + 1, "the residency of pages")?;
        residency(&file, first, &mut pages, &mut answers).map_err(io_error)?;
    }
    Ok(pages)
}

/// Fills `pages`; `answers` has room for the kernel's bytes.
fn residency(file: &File, first: u64, pages: &mut [u8], answers: &mut [u8]) -> io::Result<()> {
    let count = pages.len() as u64;
    // SAFETY: it only returns a number.
    let granule = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(PAGE_SIZE as u64);
    let offset_of = |page: u64| (first + page) * PAGE_SIZE as u64;
    let start = offset_of(0) - offset_of(0) % granule;
    let length = (offset_of(count) - start) as usize;
    assert!(length.div_ceil(granule as usize) <= answers.len(), "room for the answers");

    // SAFETY: a new mapping at an address that the kernel chooses touches no existing one.
    let map = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, start) }?;
    // SAFETY: the range is the mapping just made, and `answers` has a byte for each of its pages.
    let asked = unsafe { libc::mincore(map, length, answers.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the same mapping, whose address is known nowhere else.
    unsafe { munmap(map, length) }?;
    if asked != 0 {
        return Err(error);
    }
    // The other bits are reserved for the kernel.
    for (page, resident) in (0..count).zip(pages) {
        *resident = answers[((offset_of(page) - start) / granule) as usize] & 1;
    }
    Ok(())
}
