//! The arithmetic of readahead: how much to read, and when.
//!
//! Owns: the window of one open file, and how much of a failed one is requested again. Does not own files or pages: all it needs
//! of a cache is [`Neighbours`]. Mirrors `mm/readahead.c` of Linux 5.12: `get_init_ra_size`, `get_next_ra_size`,
//! `ondemand_readahead`. The window's owner synchronises it.

use crate::sync::Guess;

/// Pages that a big read may request at once even if the window is smaller (`bdi->io_pages`): 1 MiB.
pub const IO_PAGES: u64 = 256;

/// The window of one open file (`struct file_ra_state`), in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// First page of the window.
    pub start: u64,
    /// Pages in it.
    pub size: u64,
    /// This many pages at the end are read ahead of need; the first of them carries the marker.
    pub async_size: u64,
}

/// What to read: `nr` pages from `start`, with the marker `async_size` pages before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// First page.
    pub start: u64,
    /// Number of pages.
    pub nr: u64,
    /// The marker goes on page `nr - async_size`, if that page is new.
    pub async_size: u64,
}

impl Plan {
    fn of(window: Window) -> Self {
        Self { start: window.start, nr: window.size, async_size: window.async_size }
    }
}

/// What the window arithmetic needs to know of the cache.
pub trait Neighbours {
    /// Number of pages present just before `index`, without a gap, up to `max`.
    fn history(&self, index: u64, max: u64) -> u64;
    /// The first absent page after `index`, if at most `max` pages away.
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

/// A request: what is asked for, and what was read before.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The first page asked for.
    pub index: u64,
    /// Number of pages asked for.
    pub pages: u64,
    /// Whether the page carries the marker.
    pub hit_marker: bool,
    /// The file's maximum window.
    pub ra_pages: u64,
    /// The most that a larger request may read at once ([`IO_PAGES`], or less in a small cache).
    pub io_pages: u64,
    /// The page that contains the byte after the last one read before; -1 at first, as an unsigned number.
    pub prev_index: u64,
}

impl Window {
    /// Decides what to read and moves the window (`ondemand_readahead`).
    pub fn ondemand(&mut self, request: Request, cache: &impl Neighbours) -> Option<Plan> {
        let Request { index, pages, .. } = request;
        let max = request.ra_pages.max(pages.min(request.io_pages));
        let continues = index == self.start + self.size - self.async_size.min(self.size)
            || index == self.start + self.size;
        if index == 0 {
            self.start_over(index, pages, max);
        } else if continues {
            *self = Self::ahead(self.start + self.size, get_next(self.size, max));
        } else if request.hit_marker {
            // Interleaved streams: the marker belongs to a window that another stream has overwritten.
            let hole = cache.hole_after(index, max)?;
            *self = Self::ahead(hole, get_next(hole - index + pages, max));
        } else if pages > max || index.wrapping_sub(request.prev_index) <= 1 {
            self.start_over(index, pages, max);
        } else {
            let mut history = cache.history(index, max);
            if history <= pages {
                // Looks random: read what was asked for and remember nothing.
                return Some(Plan { start: index, nr: pages, async_size: 0 });
            }
            if history >= index {
                history *= 2;
            }
            *self = Self { start: index, size: (history + pages).min(max), async_size: 1 };
        }
        // A window whose marker would be hit at once is merged with the next one.
        if index == self.start && self.size == self.async_size {
            let add = get_next(self.size, max);
            (self.size, self.async_size) =
                if self.size + add <= max { (self.size + add, add) } else { (max, max / 2) };
        }
        Some(Plan::of(*self))
    }

    /// A window all of which is read ahead of need.
    fn ahead(start: u64, size: u64) -> Self {
        Self { start, size, async_size: size }
    }

    fn start_over(&mut self, index: u64, pages: u64, max: u64) {
        let size = get_init(pages, max);
        let async_size = if size > pages { size - pages } else { size };
        *self = Self { start: index, size, async_size };
    }

    /// Moves the window around a fault that missed.
    pub fn around(&mut self, index: u64, ra_pages: u64) -> Plan {
        *self = Self { start: index.saturating_sub(ra_pages / 2), size: ra_pages, async_size: ra_pages / 4 };
        Plan::of(*self)
    }
}

/// How many pages a reader may request at once where a window failed. A guess, so races do no harm.
#[derive(Debug, Default)]
pub(super) struct Again(Guess);

impl Again {
    /// That number.
    pub(super) fn get(&self) -> u64 {
        self.0.get()
    }

    /// Notes the outcome of a read of `pages` pages.
    pub(super) fn note(&self, pages: usize, failed: bool) {
        let (pages, most) = (pages as u64, self.0.get());
        let now = if failed { pages / 2 } else { most.max(2 * pages).min(IO_PAGES) };
        if now != most {
            self.0.put(now);
        }
    }
}

#[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
mod tests;
