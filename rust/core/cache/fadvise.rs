//! Acting on advice: `mm/fadvise.c`.
//!
//! Owns: which pages a range of bytes covers. Does not own reading them (`readahead`) nor dropping them (`eviction`).

use super::advice::Advice;
use super::open_file::OpenFile;
use super::readahead::will_need;
use super::{coherence, eviction};
use crate::page::PAGE_SIZE;
use crate::sync::operation;
use std::sync::Arc;

/// Takes advice about `length` bytes from `offset` on; a `length` of None means to the end.
pub(super) fn advise(open: &Arc<OpenFile>, advice: Advice, offset: u64, length: Option<u64>) {
    operation!("advise");
    let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
    let size = open.mapping.i_size();
    match advice {
        Advice::Normal | Advice::Random | Advice::Sequential => open.set_advice(advice),
        Advice::WillNeed => {
            // If the store cannot be examined, reading it fails too, and a later reader gets the error.
            let _met_again = coherence::follow_changes(&open.mapping);
            let size = open.mapping.i_size();
            let end = end.min(size);
            if offset < end {
                will_need(open, offset / PAGE_SIZE as u64, (end - 1) / PAGE_SIZE as u64);
            }
        }
        Advice::DontNeed => {
            let first = offset.div_ceil(PAGE_SIZE as u64);
            // A range that reaches the end of the file includes the last, partial page.
            let beyond = if end >= size { size.div_ceil(PAGE_SIZE as u64) } else { end / PAGE_SIZE as u64 };
            if first < beyond {
                eviction::invalidate(&open.mapping, first, beyond - 1);
            }
        }
    }
}
