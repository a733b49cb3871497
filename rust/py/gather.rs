//! `File.gather`: offsets in, rows out.

use crate::buffer::Writable;
use crate::errors::{out_of_memory, past_the_end, raise};
use crate::file::Opened;
use crate::handle::Handle;
use crate::offsets::offsets_of;
use crate::slices::{BYTES, Pace};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use specmm::{OneVersion, Out, Verdict};

/// The most that is tried without releasing the GIL, in bytes and in rows. For more it is worth releasing.
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
    let total = rows
        .checked_mul(length)
        .filter(|&total| isize::try_from(total).is_ok())
        .ok_or_else(|| out_of_memory(&format!("{rows} reads of {length} bytes")))?;
    let object = match out {
        Some(out) => out.clone(),
        // Rows that cannot be in the file are refused before memory is allocated for them.
        None if total > BYTES && length as u64 > file.detached(py, specmm::File::look)? => {
            return Err(past_the_end(py, offsets[0], file.get()?.size().map_err(|error| raise(py, &error))?));
        }
        // As a program would: the C interface complains about the array that it could not create (CPython 3.11).
        None => py
            .get_type::<PyByteArray>()
            .call1((total,))
            .map_err(|_| out_of_memory(&format!("{rows} reads of {length} bytes")))?,
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

/// A few rows that hit are copied with the GIL; whatever remains is read without it, in slices.
fn read(
    py: Python<'_>,
    file: &Handle<Opened>,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
) -> PyResult<()> {
    let total = out.len();
    // All of it is of one version.
    let mut call = file.get()?.one_version_now().map_err(|error| raise(py, &error))?;
    let mut done = 0;
    if call.is_some() && total <= ATTACHED_BYTES && offsets.len() <= ATTACHED_ROWS {
        let hits = file.get()?.gather_cached_into(offsets, length, out.part(0..total));
        done = hits.map_err(|error| raise(py, &error))?;
        if done == offsets.len() {
            return Ok(());
        }
    }
    let mut call = match call.take() {
        Some(call) => call,
        None => file.detached(py, specmm::File::one_version)?,
    };
    loop {
        let (rest, room) = (&offsets[done..], out.part(done * length..total));
        let read = if length > BYTES { read_long } else { read_slices };
        let is_whole = read(py, file, &call, rest, length, room)?;
        match file.detached(py, |file| file.judge(&mut call, is_whole))? {
            Verdict::OneVersion => return Ok(()),
            Verdict::ReadTwice => {
                let (call, all) = (&mut call, out.part(0..total));
                let read = file.detached(py, |file| file.read_twice(call, offsets, length, all))?;
                if read == Some(length) {
                    return Ok(());
                }
            }
            Verdict::Again => {}
        }
        done = 0;
    }
}

/// One try; false if the file changed meanwhile.
fn read_slices(
    py: Python<'_>,
    file: &Handle<Opened>,
    call: &OneVersion,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
) -> PyResult<bool> {
    // A row may be a hit of some nanoseconds or a read that takes seconds.
    let mut pace = Pace::new();
    let most = (BYTES / length.max(1)) as u64;
    let mut done = 0;
    while done < offsets.len() {
        let answer = pace.paced(|rows| {
            let end = offsets.len().min(done + rows.min(most) as usize);
            let (slice, room) = (&offsets[done..end], out.part(done * length..end * length));
            done = end;
            file.detached(py, |file| file.gather_part(call, slice, length, room))
        });
        if !answer? {
            return Ok(false);
        }
        py.check_signals()?;
    }
    Ok(true)
}

/// The same for rows that are larger than a slice.
fn read_long(
    py: Python<'_>,
    file: &Handle<Opened>,
    call: &OneVersion,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
) -> PyResult<bool> {
    for (number, &offset) in offsets.iter().enumerate() {
        let mut size = file.get()?.size().map_err(|error| raise(py, &error))?;
        if offset + length as u64 > size {
            size = file.detached(py, specmm::File::look)?;
        }
        if offset + length as u64 > size {
            return Err(past_the_end(py, offset, size));
        }
        let mut row = out.part(number * length..(number + 1) * length);
        for done in (0..length).step_by(BYTES) {
            let wanted = BYTES.min(length - done);
            let slice = row.part(done..done + wanted);
            let offset = [offset + done as u64];
            if !file.detached(py, |file| file.gather_part(call, &offset, wanted, slice))? {
                return Ok(false);
            }
            py.check_signals()?;
        }
    }
    Ok(true)
}
