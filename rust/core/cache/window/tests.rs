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
