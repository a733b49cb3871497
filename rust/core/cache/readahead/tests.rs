//! Which pages readahead brings in, in how many reads, and where it leaves its marker.

use super::*;
use crate::cache::{File, PageCache};
use crate::page::{PAGE_SIZE, PageFlags};
use crate::store::MemoryStore;
use crate::{Io, StoreOptions};

const PAGE: u64 = PAGE_SIZE as u64;

/// A file of so many pages, in a cache of so many frames that reads inline.
fn opened(frames: u64, pages: u64, ra_pages: u32) -> (PageCache, File) {
    let cache = PageCache::new(frames * PAGE, Io::Inline).unwrap();
    let store = Arc::new(MemoryStore::new(vec![7; (pages * PAGE) as usize]));
    let file =
        cache.open_store_with(store, pages * PAGE, StoreOptions::default().ra_pages(ra_pages)).unwrap();
    (cache, file)
}

/// Brings pages in one by one.
fn bring(file: &File, pages: &[u64]) {
    for page in pages {
        file.pread(&mut [0], page * PAGE).unwrap();
    }
}

fn resident(file: &File) -> Vec<u64> {
    let there = file.residency(0, None).unwrap();
    (0..).zip(there).filter(|(_, there)| *there == 1).map(|(page, _)| page).collect()
}

fn marked(open: &OpenFile) -> Vec<u64> {
    let section = crate::rcu::read();
    let is_marked = |page: PageRef<'_>| page.flags().has(PageFlags::READAHEAD);
    (0..open.mapping.pages_in_file())
        .filter(|&page| open.mapping.peek(page, &section).is_some_and(is_marked))
        .collect()
}

#[test]
fn the_neighbours_of_a_page_are_those_without_a_gap() {
    let (_cache, file) = opened(64, 12, 0);
    bring(&file, &[0, 1, 2, 5, 6, 9]);
    let open = file.open_file().unwrap();
    for (index, max, before) in [(3, 8, 3), (3, 2, 2), (7, 8, 2), (4, 8, 0), (1, 1, 1), (0, 8, 0)] {
        assert_eq!(open.history(index, max), before, "before {index}, up to {max}");
    }
    for (index, max, hole) in
        [(0, 8, Some(3)), (2, 8, Some(3)), (4, 8, Some(7)), (0, 2, None), (0, 3, Some(3)), (8, 4, Some(10))]
    {
        assert_eq!(open.hole_after(index, max), hole, "after {index}, up to {max}");
    }
}

#[test]
fn a_window_carries_its_marker_and_the_one_who_meets_it_reads_the_next() {
    let (cache, file) = opened(256, 64, 8);
    let open = file.open_file().unwrap();
    bring(&file, &[0]);
    assert_eq!((resident(&file), marked(&open)), (vec![0, 1], vec![1]));
    bring(&file, &[0]);
    assert_eq!(resident(&file).len(), 2, "no marker is met");
    bring(&file, &[1]);
    assert_eq!((resident(&file), marked(&open)), ((0..6).collect(), vec![2]));
    assert_eq!(cache.stats().readahead_pages, 6);
    // The page that a read asked for was used.
    assert_eq!(cache.stats().readahead_used, 2);
}

#[test]
fn a_marker_is_taken_by_a_read_that_reads_ahead() {
    let (cache, file) = opened(256, 64, 8);
    let open = file.open_file().unwrap();
    bring(&file, &[0]);
    let page = |index| open.mapping.find_get_page(index, &crate::rcu::read()).unwrap();
    let with = |ra_pages| {
        let (mapping, store) = (Arc::clone(&open.mapping), Arc::clone(open.store()));
        Arc::new(OpenFile::new(mapping, store, crate::OpenMode::Read, ra_pages))
    };
    page_cache_async_ra(&with(0), page(1).page(), 1, 1);
    page_cache_async_ra(&with(1), page(0).page(), 0, 1);
    assert_eq!((marked(&open), cache.stats().readahead_pages), (vec![1], 2), "no window, or no marker");
    page_cache_async_ra(&with(1), page(1).page(), 1, 1);
    assert_eq!((resident(&file), marked(&open)), (vec![0, 1, 2], vec![2]));
}

