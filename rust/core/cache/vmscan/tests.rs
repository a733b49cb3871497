//! What reclaim looks at, what it takes and what it counts, to the page.

use super::*;
use crate::cache::patience::tests::{give_up, soon};
use crate::cache::{Advice, CacheOptions, File, Io, MappedRange, OpenFile, PageCache, StoreOptions};
use crate::page::{FrameUsage, PAGE_SIZE, PageFlags};
use crate::store::MemoryStore;
use crate::sync::{AtomicU32, Mutex, Tally};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

const PAGE: u64 = PAGE_SIZE as u64;

fn cache(frames: usize, io: Io, timeout: Duration) -> PageCache {
    let options = CacheOptions::default().io(io).frame_timeout(timeout);
    PageCache::with_options(frames as u64 * PAGE, options).unwrap()
}

/// A file without readahead.
fn opened(cache: &PageCache, pages: u64) -> File {
    let store = Arc::new(MemoryStore::new(vec![7; (pages * PAGE) as usize]));
    cache.open_store_with(store, pages * PAGE, StoreOptions::default().ra_pages(0)).unwrap()
}

/// A cache that reads inline, in which nobody waits for a frame, and a file in it.
fn cached(frames: usize, pages: u64) -> (PageCache, File) {
    let cache = cache(frames, Io::Inline, Duration::ZERO);
    let file = opened(&cache, pages);
    (cache, file)
}

fn bring(file: &File, pages: Range<u64>) {
    for page in pages {
        file.pread(&mut [0], page * PAGE).unwrap();
    }
}

fn resident(file: &File) -> Vec<u64> {
    let there = file.residency(0, None).unwrap();
    (0..).zip(there).filter(|(_, there)| *there == 1).map(|(page, _)| page).collect()
}

/// A reference, which keeps the page from being evicted.
fn hold(open: &OpenFile, index: u64) -> PageHandle<'_> {
    open.mapping.find_get_page(index, &crate::rcu::read()).expect("it is there")
}

fn marks(open: &OpenFile, index: u64) -> u32 {
    hold(open, index).page().usage().get() & (usage::REFERENCED | usage::ACTIVE)
}

/// Pages on the active and on the inactive list.
fn lists(cache: &PageCache) -> (usize, usize) {
    let FrameUsage { active, inactive, .. } = cache.shared().frames.usage();
    (active, inactive)
}

/// Brings pages in and has a scan find them used again. They must be the only inactive ones.
fn make_active(cache: &PageCache, file: &File, pages: Range<u64>) {
    bring(file, pages.clone());
    let open = file.open_file().unwrap();
    for page in pages.clone() {
        hold(&open, page).page().usage().set(usage::ACTIVE);
        assert_eq!(shrink_inactive(cache.shared(), 1), (1, 0));
        assert_eq!(marks(&open, page), usage::ACTIVE, "the next use is a new one");
    }
}

#[test]
fn a_batch_is_a_64th_of_the_cache_and_the_watermark_a_128th() {
    for (frames, pages) in
        [(1, 1), (63, 1), (64, 1), (127, 1), (128, 2), (2047, 31), (2048, 32), (2112, 32), (1 << 20, 32)]
    {
        assert_eq!(batch(cache(frames, Io::Inline, Duration::ZERO).shared()), pages, "of {frames}");
    }
    for (frames, pages) in [
        (1, 0),
        (255, 0),
        (256, 0),
        (257, 2),
        (381, 2),
        (384, 3),
        (128 * 1023, 1023),
        (128 * 1024, 1024),
        (128 * 1025, 1024),
    ] {
        assert_eq!(low_watermark(cache(frames, Io::Inline, Duration::ZERO).shared()), pages, "of {frames}");
    }
}

#[test]
fn a_request_makes_room_itself_for_no_more_than_it_needs() {
    let (cache, file) = cached(2, 8);
    bring(&file, 0..4);
    let stats = cache.stats();
    assert_eq!((stats.direct_reclaims, stats.evictions, stats.scanned, stats.frame_waits), (2, 2, 2, 0));
    assert_eq!(resident(&file), [2, 3]);
}

