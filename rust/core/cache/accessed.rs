//! That a page is used, as reclaim will find it.
//!
//! Owns: what a read, or an entry that is gone, notes on a page. Does not own what reclaim makes of it (`vmscan`). Mirrors
//! `mark_page_accessed` of `mm/swap.c`. The marks are bits of the page that any thread sets: a guess, so that races do no harm.

use super::shared::Shared;
use super::stats::Stat;
use crate::page::{PageRef, usage};
use crate::sync::context;

/// A read found the page or brought it (`mark_page_accessed`). Reads that go on in the page where the thread's last one
/// ended are one touch (Linux: `prev_pos` of the open file), so reading a page in small pieces does not make it active.
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

/// A program used the page through an entry that is gone now (`mark_page_accessed`): the first use makes it referenced, the
/// next active.
pub(crate) fn mark_accessed(shared: &Shared, page: PageRef<'_>) {
    if page.usage().set(usage::REFERENCED) & usage::REFERENCED != 0 {
        page.usage().set(usage::ACTIVE);
    }
    end_prefetch(shared, page);
}

/// A page that is used was not read ahead in vain.
pub(super) fn end_prefetch(shared: &Shared, page: PageRef<'_>) {
    if page.usage().get() & usage::PREFETCHED != 0
        && page.usage().clear(usage::PREFETCHED) & usage::PREFETCHED != 0
    {
        shared.count(Stat::ReadaheadUsed, 1);
    }
}

/// Whether a touch of this page changes nothing.
#[inline]
pub(super) fn is_active(page: PageRef<'_>) -> bool {
    const BOTH: u32 = usage::REFERENCED | usage::ACTIVE;
    page.usage().get() & BOTH == BOTH
}
