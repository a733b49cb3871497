//! Models of opens and ends: the end of a cache against a read, a window and an open; two opens of one file; the last use of a file
//! against its next open.

use super::super::arrival::bring;
use super::super::creation::{FoundOrCreated, find_or_create};
use super::super::files::Files;
use super::super::{CacheOptions, NotRead, PageCache, StoreOptions};
use super::*;
use crate::error::{Error, Result};
use crate::loom_harness::Address;
use crate::page::PageFlags;
use crate::store::ReadBy;
use crate::sync::{Mutex, OnceLock};
use std::time::Duration;

/// A store that may stall, and does not.
struct Workers;

impl Store for Workers {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        buf.fill(OURS);
        Ok(buf.len())
    }

    fn read_by(&self) -> ReadBy {
        ReadBy::Workers { timeout: None }
    }
}

/// A cache with workers, and a file of one page in it.
fn cache_with(store: Arc<dyn Store>) -> (PageCache, File) {
    let options = CacheOptions::default().io(Io::Threads).frame_timeout(Duration::ZERO);
    let cache = PageCache::with_options(2 * PAGE, options).unwrap();
    let file = cache.open_store_with(store, PAGE, StoreOptions::default().ra_pages(0)).unwrap();
    (cache, file)
}

/// One thread waits for a page that a worker reads; one closes the cache. Claims: the reader gets the page's bytes, or hears that the
/// cache was closed, and nothing else; nothing is left locked, queued or at work.
fn close_against_read() {
    let (cache, file) = cache_with(Arc::new(Workers));
    let open = file.open_file().unwrap();
    let FoundOrCreated::Page(handle) = find_or_create(&open.mapping, 0) else { panic!("there is room") };
    let pfn = handle.into_pfn();
    // Whether the cache is open.
    let history = History::new(true);
    let reader = {
        let (open, history) = (Arc::clone(&open), history.clone());
        spawn(move || {
            let page = open.mapping.frames().page(pfn);
            let read = || match bring(&open.mapping, page, 0, Some(&open.closed)) {
                Ok(true) => {
                    reach("read");
                    // Loom does not see the answer, only the page.
                    let is_seen = page.flags().has(PageFlags::UPTODATE);
                    Some(if is_seen { first_byte(page) } else { OURS })
                }
                Err(NotRead::Left(Error::Closed(_))) => {
                    reach("closed");
                    None
                }
                other => panic!("{other:?}"),
            };
            history.call("read", read, |&mut is_open, byte| byte.map_or(!is_open, |byte| byte == OURS));
        })
    };
    let close = || cache.close().is_ok();
    history.call("close", close, |is_open, &closed| {
        *is_open = false;
        closed
    });
    reader.join().unwrap();
    history.settle();
    drop(open.mapping.frames().page(pfn).adopt());
    history.call("settle", || cache.shared().io.settle(), |_, &settled| settled);
    history.check();
    // A worker may still be inside a read that was abandoned.
    let abandoned = cache.shared().io.abandoned_frames();
    reach(if abandoned.is_empty() { "ended" } else { "abandoned" });
    cache.shared().frames.audit(&abandoned).unwrap();
}

#[test]
fn the_end_of_a_cache_against_a_read() {
    Model {
        name: "end of a cache against a read",
        rows: &[],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: close_against_read,
        reaches: &["read", "closed", "ended", "abandoned"],
        needs: &["close.flag_first"],
    }
    .check();
}

/// A worker reclaims in the background, which empties nodes of the index; one thread closes the cache. Claim: then no node awaits its
/// end.
fn close_against_background_reclaim() {
    let (cache, file) = cache_with(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])));
    let mapping = Arc::clone(&file.open_file().unwrap().mapping);
    let shared = Arc::clone(cache.shared());
    // A node, because it is not the first page. (A shadow would keep it: there are as many as frames already.)
    cache_page(&mapping, 1, OURS);
    let room = Arc::new(Dropper(mapping));
    let history = History::new(());
    history.call("start", || shared.io.submit_reclaim(&room), |(), ()| true);
    history.call("close", || cache.close().is_ok(), |(), &closed| closed);
    history.call("look", || shared.snapshot().xarray_nodes, |(), &nodes| nodes == 0);
    history.check();
}

/// Drops the idle pages of one file.
struct Dropper(Arc<AddressSpace>);

impl super::super::requests::MakesRoom for Dropper {
    fn balance(&self) {
        assert!(evict(&self.0, 1, Entry::EMPTY, &rcu::read()), "nobody else uses it");
    }
}

#[test]
fn the_end_of_a_cache_against_background_reclaim() {
    Model {
        name: "end of a cache against background reclaim",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: close_against_background_reclaim,
        reaches: &[],
        needs: &["close.barrier_last"],
    }
    .check();
}

const IDENTITY: Option<(u64, u64)> = Some((1, 1));

/// Opens the file; returns where its pages are.
fn open_at(files: &Files, store: &Arc<dyn Store>, opened: &mut Option<Arc<AddressSpace>>) -> Address {
    Address::of(&**opened.insert(open(files, store).unwrap()))
}

fn open(files: &Files, store: &Arc<dyn Store>) -> Result<Arc<AddressSpace>> {
    files.mapping(IDENTITY, store, PAGE, "model".as_ref())
}

