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

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests {
    use super::*;
    use crate::cache::{Io, PageCache};
    use crate::page::{PAGE_SIZE, PageHandle, Use};

    const R: u32 = usage::REFERENCED;
    const A: u32 = usage::ACTIVE;
    const P: u32 = usage::PREFETCHED;

    fn marks(page: PageRef<'_>) -> u32 {
        page.usage().get() & (R | A | P)
    }

    #[test]
    fn a_second_touch_makes_a_page_active_unless_it_goes_on_with_the_first() {
        let cache = PageCache::new(2 * PAGE_SIZE as u64, Io::Inline).unwrap();
        let pages = [(); 2].map(|()| cache.shared().frames.alloc(Use::File).unwrap());
        let [one, two] = pages.each_ref().map(PageHandle::page);
        one.usage().set(P);
        two.usage().set(P);
        // Which is touched; the marks of both then, and how many that were read ahead have been used.
        for (touched, then, used) in [
            (one, [R, P], 1),
            (one, [R, P], 1),
            (two, [R, R], 2),
            (one, [R | A, R], 2),
            (two, [R | A, R | A], 2),
        ] {
            touch(cache.shared(), touched);
            assert_eq!(([marks(one), marks(two)], cache.stats().readahead_used), (then, used));
        }
        // What a touch of a page that has both marks leaves is as if there had been none.
        two.usage().clear(A);
        touch(cache.shared(), one);
        touch(cache.shared(), two);
        assert_eq!([marks(one), marks(two)], [R | A, R]);
    }

    #[test]
    fn each_use_through_an_entry_counts_and_a_prefetch_only_once() {
        let cache = PageCache::new(PAGE_SIZE as u64, Io::Inline).unwrap();
        let page = cache.shared().frames.alloc(Use::File).unwrap();
        let page = page.page();
        for (before, after, used) in
            [(0, R, 0), (R, R | A, 0), (A, R | A, 0), (P, R, 1), (R | P, R | A, 2), (R | A, R | A, 2)]
        {
            page.usage().clear(R | A | P);
            page.usage().set(before);
            mark_accessed(cache.shared(), page);
            assert_eq!((marks(page), cache.stats().readahead_used), (after, used), "{before}");
            end_prefetch(cache.shared(), page);
            assert_eq!((marks(page), cache.stats().readahead_used), (after, used), "{before}");
        }
    }
}
