//! Memory that may be refused.
//!
//! Whatever grows with a capacity, a window, a batch or an argument asks here, and says what it is for.

use crate::error::{Error, Result};

/// An empty vector with room for `length` items, for `what`.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn vec<T>(length: usize, what: &'static str) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    match vec.try_reserve_exact(length) {
        Ok(()) => Ok(vec),
        Err(_) => Err(Error::out_of_memory(what, length.saturating_mul(size_of::<T>()))),
    }
}

/// So many zeros.
///
/// # Errors
/// As [`vec()`].
pub(crate) fn zeros(length: usize, what: &'static str) -> Result<Vec<u8>> {
    let mut bytes = vec(length, what)?;
    bytes.resize(length, 0);
    Ok(bytes)
}
