//! Long calls go to the core in slices, with a check for Ctrl-C between them.

use crate::errors::out_of_memory;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::time::{Duration, Instant};

/// Bytes copied in one slice.
pub(crate) const BYTES: usize = 1 << 20;

/// Pages reported in one slice.
pub(crate) const PAGES: u64 = 1 << 20;

/// Touches or reads made in a first slice.
pub(crate) const FIRST: u64 = 16;

/// How many touches or reads one slice makes. Each may be a hit of some nanoseconds or a read that takes seconds, so the
/// slices grow while they are short and shrink when they are long.
pub(crate) struct Pace(u64);

impl Pace {
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    /// Makes one slice of at most the given number.
    pub(crate) fn paced<R>(&mut self, slice: impl FnOnce(u64) -> R) -> R {
        let started = Instant::now();
        let answer = slice(self.0);
        let elapsed = started.elapsed();
        if elapsed < Duration::from_millis(1) {
            self.0 = (self.0 * 2).min(1 << 16);
        } else if elapsed > Duration::from_millis(50) {
            self.0 = (self.0 / 2).max(1);
        }
        answer
    }
}

/// Collects an unknown number of bytes, without allocating more than the core returned.
///
/// `ask(done, wanted)` returns up to `wanted` bytes after the first `done`; fewer end the collection.
pub(crate) fn collect(
    py: Python<'_>,
    total: u64,
    slice: u64,
    mut ask: impl FnMut(u64, u64) -> PyResult<Vec<u8>>,
) -> PyResult<Bound<'_, PyBytes>> {
    let mut bytes = Vec::new();
    let mut done = 0;
    loop {
        let wanted = slice.min(total - done);
        let got = ask(done, wanted)?;
        if bytes.is_empty() {
            bytes = got;
        } else {
            bytes.try_reserve(got.len()).map_err(|_| out_of_memory("the requested bytes"))?;
            bytes.extend_from_slice(&got);
        }
        done += wanted;
        if done == total || (bytes.len() as u64) < done {
            return bytes_from(py, &bytes);
        }
        py.check_signals()?;
    }
}

/// Copies with Python's own function. (`pyo3`'s panics if there is no memory.)
pub(crate) fn bytes_from<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, bytes.len(), |copy| {
        copy.copy_from_slice(bytes);
        Ok(())
    })
}