#[test]
fn private_copies_have_a_limit_of_their_own() {
    let (cache, file) = cached(4, 8);
    bring(&file, 0..4);
    let shared = cache.shared();
    let told = || (cache.stats().direct_reclaims, cache.stats().evictions);
    let copies = [(); 2].map(|()| alloc_page(shared, Use::Private).expect("a page is evicted for it"));
    assert_eq!(told(), (2, 2));
    assert!(alloc_page(shared, Use::Private).is_none());
    assert_eq!(told(), (2, 2), "nothing is evicted for what is not allowed");
    let page = alloc_page(shared, Use::File).expect("a file's page has no such limit");
    assert_eq!(told(), (3, 3));
    drop((copies, page));
    cache.check().unwrap();
}

#[test]
fn without_anything_to_evict_there_is_no_frame() {
    let (cache, _file) = cached(1, 1);
    let held = alloc_page(cache.shared(), Use::File).unwrap();
    assert!(alloc_page(cache.shared(), Use::File).is_none());
    assert_eq!((cache.stats().direct_reclaims, cache.stats().evictions), (1, 0));
    assert!(!wait_for_frame(cache.shared()), "nor does it come in no time");
    drop(held);
}

#[test]
fn requests_and_reclaim_do_work_that_waits_for_a_grace_period() {
    let (cache, _file) = cached(1, 1);
    let acts: [fn(&PageCache); 2] = [
        |cache| drop(alloc_page(cache.shared(), Use::File)),
        |cache| assert_eq!(reclaim(cache.shared(), 1), 0),
    ];
    for act in acts {
        let done = Arc::new(Tally::new());
        for _ in 0..400 {
            let done = Arc::clone(&done);
            crate::rcu::call_rcu(move || done.add(1));
        }
        // Unless another thread does such work just now.
        soon(|| {
            act(&cache);
            done.tallied() == 400
        });
    }
}

#[test]
fn a_wait_for_a_frame_asks_every_fifty_naps() {
    let cache = cache(1, Io::Inline, Duration::from_secs(60));
    let held = alloc_page(cache.shared(), Use::File).unwrap();
    give_up(true);
    let began = Instant::now();
    assert!(!wait_for_frame(cache.shared()));
    assert_eq!(give_up(false), 1);
    assert!(began.elapsed() >= NAP * (NAPS_BETWEEN_CHECKS - 1));
    // In each of its looks, the page that is in use was scanned as often as may be.
    let stats = cache.stats();
    assert_eq!((stats.frame_waits, stats.scanned), (1, u64::from(NAPS_BETWEEN_CHECKS) * LOOKS as u64));
    drop(held);
    give_up(true);
    assert!(wait_for_frame(cache.shared()), "a frame is there");
    assert_eq!((give_up(false), cache.stats().frame_waits), (0, 2));
}

#[test]
fn nothing_is_evicted_for_a_wait_if_a_frame_is_free() {
    for (pages, evictions) in [(1, 0), (2, 0), (3, 1)] {
        let (cache, file) = cached(3, 8);
        bring(&file, 0..pages);
        assert!(wait_for_frame(cache.shared()));
        assert_eq!(cache.stats().evictions, evictions, "{pages} of 3 frames in use");
    }
}

#[test]
fn reclaim_ages_the_longer_active_list_and_takes_what_was_used_longest_ago() {
    // Active and inactive pages, how many to free; how many are, pages aged, pages scanned; the lists then.
    for (active, inactive, target, freed, aged, scanned, then) in [
        (0, 0, 1, 0, 0, 0, (0, 0)),
        (0, 2, 0, 0, 0, 0, (0, 2)),
        (0, 3, 2, 2, 0, 2, (0, 1)),
        (0, 2, 5, 2, 0, 2, (0, 0)),
        (1, 1, 1, 1, 0, 1, (1, 0)),
        (2, 1, 2, 2, 1, 3, (1, 0)),
        (3, 0, 1, 1, 1, 2, (2, 0)),
        (3, 0, 3, 3, 3, 6, (0, 0)),
        (4, 1, 1, 1, 1, 2, (3, 1)),
    ] {
        let (cache, file) = cached(8, 8);
        make_active(&cache, &file, 0..active);
        bring(&file, active..active + inactive);
        let before = cache.stats();
        let what = format!("{target} of {active} active and {inactive} inactive");
        assert_eq!(reclaim(cache.shared(), target), freed, "{what}");
        let stats = cache.stats();
        assert_eq!(stats.evictions - before.evictions, freed as u64, "{what}");
        assert_eq!((stats.deactivations, stats.scanned - before.scanned), (aged, scanned), "{what}");
        assert_eq!(lists(&cache), then, "{what}");
    }
}

