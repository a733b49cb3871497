//! `specmm._core`: a thin binding of the `specmm` crate to Python. It contains no logic.
//!
//! It adds what only a binding can: conversion of arguments, errors and results (`args`, `errors`, `results`), access to buffers
//! (`buffer`), memory for small things when there is none (`reserve`), Python objects as stores (`store`), the warning about
//! files that were never closed (`unclosed`), and the rule that no thread waits while it holds the GIL (`handle`).

mod args;
mod buffer;
mod cache;
mod caller;
mod errors;
mod file;
mod gather;
mod handle;
mod imported;
mod interpreter;
mod interrupt;
mod later;
mod mm;
mod offsets;
mod pin;
mod reserve;
mod results;
mod slices;
mod store;
mod unclosed;
mod worker;
mod workload;

use pyo3::prelude::*;

/// The extension module behind the `specmm` package.
#[pymodule(gil_used = true)]
mod _core {
    use super::args;
    use super::buffer::{Readable, Writable};
    use super::errors::raise;
    use pyo3::prelude::*;
    use specmm::error::{Error, IoError};
    use specmm::internals::store;
    use specmm::store::Opening;
    use std::os::fd::IntoRawFd;
    use std::path::PathBuf;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::interpreter::require_main(module.py())?;
        super::imported::fill_cells(module)?;
        specmm::give_up_waiting_when(super::interrupt::has_come);
        Ok(())
    }

    #[pymodule_export]
    use super::cache::PageCache;
    #[pymodule_export]
    use super::file::File;
    #[pymodule_export]
    use super::mm::Mm;
    #[pymodule_export]
    use super::pin::Pinned;
    #[pymodule_export]
    use super::results::{counter_glosses, event_glosses};
    #[pymodule_export]
    use super::workload::{kernel_residency, rows, run_faults, workloads};

    /// Bytes in a page.
    #[pymodule_export]
    const PAGE_SIZE: usize = specmm::PAGE_SIZE;

    /// Default capacity of a cache, in bytes.
    #[pymodule_export]
    const DEFAULT_CAPACITY: u64 = args::DEFAULT_CAPACITY;

    /// Default of a file's largest readahead window, in pages.
    #[pymodule_export]
    const DEFAULT_RA_PAGES: u32 = specmm::DEFAULT_RA_PAGES;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Waits until no thread is in the middle of attaching to the interpreter, and keeps it so during a fork.
    #[pyfunction]
    fn before_fork(py: Python<'_>) {
        super::worker::before_fork(py);
    }

    /// Tells the module that the fork is over, in the parent.
    #[pyfunction]
    fn after_fork_in_parent() {
        super::worker::after_fork_in_parent();
    }

    /// Closes a cache unless this process has only inherited it.
    #[pyfunction]
    fn close_at_exit(py: Python<'_>, cache: &Bound<'_, PageCache>) -> PyResult<()> {
        cache.get().close_at_exit(py)
    }

    /// Tells the module that this process exits or is a forked child: its files need not be closed.
    #[pyfunction]
    fn stop_warning() {
        super::unclosed::stop_warning();
    }

    /// Marks a file as one that nobody is expected to close, and returns it.
    #[pyfunction]
    fn may_stay_open<'a, 'py>(file: &'a Bound<'py, File>) -> &'a Bound<'py, File> {
        file.get().may_stay_open();
        file
    }

    /// Warns that a file was never closed, if it should have been, on behalf of whoever should have closed it.
    #[pyfunction]
    fn warn_unclosed(file: &Bound<'_, File>, source: &Bound<'_, PyAny>) {
        if file.get().is_unclosed() {
            // Above the stream's method.
            super::unclosed::warn(source, 2);
        }
    }

    /// Number of pages of a file, and how many are resident in each of at most so many equal parts.
    #[pyfunction]
    fn resident_in(
        py: Python<'_>,
        file: &Bound<'_, File>,
        #[pyo3(from_py_with = args::parts)] parts: u64,
    ) -> PyResult<(u64, Vec<u64>)> {
        let parts = usize::try_from(parts).unwrap_or(usize::MAX);
        file.get().handle().detached(py, |file| file.resident_in(parts))
    }

    /// Capacity of a file's cache, in bytes.
    #[pyfunction]
    fn capacity_of(file: &Bound<'_, File>) -> u64 {
        file.get().capacity()
    }

    /// Number of bytes that can be read into a buffer; raises `TypeError` unless `preadinto` accepts it.
    #[pyfunction]
    fn check_target(buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(Writable::new(buffer)?.out().len())
    }

    /// Copies bytes to the beginning of a buffer that `preadinto` accepts; returns how many fitted.
    #[pyfunction]
    fn copy_into(buffer: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        Writable::new(buffer)?.fill(&Readable::new(data)?)
    }

    /// Opens the regular file at a path for reading, and returns the descriptor. It never blocks.
    #[pyfunction]
    #[allow(clippy::needless_pass_by_value, reason = "an argument from Python")]
    fn open_regular(py: Python<'_>, #[pyo3(from_py_with = args::path)] path: PathBuf) -> PyResult<i32> {
        let opened = py.detach(|| store::open_regular(&path, Opening::default()));
        let file = opened.map_err(|error| raise(py, &Error::Io(IoError::new(error, &path))))?;
        Ok(file.into_raw_fd())
    }

    /// Number of bytes in a size: an int, or a string such as "64MiB".
    #[pyfunction]
    fn parse_size(size: &Bound<'_, PyAny>) -> PyResult<u64> {
        args::size_in_bytes("size", size)
    }
}
