//! How much to read ahead, and when.
//!
//! Owns: the window arithmetic of one open file and the submission of windows. Does not own the pages' bytes (`io`) nor
//! the decision that a fault missed (`filemap`). Mirrors `mm/readahead.c` of Linux 5.12: `get_init_ra_size`,
//! `get_next_ra_size`, `ondemand_readahead`, `page_cache_ra_unbounded`. One mutex per open file owns the window.

use super::file::OpenFile;
use super::io::{Errand, Submitted};
use super::requests;
use super::stats::Stat;
use super::{
    Advice,
    address_space::{AddressSpace, Created},
};
use crate::page::{PAGE_SIZE, PageRef, usage};
use crate::sync::seeded;
use std::sync::Arc;

/// Pages a big read may ask for at once although the window is smaller (`bdi->io_pages`): 1 MiB.
pub const IO_PAGES: u64 = 256;
/// Misses beyond which faults on a file look random (`MMAP_LOTSAMISS`).
pub const MMAP_LOTSAMISS: u32 = 100;
/// Where the miss counter saturates.
pub const MMAP_MISS_MAX: u32 = 10 * MMAP_LOTSAMISS;

/// The window of one open file (`struct file_ra_state`), in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// First page of the window.
    pub start: u64,
    /// Pages in it.
    pub size: u64,
    /// The last so many pages are read ahead of need; the first of these carries the marker.
    pub async_size: u64,
}

/// What to read: `nr` pages from `start`, the marker `async_size` pages before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// First page.
    pub start: u64,
    /// Pages.
    pub nr: u64,
    /// The marker goes on page `nr - async_size`, if that page is new.
    pub async_size: u64,
}

impl Plan {
    fn of(window: Window) -> Self {
        Self { start: window.start, nr: window.size, async_size: window.async_size }
    }
}

/// What the window arithmetic asks of the cache.
pub trait Neighbours {
    /// Pages present just before `index`, without a gap, at most `max`.
    fn history(&self, index: u64, max: u64) -> u64;
    /// The first page after `index` that is absent, if at most `max` pages away.
    fn hole_after(&self, index: u64, max: u64) -> Option<u64>;
}

/// The first window for a request of `size` pages (`get_init_ra_size`).
#[must_use]
pub fn get_init(size: u64, max: u64) -> u64 {
    let rounded = size.next_power_of_two();
    if rounded <= max / 32 {
        rounded * 4
    } else if rounded <= max / 4 {
        rounded * 2
    } else {
        max
    }
}

/// The window after one of `current` pages (`get_next_ra_size`).
#[must_use]
pub fn get_next(current: u64, max: u64) -> u64 {
    if current < max / 16 {
        current * 4
    } else if current <= max / 2 {
        current * 2
    } else {
        max
    }
}

/// Where a request stands: what is asked, and what was read before.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The page asked for.
    pub index: u64,
    /// Pages asked for.
    pub pages: u64,
    /// Whether the page carries the marker.
    pub hit_marker: bool,
    /// The file's maximal window.
    pub ra_pages: u64,
    /// The most that a larger request may read at once ([`IO_PAGES`], or less in a small cache).
    pub io_pages: u64,
    /// Page of the byte after the last one read before; -1 at first, as an unsigned number.
    pub prev_index: u64,
}

impl Window {
    /// Decides what to read and moves the window (`ondemand_readahead`).
    pub fn ondemand(&mut self, request: Request, cache: &impl Neighbours) -> Option<Plan> {
        let Request { index, pages, .. } = request;
        let mut max = request.ra_pages;
        if pages > max && request.io_pages > max {
            max = pages.min(request.io_pages);
        }
        let continues = index == self.start + self.size - self.async_size.min(self.size)
            || index == self.start + self.size;
        if index == 0 {
            self.start_over(index, pages, max);
        } else if continues {
            self.start += self.size;
            self.size = get_next(self.size, max);
            self.async_size = self.size;
        } else if request.hit_marker {
            // Interleaved streams: the marker belongs to a window that another stream has overwritten.
            let hole = cache.hole_after(index, max)?;
            self.start = hole;
            self.size = get_next(hole - index + pages, max);
            self.async_size = self.size;
        } else if pages > max || index.wrapping_sub(request.prev_index) <= 1 {
            self.start_over(index, pages, max);
        } else {
            let mut history = cache.history(index, max);
            if history <= pages {
                // Looks random: read what is asked and remember nothing.
                return Some(Plan { start: index, nr: pages, async_size: 0 });
            }
            if history >= index {
                history *= 2;
            }
            *self = Self { start: index, size: (history + pages).min(max), async_size: 1 };
        }
        // A window that would be hit at once is merged with the next one.
        if index == self.start && self.size == self.async_size {
            let add = get_next(self.size, max);
            if self.size + add <= max {
                self.async_size = add;
                self.size += add;
            } else {
                self.size = max;
                self.async_size = max / 2;
            }
        }
        Some(Plan::of(*self))
    }

    fn start_over(&mut self, index: u64, pages: u64, max: u64) {
        let size = get_init(pages, max);
        let async_size = if size > pages { size - pages } else { size };
        *self = Self { start: index, size, async_size };
    }