#[test]
fn reclaim_gives_up_after_a_few_looks_at_pages_in_use() {
    let (cache, file) = cached(8, 8);
    bring(&file, 0..2);
    let open = file.open_file().unwrap();
    let held = [hold(&open, 0), hold(&open, 1)];
    assert_eq!(reclaim(cache.shared(), 1), 0);
    let stats = cache.stats();
    assert_eq!((stats.scanned, stats.evictions, stats.shadows), (2 * LOOKS as u64, 0, 0));
    assert_eq!(lists(&cache), (0, 2));
    drop(held);
    assert_eq!(reclaim(cache.shared(), 2), 2);
    assert_eq!(cache.stats().shadows, 2);
}

#[test]
fn an_active_page_that_was_read_since_its_last_scan_stays_active() {
    let (cache, file) = cached(8, 8);
    make_active(&cache, &file, 0..2);
    let open = file.open_file().unwrap();
    bring(&file, 0..1);
    let scanned = cache.stats().scanned;
    // The oldest is looked at first, and goes to the new end.
    for (then, marks_then) in [((2, 0), [usage::ACTIVE; 2]), ((1, 1), [usage::ACTIVE, 0]), ((0, 2), [0, 0])] {
        assert_eq!(shrink_active(cache.shared()), 1);
        assert_eq!((lists(&cache), [marks(&open, 0), marks(&open, 1)]), (then, marks_then));
        assert_eq!(cache.stats().deactivations, then.1 as u64);
    }
    assert_eq!(shrink_active(cache.shared()), 0);
    assert_eq!(cache.stats().scanned - scanned, 3);
    cache.check().unwrap();
}

#[test]
fn a_scan_takes_what_was_used_once_and_keeps_what_is_used() {
    let (cache, file) = cached(256, 8);
    bring(&file, 0..5);
    let open = file.open_file().unwrap();
    // Used again, though not in the same breath.
    bring(&file, 1..2);
    let held = hold(&open, 2);
    let lock = hold(&open, 3).page().try_lock().unwrap();
    let fresh = cache.shared().frames.alloc(Use::File).unwrap();
    assert_eq!(shrink_inactive(cache.shared(), 4), (4, 1));
    assert_eq!((resident(&file), lists(&cache)), (vec![1, 2, 3, 4], (1, 4)));
    assert_eq!((marks(&open, 1), marks(&open, 2)), (usage::ACTIVE, usage::REFERENCED));
    let stats = cache.stats();
    assert_eq!((stats.scanned, stats.activations, stats.shadows), (4, 1, 1));
    // The cache has aged by one eviction, one activation, and one that did not come about.
    let next = cache.shared().workingset.eviction(256);
    assert_eq!(next.as_value(), Some(4));
    cache.shared().workingset.forget(next);
    // Page 4, the fresh one, and those in use.
    assert_eq!(shrink_inactive(cache.shared(), 4), (4, 1));
    assert_eq!((resident(&file), lists(&cache)), (vec![1, 2, 3], (1, 3)));
    drop((held, lock, fresh));
    assert_eq!(shrink_inactive(cache.shared(), 4), (2, 2));
    assert_eq!(resident(&file), [1]);
    assert_eq!((cache.stats().scanned, cache.stats().shadows), (10, 4));
    cache.check().unwrap();
}

