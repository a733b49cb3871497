//! What a failed read of a store means.
//!
//! Owns: the verdict. Does not own what a call does about it. When others have shortened or rewritten a store, reads that began
//! with its old size or version fail; those are not errors of the file.

use super::address_space::AddressSpace;
use super::coherence;
use crate::error::IoError;

/// The result of [`judge_read_error`].
pub(crate) enum ReadError {
    /// The store was shortened: the file ends before the page, at this size.
    Beyond(u64),
    /// The store was changed, and the page is still in the file: it can be read again.
    Changed,
    /// The page cannot be read; with the file's current size.
    Unreadable(u64, IoError),
}

/// Whether another read may succeed after one that failed.
pub(super) fn may_come(mapping: &AddressSpace, cause: &IoError) -> bool {
    cause.is_change() && mapping.version.may_vouch()
}

/// Judges a failed read.
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
