//! `File.gather`: offsets in, rows out.

use crate::args;
use crate::buffer::Writable;
use crate::errors::{past_the_end, raise};
use crate::file::Opened;
use crate::handle::Handle;
use crate::slices::{BYTES, Pace};
use pyo3::buffer::{Element, PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use specmm::Out;

/// What is tried attached at most, in bytes and in rows. More is worth handing the interpreter over.
const ATTACHED_BYTES: usize = 64 << 10;
const ATTACHED_ROWS: usize = 256;

/// The whole of it: arguments, reads, result.
pub(crate) fn gather<'py>(
    py: Python<'py>,
    file: &Handle<Opened>,
    offsets: &Bound<'py, PyAny>,
    length: u64,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let offsets = offsets_of(offsets)?;
    let rows = offsets.len();
    let length = usize::try_from(length).expect("a length fits where pointers have 64 bits");
    let total =
        rows.checked_mul(length).filter(|&total| isize::try_from(total).is_ok()).ok_or_else(|| {
            PyMemoryError::new_err(format!("{rows} reads of {length} bytes are more than memory can hold"))
        })?;
    let object = match out {
        Some(out) => out.clone(),
        // Rows that cannot be in the file are judged before room for them is made.
        None if total > BYTES && length as u64 > file.get()?.size().map_err(|error| raise(py, &error))? => {
            return Err(past_the_end(py, offsets[0], file.get()?.size().map_err(|error| raise(py, &error))?));
        }
        None => PyByteArray::new_with(py, total, |_| Ok(()))?.into_any(),
    };
    let mut buffer = Writable::new(&object)?;
    let out = buffer.out();
    if out.len() != total {
        return Err(PyValueError::new_err(format!(
            "out must have {rows} * {length} = {total} bytes: it has {}",
            out.len()
        )));
    }
    read(py, file, &offsets, length, out)?;
    drop(buffer);
    Ok(object)
}

/// Few rows that hit are copied attached; whatever remains is read detached, in slices.
fn read(
    py: Python<'_>,
    file: &Handle<Opened>,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
) -> PyResult<()> {
    let total = out.len();
    let mut done = 0;
    if total <= ATTACHED_BYTES && offsets.len() <= ATTACHED_ROWS {
        let hits = file.get()?.gather_cached_into(offsets, length, out.part(0..total));
        done = hits.map_err(|error| raise(py, &error))?;
    }
    if length > BYTES {
        return read_long(py, file, &offsets[done..], length, out.part(done * length..total));
    }
    // A row may be a hit of some nanoseconds or a read that takes seconds.
    let mut pace = Pace::new();
    let most = (BYTES / length.max(1)) as u64;
    while done < offsets.len() {
        let answer = pace.paced(|rows| {
            let end = offsets.len().min(done + rows.min(most) as usize);
            let (slice, room) = (&offsets[done..end], out.part(done * length..end * length));
            done = end;
            file.detached(py, |file| file.gather_into(slice, length, room))
        });
        answer?;
        py.check_signals()?;
    }
    Ok(())
}

/// Rows of which one alone is more than a slice.
fn read_long(
    py: Python<'_>,
    file: &Handle<Opened>,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
) -> PyResult<()> {
    for (number, &offset) in offsets.iter().enumerate() {
        let size = file.get()?.size().map_err(|error| raise(py, &error))?;
        if offset + length as u64 > size {
            return Err(past_the_end(py, offset, size));
        }
        let mut row = out.part(number * length..(number + 1) * length);
        for done in (0..length).step_by(BYTES) {
            let wanted = BYTES.min(length - done);
            let slice = row.part(done..done + wanted);
            file.detached(py, |file| file.gather_into(&[offset + done as u64], wanted, slice))?;
            py.check_signals()?;
        }
    }
    Ok(())
}

/// The offsets as numbers, each judged. Buffers of integers are taken over without an object for each.
fn offsets_of(object: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    if let Ok(buffer) = PyUntypedBuffer::get(object) {
        if buffer.dimensions() != 1 {
            return Err(PyValueError::new_err(format!(
                "offsets must have one dimension: they have {}",
                buffer.dimensions()
            )));
        }
        let py = object.py();
        let buffer = match integers::<i64>(py, buffer)? {
            Ok(numbers) => return judged(numbers),
            Err(buffer) => buffer,
        };
        let buffer = match integers::<u64>(py, buffer)? {
            Ok(numbers) => return judged(numbers),
            Err(buffer) => buffer,
        };
        let buffer = match integers::<i32>(py, buffer)? {
            Ok(numbers) => return judged(numbers),
            Err(buffer) => buffer,
        };
        if let Ok(numbers) = integers::<u32>(py, buffer)? {
            return judged(numbers);
        }
    }
    // Anything else that gives integers, other formats of buffers included.
    let items = object.try_iter().map_err(|_| {
        let kind = args::type_name(object);
        PyTypeError::new_err(format!("offsets must be integers in a sequence or a buffer: {kind} is neither"))
    })?;
    let mut offsets = Vec::new();
    for (at, item) in items.enumerate() {
        let offset = args::unsigned(&format!("offsets[{at}]"), &item?)?;
        offsets.push(judge(at, offset)?);
    }
    Ok(offsets)
}

/// The numbers of a buffer that holds this type; the buffer itself if it holds another.
fn integers<T: Element>(
    py: Python<'_>,
    buffer: PyUntypedBuffer,
) -> PyResult<Result<Vec<T>, PyUntypedBuffer>> {
    // The check of types does not look at the order of bytes.
    let foreign = if cfg!(target_endian = "little") { &b">!"[..] } else { &b"<"[..] };
    let is_foreign = buffer.format().to_bytes().first().is_some_and(|first| foreign.contains(first));
    if is_foreign || buffer.as_typed::<T>().is_err() {
        return Ok(Err(buffer));
    }
    let typed: PyBuffer<T> = buffer.into_typed()?;
    typed.to_vec(py).map(Ok)
}

fn judged<T: Copy + TryInto<u64> + std::fmt::Display>(numbers: Vec<T>) -> PyResult<Vec<u64>> {
    let judged = numbers.into_iter().enumerate().map(|(at, number)| {
        let offset = number
            .try_into()
            .map_err(|_| PyValueError::new_err(format!("offsets[{at}] must not be negative: {number}")))?;
        judge(at, offset)
    });
    judged.collect()
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