#[test]
fn the_pages_of_a_batch_may_be_of_many_files() {
    let cache = cache(256, Io::Inline, Duration::ZERO);
    let files = [(); 3].map(|()| opened(&cache, 4));
    // The first of each, then the second of each.
    for page in 0..2 {
        for file in &files {
            bring(file, page..page + 1);
        }
    }
    assert_eq!(shrink_inactive(cache.shared(), 4), (4, 4));
    assert_eq!(files.each_ref().map(resident), [vec![], vec![1], vec![1]]);
    cache.check().unwrap();
}

#[test]
fn what_was_read_ahead_in_vain_is_counted() {
    let (cache, file) = cached(256, 8);
    file.advise(Advice::WillNeed, 0, Some(4 * PAGE)).unwrap();
    bring(&file, 2..3);
    let open = file.open_file().unwrap();
    let held = hold(&open, 3);
    assert_eq!(shrink_inactive(cache.shared(), 4), (4, 3));
    let stats = cache.stats();
    assert_eq!((stats.readahead_pages, stats.readahead_used, stats.readahead_wasted), (4, 1, 2));
    drop(held);
    assert_eq!(shrink_inactive(cache.shared(), 4), (1, 1));
    assert_eq!(cache.stats().readahead_wasted, 3);
}

#[test]
fn the_oldest_shadows_make_room_for_new_ones() {
    let (cache, file) = cached(8, 64);
    for page in 0..64 {
        bring(&file, page..page + 1);
        assert!(cache.stats().shadows <= 8);
    }
    // The page evicted last is known to have been there, and so is the one before.
    let before = cache.stats().refaults;
    bring(&file, 54..56);
    assert_eq!(cache.stats().refaults - before, 2);
    cache.check().unwrap();
}

#[test]
fn evicted_pages_far_apart_keep_few_nodes() {
    const NODES: u64 = 200;
    let (cache, file) = cached(256, NODES * 64);
    // (A page alone, the first, would have none.)
    for page in (64..NODES * 64).step_by(64) {
        bring(&file, page..page + 1);
        assert_eq!(reclaim(cache.shared(), 1), 1);
        crate::rcu::barrier();
        // Each shadow has a node; above those there are four and the head.
        assert!(cache.stats().xarray_nodes <= 64 + 4 + 1, "{:?}", cache.stats());
    }
    assert!(cache.stats().shadows <= 64);
    cache.check().unwrap();
}

#[test]
fn the_background_is_woken_below_the_low_watermark_and_stops_at_twice_that() {
    let cache = cache(512, Io::Threads, Duration::ZERO);
    let file = opened(&cache, 512);
    assert_eq!((low_watermark(cache.shared()), batch(cache.shared())), (4, 8));
    bring(&file, 0..508);
    cache.settle();
    assert_eq!((cache.stats().evictions_background, cache.stats().frames_in_use), (0, 508));
    bring(&file, 508..509);
    cache.settle();
    let stats = cache.stats();
    assert_eq!((stats.evictions_background, stats.evictions, stats.frames_in_use), (8, 8, 501));
    assert_eq!(stats.direct_reclaims, 0);
}

#[test]
fn balance_frees_frames_up_to_the_high_watermark() {
    for (free, evicted) in [(9, 0), (8, 0), (7, 8), (4, 8), (1, 8), (0, 8)] {
        let (cache, file) = cached(512, 512);
        bring(&file, 0..512 - free);
        cache.shared().balance();
        let stats = cache.stats();
        assert_eq!((stats.evictions_background, stats.evictions), (evicted, evicted), "{free} are free");
    }
    // Twice, where one batch is not enough.
    let (cache, file) = cached(2304, 2304);
    bring(&file, 0..2304);
    cache.shared().balance();
    assert_eq!(cache.stats().evictions_background, 64);
    // And no longer than there is something to evict.
    let (cache, file) = cached(257, 257);
    bring(&file, 0..257);
    let open = file.open_file().unwrap();
    let held: Vec<_> = (0..257).map(|page| hold(&open, page)).collect();
    cache.shared().balance();
    assert_eq!((cache.stats().evictions_background, cache.stats().frames_in_use), (0, 257));
    drop(held);
}

