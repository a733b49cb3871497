//! Argument checks, made before anything is done.
//!
//! Owns: the limits of public calls, and the messages of their errors. Does not own any state, so nothing is synchronised.

use crate::error::{Error, Result};
use crate::page::Out;
use crate::store::MAX_SIZE;

/// The largest window that may be configured: 1 GiB.
const MAX_RA_PAGES: u32 = 1 << 18;

pub(super) fn check_ra_pages(ra_pages: u32) -> Result<()> {
    if ra_pages > MAX_RA_PAGES {
        return Err(Error::InvalidArgument(format!("ra_pages {ra_pages} exceeds {MAX_RA_PAGES} (1 GiB)")));
    }
    Ok(())
}

pub(super) fn check_offset(offset: u64) -> Result<()> {
    if offset > MAX_SIZE {
        return Err(Error::InvalidArgument(format!("offset {offset} exceeds {MAX_SIZE} bytes (16 TiB)")));
    }
    Ok(())
}

/// Checks that the rows fill the buffer exactly.
pub(super) fn check_room(offsets: &[u64], length: usize, out: &Out<'_>) -> Result<()> {
    if offsets.len().checked_mul(length) == Some(out.len()) {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "{} reads of {length} bytes do not fill a buffer of {} bytes",
        offsets.len(),
        out.len()
    )))
}
