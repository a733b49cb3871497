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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_each_is_allowed() {
        let refused = |answer: Result<()>| match answer {
            Err(Error::InvalidArgument(what)) => Some(what),
            Ok(()) => None,
            Err(error) => panic!("{error}"),
        };
        assert_eq!([0, 32, 1 << 18].map(|pages| refused(check_ra_pages(pages))), [const { None }; 3]);
        assert_eq!(refused(check_ra_pages((1 << 18) + 1)).unwrap(), "ra_pages 262145 exceeds 262144 (1 GiB)");
        assert_eq!([0, 1 << 44].map(|offset| refused(check_offset(offset))), [None, None]);
        assert!(refused(check_offset((1 << 44) + 1)).unwrap().starts_with("offset 17592186044417 exceeds"));
    }

    #[test]
    fn rows_fill_a_buffer_to_the_byte() {
        let mut buf = [0; 12];
        for (rows, length, fits) in [
            (3, 4, true),
            (4, 3, true),
            (1, 12, true),
            (3, 5, false),
            (2, 4, false),
            (0, 4, false),
            (2, usize::MAX, false),
        ] {
            let answer = check_room(&vec![0; rows], length, &Out::from(&mut buf[..]));
            assert_eq!(answer.is_ok(), fits, "{rows} rows of {length}");
        }
    }
}