#[test]
fn a_reference_that_is_put_later_is_counted_until_then() {
    let (cache, _file) = cached(2, 1);
    let shared = cache.shared();
    let deferred = || shared.deferred_puts.load(Ordering::Relaxed);
    let section = crate::rcu::read();
    for number in 1..=2 {
        let page = shared.frames.alloc(Use::File).unwrap().into_pfn();
        put_after_grace_period(shared, page);
        assert_eq!((deferred(), shared.frames.usage().in_use), (number, number as usize));
    }
    drop(section);
    crate::rcu::barrier();
    assert_eq!((deferred(), shared.frames.usage().in_use), (0, 0));
}

#[test]
fn a_frame_whose_reference_is_put_later_is_found_by_who_needs_one() {
    let (cache, _file) = cached(1, 1);
    let shared = cache.shared();
    for _ in 0..3 {
        put_after_grace_period(shared, shared.frames.alloc(Use::File).unwrap().into_pfn());
        let page = alloc_page(shared, Use::File);
        assert!(page.is_some() && alloc_page(shared, Use::File).is_none());
    }
    assert_eq!(cache.stats().evictions, 0);
}

/// A program that maps one page.
struct Program {
    shared: Arc<Shared>,
    index: u64,
    pfn: u32,
    /// Through how many entries it has used the page.
    uses: AtomicU32,
    unmapped: Mutex<Vec<u64>>,
    /// Let go of when reclaim asks for its uses.
    user: Mutex<Option<File>>,
}

impl Program {
    fn page(&self) -> PageRef<'_> {
        self.shared.frames.page(self.pfn)
    }

    fn assert_is_locked(&self) {
        assert!(self.page().flags().has(PageFlags::LOCKED), "its file may be another's by now");
    }
}

impl MappedRange for Program {
    fn unmap(&self, first: u64, last: u64, _even_cows: bool, gather: &mut MmuGather<'_>) {
        if (first..=last).contains(&self.index) && self.page().mapcount() > 0 {
            // Truncation also looks without.
            if first == last {
                self.assert_is_locked();
            }
            self.page().remove_mapping();
            assert!(gather.make_room(1) > 0);
            gather.take(self.pfn);
        }
        self.unmapped.lock().push(first);
    }

    fn referenced(&self, _index: u64) -> u32 {
        self.assert_is_locked();
        if let Some(user) = self.user.lock().take() {
            self.page().remove_mapping();
            drop(user);
        }
        self.uses.swap(0, Ordering::Relaxed)
    }

    fn audit_tables(&self, _seen: &mut BTreeSet<usize>) -> Result<u64, String> {
        Ok(0)
    }
}

/// Maps a page, with an entry's reference.
fn map(cache: &PageCache, open: &OpenFile, index: u64) -> Arc<Program> {
    let handle = hold(open, index);
    handle.page().add_mapping();
    let program = Arc::new(Program {
        shared: Arc::clone(cache.shared()),
        index,
        pfn: handle.into_pfn(),
        uses: AtomicU32::new(0),
        unmapped: Mutex::default(),
        user: Mutex::default(),
    });
    let range = Arc::clone(&program);
    open.mapping.i_mmap.link(index, range);
    program
}

#[test]
fn a_mapped_page_is_judged_by_the_uses_of_its_entries() {
    // Marks before the scan, uses since; whether it is evicted, else its list; marks then.
    for (before, uses, then) in [
        (0, 0, None),
        (usage::REFERENCED, 0, None),
        (0, 1, Some(((0, 1), usage::REFERENCED))),
        (usage::REFERENCED, 1, Some(((1, 0), usage::ACTIVE))),
        (0, 2, Some(((1, 0), usage::ACTIVE))),
        (usage::ACTIVE, 0, Some(((1, 0), usage::ACTIVE))),
        (usage::ACTIVE, 1, Some(((1, 0), usage::ACTIVE))),
        (usage::ACTIVE | usage::REFERENCED, 1, Some(((1, 0), usage::ACTIVE))),
    ] {
        let (cache, file) = cached(8, 8);
        file.advise(Advice::WillNeed, 3 * PAGE, Some(1)).unwrap();
        let open = file.open_file().unwrap();
        let program = map(&cache, &open, 3);
        program.page().usage().set(before);
        program.uses.store(uses, Ordering::Relaxed);
        let what = format!("{before} {uses}");
        assert_eq!(shrink_inactive(cache.shared(), 1), (1, usize::from(then.is_none())), "{what}");
        assert_eq!(program.uses.load(Ordering::Relaxed), 0, "{what}: the next use is a new one");
        let stats = cache.stats();
        assert_eq!(stats.readahead_wasted, u64::from(then.is_none()), "{what}");
        match then {
            None => {
                assert_eq!((program.unmapped.lock().as_slice(), lists(&cache)), (&[3][..], (0, 0)), "{what}");
            }
            Some((then, after)) => {
                assert_eq!((lists(&cache), marks(&open, 3)), (then, after), "{what}");
                assert_eq!(stats.activations, then.0 as u64, "{what}");
                // What is active already was noticed before.
                assert_eq!(stats.readahead_used, u64::from(before & usage::ACTIVE == 0), "{what}");
                assert_eq!(*program.unmapped.lock(), [0; 0], "{what}");
                truncate(&file);
            }
        }
        cache.check().unwrap();
    }
}

