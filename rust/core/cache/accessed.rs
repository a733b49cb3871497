//! Marks of use on pages, which reclaim reads.
//!
//! Owns: what a read, or the removal of an entry, marks on a page. Does not own what reclaim does with the marks (`vmscan`).
//! Mirrors `mark_page_accessed` of `mm/swap.c`. The marks are bits of the page that any thread may set: a guess, so races do no
//! harm.

use super::shared::Shared;
use super::stats::Stat;
use crate::page::{PageRef, usage};
use crate::sync::context;

/// Marks a page that a read found or brought in (`mark_page_accessed`). Reads that continue in the page where the thread's last
/// one ended count as one touch (Linux: `prev_pos` of the open file), so reading a page in small pieces does not make it active.
#[inline]
pub(super) fn touch(shared: &Shared, page: PageRef<'_>) {
    if !is_active(page) {
        touch_first_or_second(shared, page);
    }
}

#[cold]
fn touch_first_or_second(shared: &Shared, page: PageRef<'_>) {
    let last = context::with(|thread| thread.last_touched.replace(page.life()));
    if page.usage().get() & usage::REFERENCED != 0 {
        if last != page.life() {
            page.usage().set(usage::ACTIVE);
        }
    } else {
        page.usage().set(usage::REFERENCED);
        end_prefetch(shared, page);
    }
}

/// Marks a page that a program used through an entry that is now gone (`mark_page_accessed`): the first use makes it referenced,
/// the next one active.
pub(crate) fn mark_accessed(shared: &Shared, page: PageRef<'_>) {
    if page.usage().set(usage::REFERENCED) & usage::REFERENCED != 0 {
        page.usage().set(usage::ACTIVE);
    }
    end_prefetch(shared, page);
}

/// Counts a page that was read ahead as used, once.
pub(super) fn end_prefetch(shared: &Shared, page: PageRef<'_>) {
    if page.usage().get() & usage::PREFETCHED != 0
        && page.usage().clear(usage::PREFETCHED) & usage::PREFETCHED != 0
    {
        shared.count(Stat::ReadaheadUsed, 1);
    }
}

/// Whether touching this page would change nothing.
#[inline]
pub(super) fn is_active(page: PageRef<'_>) -> bool {
    const BOTH: u32 = usage::REFERENCED | usage::ACTIVE;
    page.usage().get() & BOTH == BOTH
}