#[test]
fn a_read_requests_at_most_a_quarter_of_the_cache_at_once() {
    for (frames, pages) in [(3, 0), (4, 1), (40, 10), (59, 14), (4096, 256)] {
        let (_cache, file) = opened(frames, 1, 0);
        assert_eq!(io_pages(&file.open_file().unwrap()), pages, "of {frames}");
    }
}

#[test]
fn advice_reads_at_most_half_the_cache_and_leaves_no_marker() {
    // Frames, window, pages asked for from page 5 on; pages brought, reads.
    for (frames, ra_pages, asked, brought, reads) in [
        (1, 0, 2, 1, 1),
        (3, 0, 3, 1, 1),
        (4, 0, 3, 2, 2),
        (42, 0, 50, 21, 3),
        (42, 0, 21, 21, 3),
        (42, 0, 20, 20, 2),
        (42, 0, 1, 1, 1),
        (42, 16, 50, 21, 3),
        (4000, 600, 700, 600, 3),
        (4000, 0, 700, 256, 1),
    ] {
        let (cache, file) = opened(frames, 1000, ra_pages);
        let open = file.open_file().unwrap();
        will_need(&open, 5, 5 + asked - 1);
        let what = format!("{asked} pages, {frames} frames");
        assert_eq!(resident(&file), (5..5 + brought).collect::<Vec<_>>(), "{what}");
        assert_eq!((cache.stats().reads, cache.stats().readahead_pages), (reads, brought), "{what}");
        assert_eq!(marked(&open), [0; 0], "{what}");
        assert_eq!(cache.stats().readahead_used, 0, "{what}");
    }
}

#[test]
fn what_is_there_is_passed_over_and_the_end_of_the_file_is_the_end() {
    let (cache, file) = opened(64, 30, 0);
    let open = file.open_file().unwrap();
    bring(&file, &[11, 14]);
    let before = cache.stats();
    let brought = |start, nr| {
        let reads = cache.stats().reads;
        submit(&open, Plan { start, nr, async_size: 0 }, None);
        cache.stats().reads - reads
    };
    assert_eq!(brought(10, 6), 3, "runs between pages that are there");
    assert_eq!(brought(10, 6), 0);
    assert_eq!(brought(28, 8), 1);
    assert_eq!((brought(30, 8), brought(31, 8)), (0, 0));
    assert_eq!(resident(&file), [10, 11, 12, 13, 14, 15, 28, 29]);
    assert_eq!(cache.stats().readahead_pages - before.readahead_pages, 6);
    cache.check().unwrap();
}

#[test]
fn pages_that_are_there_cost_no_frame() {
    let (cache, file) = opened(8, 8, 0);
    bring(&file, &[0, 1, 2, 3, 4, 5, 6, 7]);
    will_need(&file.open_file().unwrap(), 0, 3);
    assert_eq!((resident(&file).len(), cache.stats().evictions, cache.stats().direct_reclaims), (8, 0, 0));
}

#[test]
fn a_reader_is_handed_the_page_it_asked_for() {
    let (cache, file) = opened(64, 30, 8);
    let open = file.open_file().unwrap();
    let plan = || Plan { start: 4, nr: 4, async_size: 4 };
    let handed = submit(&open, plan(), Some(6)).expect("it is new");
    assert!(handed.page().is_at(open.mapping.id(), 6) && handed.page().flags().has(PageFlags::UPTODATE));
    drop(handed);
    assert_eq!(marked(&open), [4]);
    assert!(submit(&open, plan(), Some(6)).is_none(), "it is not new any more");
    assert!(submit(&open, Plan { start: 20, ..plan() }, Some(30)).is_none(), "it is not in the plan");
    assert!(submit(&open, Plan { start: 10, ..plan() }, None).is_none());
    // Nobody keeps anything.
    cache.check().unwrap();
    assert_eq!(cache.drop_caches().unwrap(), 12);
}

#[test]
fn each_run_has_room_before_it_is_needed() {
    let mut runs = Vec::new();
    for index in [3, 4, 5, 7, 8, 20].into_iter().chain(100..140) {
        let run = run_for(&mut runs, index).unwrap();
        assert!(run.capacity() > run.len(), "for page {index}");
        run.push(index as u32);
    }
    let told: Vec<_> = runs.iter().map(|(first, run)| (*first, run.len())).collect();
    assert_eq!(told, [(3, 3), (7, 2), (20, 1), (100, 40)]);
}