/// Frees all pages, mapped or not.
fn truncate(file: &File) {
    file.truncate(0).unwrap();
}

#[test]
fn a_page_that_no_program_maps_is_judged_without_them() {
    let (cache, file) = cached(8, 8);
    bring(&file, 0..2);
    let open = file.open_file().unwrap();
    let program = map(&cache, &open, 1);
    program.uses.store(1, Ordering::Relaxed);
    assert_eq!(shrink_inactive(cache.shared(), 1), (1, 1));
    assert_eq!((resident(&file), program.unmapped.lock().len()), (vec![1], 0));
    assert_eq!(program.uses.load(Ordering::Relaxed), 1);
    truncate(&file);
}

#[test]
fn an_active_page_that_is_mapped_stays_if_it_was_used_or_read() {
    // Whether it was read, its uses, whether another thread has it locked; whether it stays.
    for (read, uses, locked, stays) in [
        (false, 0, false, false),
        (false, 1, false, true),
        (true, 0, false, true),
        (false, 0, true, true),
        (false, 1, true, true),
    ] {
        let (cache, file) = cached(8, 8);
        make_active(&cache, &file, 2..3);
        let open = file.open_file().unwrap();
        let program = map(&cache, &open, 2);
        program.uses.store(uses, Ordering::Relaxed);
        if read {
            program.page().usage().set(usage::REFERENCED);
        }
        let lock = locked.then(|| program.page().try_lock().unwrap());
        assert_eq!(shrink_active(cache.shared()), 1);
        let what = format!("read {read}, {uses} uses, locked {locked}");
        assert_eq!(lists(&cache), if stays { (1, 0) } else { (0, 1) }, "{what}");
        assert_eq!(program.uses.load(Ordering::Relaxed), if locked { uses } else { 0 }, "{what}");
        drop(lock);
        truncate(&file);
        cache.check().unwrap();
    }
    // Of a page that is not mapped, only reads count, and nobody need lock it.
    let (cache, file) = cached(8, 8);
    make_active(&cache, &file, 0..1);
    let open = file.open_file().unwrap();
    let lock = hold(&open, 0).page().try_lock().unwrap();
    assert_eq!((shrink_active(cache.shared()), lists(&cache)), (1, (0, 1)));
    drop(lock);
}

/// The last user takes the locks of all pages.
#[test]
fn reclaim_may_be_the_last_user_of_a_file() {
    for is_active in [true, false] {
        let (cache, file) = cached(8, 8);
        if is_active {
            make_active(&cache, &file, 2..3);
        } else {
            bring(&file, 2..3);
        }
        let program = {
            let open = file.open_file().unwrap();
            map(&cache, &open, 2)
        };
        *program.user.lock() = Some(file);
        assert_eq!(
            if is_active { shrink_active(cache.shared()) } else { shrink_inactive(cache.shared(), 1).0 },
            1
        );
        assert!(program.user.lock().is_none(), "it was asked");
        // The entry's reference is left.
        assert!(!program.page().is_cached() && program.page().refcount() == 1);
        drop(program.page().adopt());
        cache.check().unwrap();
    }
}