/// Two threads open one file, of which the first already read a page. Claims: they share its pages; a page that either brought in is
/// found by reclaim. Premise: the table is locked from the look to the insertion.
fn two_opens() {
    let shared = Shared::new(1, Io::Inline).unwrap();
    let files = Arc::new(Files::new(shared));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE]));
    // The file that an open came to; the first decides.
    let history = History::new(None);
    let right = |file: &mut Option<Address>, at: &Address| file.get_or_insert(*at) == at;
    let other = {
        let (files, store, history) = (Arc::clone(&files), Arc::clone(&store), history.clone());
        spawn(move || {
            let mut opened = None;
            history.call("open", || open_at(&files, &store, &mut opened), right);
            opened
        })
    };
    let mut opened = None;
    history.call("open", || open_at(&files, &store, &mut opened), right);
    let other = other.join().unwrap();
    history.settle();
    let mapping = opened.unwrap();
    assert!(cache_page(&mapping, 0, OURS));
    history.call("reclaim", || shrink(&files.shared), |_, &freed| freed);
    history.check();
    drop(other);
}

#[test]
fn two_opens_of_one_file() {
    Model {
        name: "two opens of one file",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: two_opens,
        reaches: &["freed"],
        needs: &["open.seed.look_then_insert"],
    }
    .check();
}

/// One thread drops the last user of a file; one opens it again. Claims: the next user's pages are its own and found; the last one's are
/// gone. Premise: a file that has no users is not found, and its pages carry a number of their own.
fn last_close_against_open() {
    let shared = Shared::new(2, Io::Inline).unwrap();
    let files = Arc::new(Files::new(Arc::clone(&shared)));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE]));
    let first = open(&files, &store).unwrap();
    let id = first.id();
    assert!(cache_page(&first, 0, OURS));
    // In a mutex, because loom does not see the count of users.
    let first = Arc::new(Mutex::new(Some(first)));
    // Whether the first user is there.
    let history = History::new(true);
    let closer = {
        let (first, history) = (Arc::clone(&first), history.clone());
        spawn(move || {
            let close = || {
                let last = first.lock().take();
                drop(last);
            };
            history.call("close", close, |is_there, ()| std::mem::replace(is_there, false));
        })
    };
    let mut opened = None;
    let again = || {
        drop(first.lock());
        let mapping = opened.insert(open(&files, &store).unwrap());
        reach(if mapping.id() == id { "the same" } else { "another" });
        (mapping.id() == id, look_up(mapping))
    };
    history.call(
        "open",
        again,
        |&mut is_there, (same, seen)| {
            if *same { is_there && *seen == Ok(Some(OURS)) } else { *seen == Ok(None) }
        },
    );
    closer.join().unwrap();
    history.settle();
    let mapping = opened.unwrap();
    let used = || {
        let there = mapping.peek(0, &rcu::read()).is_some();
        (shared.frames.usage().in_use == usize::from(there), shared.files.iter().count())
    };
    history.call("look", used, |_, &seen| seen == (true, 1));
    history.check();
    shared.frames.audit(&[]).unwrap();
}

#[test]
fn the_last_close_of_a_file_against_an_open() {
    Model {
        name: "last close of a file against an open",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: last_close_against_open,
        reaches: &["the same", "another"],
        needs: &["open.register"],
    }
    .check();
}

/// A store that opens another file of its cache whenever it is asked how it is.
struct Opener {
    files: OnceLock<std::sync::Weak<Files>>,
}

impl Store for Opener {
    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        unreachable!("nobody reads")
    }

    fn size(&self) -> std::io::Result<Option<u64>> {
        if let Some(files) = self.files.get().and_then(std::sync::Weak::upgrade) {
            let other: Arc<dyn Store> = Arc::new(MemoryStore::new(Vec::new()));
            let _opened = files.mapping(Some((2, 2)), &other, 0, "other".as_ref()).unwrap();
            reach("opened inside");
        }
        Ok(Some(PAGE))
    }
}

/// Two threads open one file, whose store opens another. Claim: both opens end. Premise: no store is called under the table's mutex.
fn an_open_inside() {
    let shared = Shared::new(1, Io::Inline).unwrap();
    let files = Arc::new(Files::new(shared));
    let opener = Arc::new(Opener { files: OnceLock::new() });
    opener.files.set(Arc::downgrade(&files)).expect("set once");
    let store: Arc<dyn Store> = opener;
    let history = History::new(());
    let keep_open = |history: &History<()>, files: &Files, store: &Arc<dyn Store>| {
        let mut opened = None;
        history.call("open", || opened.insert(open(files, store)).is_ok(), |(), &opened| opened);
        opened
    };
    let other = {
        let (files, store, history) = (Arc::clone(&files), Arc::clone(&store), history.clone());
        spawn(move || keep_open(&history, &files, &store))
    };
    let opened = (keep_open(&history, &files, &store), other.join().unwrap());
    history.check();
    drop(opened);
}

#[test]
fn an_open_inside_of_an_open() {
    Model {
        name: "open inside of an open",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: an_open_inside,
        reaches: &["opened inside"],
        needs: &["open.unlock_first"],
    }
    .check();
}
