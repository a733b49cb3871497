//! The test vectors of the readahead state machine (maximum 32 pages).

use super::*;
use std::collections::BTreeSet;

const MAX: u64 = 32;

#[derive(Default)]
struct Cache {
    present: BTreeSet<u64>,
    markers: BTreeSet<u64>,
}

impl Neighbours for Cache {
    fn history(&self, index: u64, max: u64) -> u64 {
        (1..=max).take_while(|d| *d <= index && self.present.contains(&(index - d))).count() as u64
    }
    fn hole_after(&self, index: u64, max: u64) -> Option<u64> {
        (index + 1..=index + max).find(|at| !self.present.contains(at))
    }
}

impl Cache {
    fn read(&mut self, plan: Plan) {
        for i in 0..plan.nr {
            if self.present.insert(plan.start + i) && i + plan.async_size == plan.nr {
                self.markers.insert(plan.start + i);
            }
        }
    }
    /// One access, as by `File::pread` of one page; `prev_index` is the page that contains the byte after the last one read.
    fn access(&mut self, window: &mut Window, index: u64, prev_index: u64) -> Option<Plan> {
        let hit_marker = self.markers.remove(&index);
        if self.present.contains(&index) && !hit_marker {
            return None;
        }
        let request =
            Request { index, pages: 1, hit_marker, ra_pages: MAX, io_pages: super::IO_PAGES, prev_index };
        let plan = window.ondemand(request, self)?;
        self.read(plan);
        Some(plan)
    }
}

#[test]
fn initial_and_next_window_sizes() {
    for (size, window) in [(1, 4), (2, 4), (3, 8), (4, 8), (5, 16), (8, 16), (9, 32), (32, 32)] {
        assert_eq!(get_init(size, MAX), window, "get_init({size})");
    }
    for (size, window) in [(1, 4), (2, 4), (4, 8), (8, 16), (16, 32), (32, 32)] {
        assert_eq!(get_next(size, MAX), window, "get_next({size})");
    }
    // Where a maximum is no power of two, or a small part of it counts.
    for (size, max, window) in [(2, 64, 8), (2, 62, 4), (4, 64, 8), (16, 64, 32), (16, 60, 60), (5, 0, 0)] {
        assert_eq!(get_init(size, max), window, "get_init({size}, {max})");
    }
    for (size, max, window) in [
        (3, 64, 12),
        (4, 64, 8),
        (3, 60, 6),
        (12, 30, 24),
        (15, 31, 30),
        (16, 31, 31),
        (20, 30, 30),
        (5, 0, 0),
    ] {
        assert_eq!(get_next(size, max), window, "get_next({size}, {max})");
    }
}

/// As many pages present before each, and the same first absent one after each.
struct Around {
    history: u64,
    hole: Option<u64>,
}

impl Neighbours for Around {
    fn history(&self, _index: u64, max: u64) -> u64 {
        self.history.min(max)
    }
    fn hole_after(&self, _index: u64, _max: u64) -> Option<u64> {
        self.hole
    }
}

#[test]
fn each_kind_of_request_moves_the_window_its_own_way() {
    let plan = |start, nr, async_size| Some(Plan { start, nr, async_size });
    let far = u64::MAX;
    // What it is; the window; page, pages, maxima of readahead and of a big read, page read before; whether it met a marker;
    // pages before it; the hole after it; what is read.
    let cases = [
        ("a beginning", (9, 5, 5), (0, 1, 32, 256, far), false, 0, None, plan(0, 4, 3)),
        ("a big beginning", (0, 0, 0), (0, 40, 32, 256, far), false, 0, None, plan(0, 40, 20)),
        ("a bigger one than may be", (0, 0, 0), (0, 300, 32, 256, far), false, 0, None, plan(0, 256, 128)),
        ("a small cache", (0, 0, 0), (0, 40, 32, 16, far), false, 0, None, plan(0, 32, 16)),
        ("the page after the first, alone", (9, 5, 5), (1, 1, 32, 256, far), false, 0, None, plan(1, 1, 0)),
        ("where reading ahead begins", (10, 8, 3), (15, 1, 32, 256, far), false, 0, None, plan(18, 16, 16)),
        (
            "the end of a window, merged with the next",
            (10, 4, 1),
            (14, 1, 32, 256, far),
            false,
            0,
            None,
            plan(14, 24, 16),
        ),
        (
            "... to one just as large as may be",
            (10, 5, 1),
            (15, 1, 30, 256, far),
            false,
            0,
            None,
            plan(15, 30, 20),
        ),
        (
            "... to one that would be larger",
            (10, 8, 3),
            (18, 1, 32, 256, far),
            false,
            0,
            None,
            plan(18, 32, 16),
        ),
        ("a page before that", (10, 8, 3), (14, 1, 32, 256, far), false, 0, None, plan(14, 1, 0)),
        ("a page after that", (10, 8, 3), (19, 1, 32, 256, far), false, 0, None, plan(19, 1, 0)),
        (
            "a marker of another stream",
            (99, 8, 8),
            (50, 1, 32, 256, far),
            true,
            0,
            Some(60),
            plan(60, 22, 22),
        ),
        ("a marker before what is there", (99, 8, 8), (50, 1, 32, 256, far), true, 0, None, None),
        ("a big read", (9, 5, 5), (50, 40, 32, 16, far), false, 0, None, plan(50, 32, 16)),
        ("one as large as a window", (9, 5, 5), (50, 32, 32, 16, far), false, 0, None, plan(50, 32, 0)),
        ("in the page read last", (9, 5, 5), (50, 1, 32, 256, 50), false, 0, None, plan(50, 4, 3)),
        ("in the page after it", (9, 5, 5), (50, 1, 32, 256, 49), false, 0, None, plan(50, 4, 3)),
        ("further on", (9, 5, 5), (50, 1, 32, 256, 48), false, 0, None, plan(50, 1, 0)),
        ("further back", (9, 5, 5), (50, 1, 32, 256, 51), false, 0, None, plan(50, 1, 0)),
        ("after as many pages", (9, 5, 5), (50, 2, 32, 256, far), false, 2, None, plan(50, 2, 0)),
        ("after more pages", (9, 5, 5), (50, 2, 32, 256, far), false, 3, None, plan(50, 5, 1)),
        ("after a window of pages", (9, 5, 5), (50, 5, 32, 256, far), false, 32, None, plan(50, 32, 1)),
        ("after all from the beginning", (9, 5, 5), (3, 1, 32, 256, far), false, 3, None, plan(3, 7, 1)),
        ("after all, which is one", (9, 5, 5), (1, 1, 32, 256, far), false, 1, None, plan(1, 1, 0)),
    ];
    for (what, (start, size, async_size), request, hit_marker, history, hole, expected) in cases {
        let before = Window { start, size, async_size };
        let mut window = before;
        let (index, pages, ra_pages, io_pages, prev_index) = request;
        let request = Request { index, pages, hit_marker, ra_pages, io_pages, prev_index };
        let plan = window.ondemand(request, &Around { history, hole });
        assert_eq!(plan, expected, "{what}");
        // What looks random is read alone, and leaves the window; everything else is read as the window.
        let moved = plan.filter(|plan| plan.async_size != 0);
        let after = moved.map_or(before, |plan| Window {
            start: plan.start,
            size: plan.nr,
            async_size: plan.async_size,
        });
        assert_eq!(window, after, "{what}");
    }
}

