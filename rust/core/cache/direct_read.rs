//! Reading past the cache, twice, for files whose version keeps changing.
//!
//! Owns: such a read. Does not own the decision to make one (`one_version`). If two successive reads agree, all of it was in the
//! file at the moment between them. Linux has `O_DIRECT`, which guarantees less.

use super::coherence::look;
use super::one_version::{OneVersion, count_rewritten, look_at_rest};
use super::open_file::OpenFile;
use super::patience::should_give_up;
use super::stats::Stat;
use crate::error::{Error, IoError, Result};
use crate::page::{Out, PAGE_SIZE};
use crate::store::Change;
use crate::sync::{guard, operation};
use std::hash::{DefaultHasher, Hasher};

/// Reads `length` bytes at each offset past the cache, twice. If both reads agree and meanwhile the file was at most touched (its
/// ctime moved) or grew, everything read was in the file at the moment between them, and the result is the length of the last
/// read: less than `length` at the end of the file. Otherwise returns None and counts one attempt of the call.
pub(super) fn read_twice(
    open: &OpenFile,
    call: &mut OneVersion,
    offsets: &[u64],
    length: usize,
    mut out: Out<'_>,
) -> Result<Option<usize>> {
    operation!("read");
    let Some(before) = look_at_rest(&open.mapping)? else {
        count_rewritten(&open.mapping, call)?;
        return Ok(None);
    };
    let end = before.size.unwrap_or(u64::MAX);
    let all = out.part(0..offsets.len() * length);
    let first = read_past_the_cache(open, offsets, length, end, Some(all))?;
    let between = look(&open.mapping)?;
    let second = read_past_the_cache(open, offsets, length, end, None)?;
    let after = look(&open.mapping)?;
    let stood_still = between.since(&before) != Change::Written && after.since(&between) != Change::Written;
    if guard!("read_twice.agree", first == second) && guard!("read_twice.stood_still", stood_still) {
        return Ok(Some(first.1));
    }
    count_rewritten(&open.mapping, call)?;
    Ok(None)
}

/// Hashes the bytes before `end`, and copies them to `out` if there is one. Returns the hash and the length of the last read.
fn read_past_the_cache(
    open: &OpenFile,
    offsets: &[u64],
    length: usize,
    end: u64,
    mut out: Option<Out<'_>>,
) -> Result<(u64, usize)> {
    let mapping = &open.mapping;
    let mut buffer = mapping.shared.in_flight.buffer(length.max(1).next_multiple_of(PAGE_SIZE))?;
    let (mut hash, mut done) = (DefaultHasher::new(), 0);
    for (number, offset) in offsets.iter().enumerate() {
        done = 0;
        let length_here = usize::try_from(end.saturating_sub(*offset)).unwrap_or(usize::MAX).min(length);
        while done < length_here {
            let wanted = buffer.bytes.len().min(length_here - done);
            let bytes = &mut buffer.bytes[..wanted];
            mapping.shared.count(Stat::Reads, 1);
            let got = mapping.store.read_at(bytes, offset + done as u64);
            let got = got.map_err(|error| Error::Io(IoError::new(error, &mapping.name)))?;
            hash.write(&bytes[..got]);
            if let Some(out) = &mut out {
                let at = number * length + done;
                out.part(at..at + got).put(&bytes[..got]);
            }
            done += got;
            if got < wanted {
                break;
            }
            if should_give_up() {
                return Err(Error::Interrupted(mapping.name.clone()));
            }
        }
        hash.write_usize(done);
    }
    Ok((hash.finish(), done))
}