    /// The window around a fault that missed.
    pub fn around(&mut self, index: u64, ra_pages: u64) -> Plan {
        *self = Self { start: index.saturating_sub(ra_pages / 2), size: ra_pages, async_size: ra_pages / 4 };
        Plan::of(*self)
    }
}

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

impl OpenFile {
    /// Reads ahead of a page that is absent (`page_cache_sync_ra`). Answers whether anything was decided to be read.
    pub(super) fn page_cache_sync_ra(self: &Arc<Self>, index: u64, pages: u64) -> bool {
        let ra_pages = self.ra_pages();
        if ra_pages == 0 {
            return false;
        }
        if self.advice() == Advice::Random {
            let nr = pages.min(self.io_pages().max(ra_pages));
            self.submit(Plan { start: index, nr, async_size: 0 });
            return true;
        }
        self.ondemand(index, pages, false);
        true
    }

    /// Reads the window that a marker announces (`page_cache_async_ra`): of several who meet the marker one does.
    pub(super) fn page_cache_async_ra(self: &Arc<Self>, page: PageRef<'_>, index: u64, pages: u64) {
        if self.ra_pages() != 0 && page.take_readahead() {
            self.ondemand(index, pages, true);
        }
    }

    /// What a big read may ask for at once.
    pub(super) fn io_pages(&self) -> u64 {
        IO_PAGES.min(self.mapping.frames().capacity() as u64 / 4)
    }

    fn ondemand(self: &Arc<Self>, index: u64, pages: u64, hit_marker: bool) {
        let request = Request {
            index,
            pages,
            hit_marker,
            ra_pages: self.ra_pages(),
            io_pages: self.io_pages(),
            prev_index: self.prev_index(),
        };
        let plan = self.window.lock().ondemand(request, &**self);
        if let Some(plan) = plan {
            self.submit(plan);
        }
    }

    /// The window around a missed fault.
    pub(super) fn read_around(self: &Arc<Self>, index: u64) {
        let plan = self.window.lock().around(index, self.ra_pages());
        self.submit(plan);
    }

    /// Reads a range whatever the window says, as much of it as one call may (`force_page_cache_ra`).
    pub(crate) fn will_need(self: &Arc<Self>, first: u64, last: u64) {
        // More than half a cache would push its own beginning out again.
        let half = (self.mapping.frames().capacity() as u64 / 2).max(1);
        let most = IO_PAGES.max(self.ra_pages()).min(half);
        let last = last.min(first.saturating_add(most - 1));
        let step = self.io_pages().max(self.ra_pages()).max(1);
        let mut at = first;
        while at <= last {
            self.submit(Plan { start: at, nr: step.min(last - at + 1), async_size: 0 });
            at += step;
        }
    }

    /// Creates the absent pages of a plan and hands each run of new ones to I/O (`do_page_cache_ra`,
    /// `page_cache_ra_unbounded`). Stops where no frame or no memory is left.
    fn submit(self: &Arc<Self>, plan: Plan) {
        let mapping = &self.mapping;
        let mut runs = Vec::new();
        let mut errands = Vec::new();
        {
            // From the size check to the insertion truncation must not intervene.
            let stable = seeded!("readahead.invalidate_lock", Some(None), mapping.stable().map(Some));
            let Some(_stable) = stable else { return };
            let pages = mapping.i_size().div_ceil(PAGE_SIZE as u64);
            if plan.start >= pages {
                return;
            }
            let nr = plan.nr.min(pages - plan.start);
            let marker = nr.checked_sub(plan.async_size);
            for i in 0..nr {
                let index = plan.start + i;
                if mapping.peek(index, &crate::rcu::read()).is_some() {
                    continue;
                }
                // Room for what becomes of each run, too.
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
                        drop(held.handle);
                    }
                    Created::Exists => {}
                    Created::NoFrame | Created::NoMemory(_) => break,
                }
            }
            // Still stable: see `AddressSpace::quiet`.
            errands.extend(
                runs.into_iter()
                    .filter(|(_, run)| !run.is_empty())
                    .filter_map(|(first, pfns)| submit_window(mapping, first, pfns)),
            );
        }
        errands.into_iter().for_each(Errand::run);
    }
}

/// Has a run of locked pages read ahead of need; takes over their locks. Some: the caller runs it.
pub(super) fn submit_window(mapping: &Arc<AddressSpace>, first: u64, pfns: Vec<u32>) -> Option<Errand> {
    mapping.shared.count(Stat::ReadaheadPages, pfns.len() as u64);
    let source = Arc::<AddressSpace>::clone(mapping);
    match mapping.shared.io.submit(requests::Request { source, first, pfns, answer: None }) {
        Submitted::Yours(errand) => Some(errand),
        Submitted::Queued | Submitted::Refused => None,
    }
}

/// New pages that follow each other: the index of the first, and the frames.
type Run = (u64, Vec<u32>);

/// The run that a page at `index` continues or begins, with room for it. None: there is no memory.
fn run_for(runs: &mut Vec<Run>, index: u64) -> Option<&mut Vec<u32>> {
    if runs.last().is_none_or(|(first, run)| first + run.len() as u64 != index) {
        runs.try_reserve(1).ok()?;
        runs.push((index, Vec::new()));
    }
    let (_, run) = runs.last_mut()?;
    run.try_reserve(1).ok()?;
    Some(run)
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