#[test]
fn a_failed_window_is_requested_again_in_halves_and_grows_back() {
    let again = Again::default();
    assert_eq!(again.get(), 0);
    for (pages, failed, then) in [
        (32, true, 16),
        (16, true, 8),
        (3, true, 1),
        (1, false, 2),
        (2, false, 4),
        (1, false, 4),
        (1, true, 0),
    ] {
        again.note(pages, failed);
        assert_eq!(again.get(), then, "{pages} {failed}");
    }
    again.note(1000, false);
    assert_eq!(again.get(), IO_PAGES);
}

#[test]
fn sequential_reads_of_one_page_double_the_window() {
    let (mut cache, mut window) = (Cache::default(), Window::default());
    let mut plans = Vec::new();
    for index in 0..92 {
        let after_the_last = if index == 0 { u64::MAX } else { index };
        if let Some(plan) = cache.access(&mut window, index, after_the_last) {
            plans.push((plan.start, plan.nr, plan.async_size, plan.start + plan.nr - plan.async_size));
        }
    }
    assert_eq!(
        plans,
        [(0, 4, 3, 1), (4, 8, 8, 4), (12, 16, 16, 12), (28, 32, 32, 28), (60, 32, 32, 60), (92, 32, 32, 92)]
    );
}

#[test]
fn sequential_faults_from_100() {
    let (mut cache, mut window) = (Cache::default(), Window::default());
    let around = window.around(100, MAX);
    assert_eq!((window.start, window.size, window.async_size), (84, 32, 8));
    cache.read(around);
    assert!(cache.markers.contains(&108));
    let mut plans = Vec::new();
    for index in 100..212 {
        if cache.markers.remove(&index) {
            let request = Request {
                index,
                pages: MAX,
                hit_marker: true,
                ra_pages: MAX,
                io_pages: super::IO_PAGES,
                prev_index: u64::MAX,
            };
            let plan = window.ondemand(request, &cache).unwrap();
            cache.read(plan);
            plans.push((plan.start, plan.nr, plan.async_size));
        }
    }
    assert_eq!(plans, [(116, 32, 32), (148, 32, 32), (180, 32, 32), (212, 32, 32)]);
}

#[test]
fn sequential_advice_at_0_and_at_1000() {
    let cache = Cache::default();
    let request = Request {
        index: 0,
        pages: MAX,
        hit_marker: false,
        ra_pages: MAX,
        io_pages: super::IO_PAGES,
        prev_index: u64::MAX,
    };
    let mut window = Window::default();
    let plan = window.ondemand(request, &cache).unwrap();
    assert_eq!((plan.start, plan.nr, plan.async_size), (0, 32, 16));
    let mut window = Window::default();
    let plan = window.ondemand(Request { index: 1000, ..request }, &cache).unwrap();
    assert_eq!((plan.start, plan.nr, plan.async_size), (1000, 32, 0));
    assert_eq!(window, Window::default(), "a read that looks random leaves the window alone");
}

#[test]
fn a_page_alone_and_then_the_next_but_one() {
    let (mut cache, mut window) = (Cache::default(), Window::default());
    let plan = cache.access(&mut window, 716, u64::MAX);
    assert_eq!(plan, Some(Plan { start: 716, nr: 1, async_size: 0 }));
    assert_eq!(window, Window::default());
    let plan = cache.access(&mut window, 718, 717);
    assert_eq!(plan, Some(Plan { start: 718, nr: 4, async_size: 3 }));
    // One page further is not sequential.
    let plan = cache.access(&mut window, 1002, 1000);
    assert_eq!(plan, Some(Plan { start: 1002, nr: 1, async_size: 0 }));
}
