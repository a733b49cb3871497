//! Fallible allocation.
//!
//! Whatever grows with a capacity, a window, a batch or an argument is allocated here, with a word on what it is for.

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

/// One boxed value. (Through an array: a slice becomes one without another allocation.)
///
/// # Errors
/// As [`vec()`].
pub(crate) fn boxed<T>(value: T, what: &'static str) -> Result<Box<[T; 1]>> {
    let mut memory = vec(1, what)?;
    memory.push(value);
    memory.into_boxed_slice().try_into().map_err(|_| Error::out_of_memory(what, size_of::<T>()))
}

/// A vector of zeros.
///
/// # Errors
/// As [`vec()`].
pub(crate) fn zeros(length: usize, what: &'static str) -> Result<Vec<u8>> {
    let mut bytes = vec(length, what)?;
    bytes.resize(length, 0);
    Ok(bytes)
}
