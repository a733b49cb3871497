//! Readahead: turns windows into pages that are being read.
//!
//! Owns: when to read a window, the creation of its pages, and their submission. Does not own its size (`window`), the pages'
//! bytes (`fill`), nor the decision that a fault missed (`filemap`). Mirrors `mm/readahead.c` of Linux 5.12:
//! `page_cache_sync_ra`, `page_cache_async_ra`, `page_cache_ra_unbounded`. One mutex per open file guards the window.

use super::address_space::{AddressSpace, Created};
use super::advice::Advice;
use super::invalidate_lock::stable;
use super::io::{Errand, Submitted};
use super::open_file::OpenFile;
use super::requests;
use super::stats::Stat;
use super::window::{IO_PAGES, Neighbours, Plan, Request};
use crate::page::{PageHandle, PageRef, usage};
use crate::sync::{in_order, operation, seeded};
use std::sync::Arc;

impl Neighbours for OpenFile {
    fn history(&self, index: u64, max: u64) -> u64 {
        let section = crate::rcu::read();
        let present =
            |distance: &u64| *distance <= index && self.mapping.peek(index - *distance, &section).is_some();
        (1..=max).take_while(present).count() as u64
    }

    fn hole_after(&self, index: u64, max: u64) -> Option<u64> {
        let section = crate::rcu::read();
        (index + 1..=index.saturating_add(max)).find(|&at| self.mapping.peek(at, &section).is_none())
    }
}

/// Submits a run of locked pages as readahead and takes over their locks. Some: the caller must run it.
pub(super) fn submit_window(mapping: &Arc<AddressSpace>, first: u64, pfns: Vec<u32>) -> Option<Errand> {
    mapping.shared.count(Stat::ReadaheadPages, pfns.len() as u64);
    let source = Arc::<AddressSpace>::clone(mapping);
    match mapping.shared.io.submit(requests::Request { source, first, pfns, answer: None }) {
        Submitted::Yours(errand) => Some(errand),
        Submitted::Queued | Submitted::Refused => None,
    }
}

/// Consecutive new pages: the index of the first, and the frames.
type Run = (u64, Vec<u32>);

/// The run that a page at `index` continues or begins, with room for that page. None: there is no memory.
fn run_for(runs: &mut Vec<Run>, index: u64) -> Option<&mut Vec<u32>> {
    if runs.last().is_none_or(|(first, run)| first + run.len() as u64 != index) {
        runs.try_reserve(1).ok()?;
        runs.push((index, Vec::new()));
    }
    let (_, run) = runs.last_mut()?;
    run.try_reserve(1).ok()?;
    Some(run)
}

/// Reads ahead from an absent page (`page_cache_sync_ra`); returns the page if this call created it.
pub(super) fn page_cache_sync_ra(open: &Arc<OpenFile>, index: u64, pages: u64) -> Option<PageHandle<'_>> {
    operation!("readahead");
    let plan = match (open.ra_pages(), open.advice()) {
        (0, _) => return None,
        (ra_pages, Advice::Random) => {
            let nr = pages.min(io_pages(open).max(ra_pages));
            Some(Plan { start: index, nr, async_size: 0 })
        }
        _ => ondemand(open, index, pages, false),
    };
    submit(open, plan?, Some(index))
}

/// Reads the window that a marker announces (`page_cache_async_ra`): of several threads that meet the marker, only one does.
pub(super) fn page_cache_async_ra(open: &Arc<OpenFile>, page: PageRef<'_>, index: u64, pages: u64) {
    operation!("readahead");
    if open.ra_pages() != 0 && page.take_readahead() {
        if let Some(plan) = ondemand(open, index, pages, true) {
            submit(open, plan, None);
        }
    }
}

/// The most pages that a big read may request at once.
pub(super) fn io_pages(open: &OpenFile) -> u64 {
    IO_PAGES.min(open.mapping.frames().capacity() as u64 / 4)
}

/// Decides what to read now, and moves the window.
fn ondemand(open: &OpenFile, index: u64, pages: u64, hit_marker: bool) -> Option<Plan> {
    let request = Request {
        index,
        pages,
        hit_marker,
        ra_pages: open.ra_pages(),
        io_pages: io_pages(open),
        prev_index: open.prev_index(),
    };
    open.window.lock().ondemand(request, open)
}

/// Reads the window around a fault that missed.
pub(super) fn read_around(open: &Arc<OpenFile>, index: u64) {
    operation!("readahead");
    let plan = open.window.lock().around(index, open.ra_pages());
    submit(open, plan, None);
}

/// Reads a range regardless of the window, up to the limit of one call (`force_page_cache_ra`).
pub(crate) fn will_need(open: &Arc<OpenFile>, first: u64, last: u64) {
    operation!("readahead");
    // More than half the cache would evict its own beginning.
    let half = (open.mapping.frames().capacity() as u64 / 2).max(1);
    let most = IO_PAGES.max(open.ra_pages()).min(half);
    let last = last.min(first.saturating_add(most - 1));
    let step = io_pages(open).max(open.ra_pages()).max(1);
    let mut at = first;
    while at <= last {
        submit(open, Plan { start: at, nr: step.min(last - at + 1), async_size: 0 }, None);
        at += step;
    }
}

/// Creates the absent pages of a plan and submits each run of new ones (`do_page_cache_ra`, `page_cache_ra_unbounded`). Stops
/// when frames or memory run out. Returns the page `wanted`, if it is a new one.
fn submit(open: &Arc<OpenFile>, plan: Plan, wanted: Option<u64>) -> Option<PageHandle<'_>> {
    let mapping = &open.mapping;
    let mut handed_back = None;
    let (mut runs, mut errands) = (Vec::new(), Vec::new());
    {
        // Truncation must not come between the size check and the insertion.
        let stable = seeded!("readahead.invalidate_lock", stable(mapping).map(Some), bug = Some(None))?;
        let nr = plan.nr.min(mapping.pages_in_file().saturating_sub(plan.start));
        let marker = nr.checked_sub(plan.async_size);
        for i in 0..nr {
            let index = plan.start + i;
            if mapping.peek(index, &crate::rcu::read()).is_some() {
                continue;
            }
            // Also room for the errand of each run.
            if errands.try_reserve(runs.len() + 1).is_err() {
                break;
            }
            let Some(run) = run_for(&mut runs, index) else { break };
            match mapping.add_page(index) {
                Created::New(held) => {
                    if marker == Some(i) {
                        held.lock.set_readahead();
                    }
                    held.handle.page().usage().set(usage::PREFETCHED);
                    run.push(held.lock.into_pfn());
                    if wanted == Some(index) {
                        handed_back = Some(held.handle);
                    }
                }
                Created::Exists => {}
                Created::NoFrame | Created::NoMemory(_) => break,
            }
        }
        let runs = runs.into_iter().filter(|(_, run)| !run.is_empty());
        let submitted = runs.filter_map(|(first, pfns)| submit_window(mapping, first, pfns));
        // Under the lock: see `invalidate_lock::quiet`.
        in_order!("readahead.submitted_inside", errands.extend(submitted), drop(stable));
    }
    errands.into_iter().for_each(Errand::run);
    handed_back
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
