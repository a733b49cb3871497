//! What a failed read of a store means.
//!
//! Owns: the verdict. A store that somebody made shorter, or rewrote, fails reads that were begun by its old size or version;
//! those are no errors of the file.

use super::address_space::AddressSpace;
use super::coherence;
use crate::error::IoError;

/// The answer of [`judge_read_error`].
pub(crate) enum ReadError {
    /// The store has become shorter: the file ends before the page, at this size.
    Beyond(u64),
    /// The store was changed, and the page is still in the file: it can be read again.
    Changed,
    /// The page cannot be read; the size now.
    Unreadable(u64, IoError),
}

/// Whether a page whose read failed may be had by another read.
pub(super) fn may_come(mapping: &AddressSpace, cause: &IoError) -> bool {
    cause.is_change() && mapping.version.may_vouch()
}

/// What a failed read means.
pub(crate) fn judge_read_error(mapping: &AddressSpace, index: u64, cause: IoError) -> ReadError {
    if may_come(mapping, &cause) && coherence::follow_changes(mapping).is_ok() {
        return mapping.ends_before(index).map_or(ReadError::Changed, ReadError::Beyond);
    }
    if cause.is_short_read() && coherence::revalidate(mapping, false).is_ok() {
        if let Some(size) = mapping.ends_before(index) {
            return ReadError::Beyond(size);
        }
        if cause.size_expected().is_some_and(|size| size != mapping.i_size()) {
            return ReadError::Changed;
        }
    }
    ReadError::Unreadable(mapping.i_size(), cause)
}
