//! Many offsets as checked numbers. Buffers of integers are read without an object for each.

use crate::args;
use crate::errors::out_of_memory;
use pyo3::buffer::{Element, PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// The offsets in a sequence or a buffer.
pub(crate) fn offsets_of(object: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    if let Ok(buffer) = PyUntypedBuffer::get(object) {
        if buffer.dimensions() != 1 {
            return Err(PyValueError::new_err(format!(
                "offsets must have one dimension: they have {}",
                buffer.dimensions()
            )));
        }
        let py = object.py();
        let buffer = match integers::<i64>(py, buffer)? {
            Ok(offsets) => return Ok(offsets),
            Err(buffer) => buffer,
        };
        let buffer = match integers::<u64>(py, buffer)? {
            Ok(offsets) => return Ok(offsets),
            Err(buffer) => buffer,
        };
        let buffer = match integers::<i32>(py, buffer)? {
            Ok(offsets) => return Ok(offsets),
            Err(buffer) => buffer,
        };
        if let Ok(offsets) = integers::<u32>(py, buffer)? {
            return Ok(offsets);
        }
    }
    // Anything else that yields integers, including other formats of buffers.
    let items = object.try_iter().map_err(|_| {
        let kind = args::type_name(object);
        PyTypeError::new_err(format!("offsets must be integers in a sequence or a buffer: {kind} is neither"))
    })?;
    let mut offsets = Vec::new();
    for (at, item) in items.enumerate() {
        let offset = args::unsigned(&format!("offsets[{at}]"), &item?)?;
        offsets.try_reserve(1).map_err(|_| out_of_memory(&format!("more than {at} offsets")))?;
        offsets.push(judge(at, offset)?);
    }
    Ok(offsets)
}

/// The numbers of a buffer of this type; the buffer itself if it has another.
fn integers<T>(py: Python<'_>, buffer: PyUntypedBuffer) -> PyResult<Result<Vec<u64>, PyUntypedBuffer>>
where
    T: Element + TryInto<u64> + Default + std::fmt::Display,
{
    // The type check ignores the byte order.
    let foreign = if cfg!(target_endian = "little") { &b">!"[..] } else { &b"<"[..] };
    let is_foreign = buffer.format().to_bytes().first().is_some_and(|first| foreign.contains(first));
    if is_foreign || buffer.as_typed::<T>().is_err() {
        return Ok(Err(buffer));
    }
    let typed: PyBuffer<T> = buffer.into_typed()?;
    let mut numbers = room(typed.item_count())?;
    numbers.resize(typed.item_count(), T::default());
    typed.copy_to_slice(py, &mut numbers)?;
    judged(&numbers).map(Ok)
}

fn judged<T>(numbers: &[T]) -> PyResult<Vec<u64>>
where
    T: Copy + TryInto<u64> + std::fmt::Display,
{
    let mut offsets = room(numbers.len())?;
    for (at, &number) in numbers.iter().enumerate() {
        let offset = number
            .try_into()
            .map_err(|_| PyValueError::new_err(format!("offsets[{at}] must not be negative: {number}")))?;
        offsets.push(judge(at, offset)?);
    }
    Ok(offsets)
}

fn room<T>(count: usize) -> PyResult<Vec<T>> {
    let mut offsets = Vec::new();
    offsets.try_reserve_exact(count).map_err(|_| out_of_memory(&format!("{count} offsets")))?;
    Ok(offsets)
}

fn judge(at: usize, offset: u64) -> PyResult<u64> {
    if offset > specmm::store::MAX_SIZE {
        return Err(PyValueError::new_err(format!(
            "offsets[{at}] must be at most {} (16 TiB): {offset}",
            specmm::store::MAX_SIZE
        )));
    }
    Ok(offset)
}
