//! Models of changes of size, whole, over stores that change too: against each other, against reads and against hits.

use super::super::arrival::bring;
use super::super::coherence::revalidate;
use super::super::copy_out;
use super::super::read::buffered_read;
use super::super::size_change::change_size;
use super::coherence::{NEW, OLD, Others, TWO};
use super::*;
use crate::page::Out;
use std::io;

const HALF: u64 = PAGE / 2;

/// The file: its bytes.
type Bytes = Vec<u8>;

fn memory(bytes: usize) -> Arc<OpenFile> {
    let shared = Shared::new(4, Io::Inline).unwrap();
    let store = Arc::new(MemoryStore::new(vec![OURS; bytes]));
    File::in_memory(&shared, store, bytes as u64).open_file().unwrap()
}

fn resize(file: &OpenFile, size: u64) {
    change_size(&file.mapping, size, None, |size| file.store().truncate(size)).unwrap();
}

fn resized(size: u64) -> impl Fn(&mut Bytes, &()) -> bool {
    move |file, ()| {
        file.resize(size as usize, 0);
        true
    }
}

/// All of the file without a lock, or nothing.
fn hit(file: &OpenFile, short: Short) -> Option<Bytes> {
    let mut buf = [0; TWO];
    let n = copy_out::read_cached(&file.mapping, Out::from(&mut buf[..]), 0, short, &rcu::read());
    reach(n.map_or("nothing".into(), |n| format!("{n} bytes")));
    if n.is_none() {
        assert_eq!(buf, [0; TWO], "a failed hit leaves nothing");
    }
    n.map(|n| buf[..n].to_vec())
}

#[allow(clippy::ptr_arg, clippy::ref_option, reason = "as histories pass answers")]
fn hit_is_right(file: &mut Bytes, hit: &Option<Bytes>) -> bool {
    hit.is_none() || hit.as_ref() == Some(file)
}

fn read(file: &Arc<OpenFile>) -> Bytes {
    let mut buf = [0; TWO];
    let n = buffered_read(file, Out::from(&mut buf[..]), 0).unwrap();
    reach(format!("read {n}"));
    buf[..n].to_vec()
}

/// What the cache and the store say of the file at rest.
fn at_rest(file: &Arc<OpenFile>, history: &History<Bytes>) {
    history.settle();
    let look = || (read(file), file.store().size().unwrap());
    history.call("read at rest", look, |bytes, (read, size)| {
        read == bytes && size.is_none_or(|size| size == bytes.len() as u64)
    });
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

/// One thread cuts the file within its page; one makes it whole again and reads it without a lock. Claims: what was cut off reads
/// as zeros; neither takes the other's change for a stranger's. Premise: none.
fn cut_against_growth() {
    let store = Others::new(PAGE_SIZE, false);
    let file = super::coherence::open(&store, PAGE_SIZE);
    assert!(cache_page(&file.mapping, 0, OLD));
    let history = History::new(vec![OLD; PAGE_SIZE]);
    let cutter = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || history.call("cut", || resize(&file, HALF), resized(HALF)))
    };
    history.call("grow", || resize(&file, PAGE), resized(PAGE));
    history.call("hit", || hit(&file, Short::Serve), hit_is_right);
    cutter.join().unwrap();
    assert_eq!(file.mapping.version.epoch(), 0, "nobody else has changed the file");
    at_rest(&file, &history);
}

#[test]
fn big_a_truncation_against_a_truncation() {
    Model {
        name: "truncation against truncation",
        rows: &[50],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: cut_against_growth,
        reaches: &["8 bytes", "16 bytes"],
        needs: &[
            "truncate.ended_inside",
            "truncate.noted_inside",
            "truncate.noted",
            "truncate.followed_inside",
        ],
    }
    .check();
}

/// One thread makes the file longer by a page, one reads it past its old end. Claim: a read returns the file as it was before or
/// after, and does not fail. Premise: the store has the bytes when it returns.
fn read_against_longer_store() {
    let file = memory(PAGE_SIZE);
    let history = History::new(vec![OURS; PAGE_SIZE]);
    let grower = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || history.call("grow", || resize(&file, 2 * PAGE), resized(2 * PAGE)))
    };
    history.call("read", || read(&file), |file, read| file == read);
    grower.join().unwrap();
    at_rest(&file, &history);
}

#[test]
fn a_read_against_a_longer_store() {
    Model {
        name: "read against growth of the store",
        rows: &[],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: read_against_longer_store,
        reaches: &["read 16", "read 32"],
        needs: &[],
    }
    .check();
}

/// The second page of a file is read while others make the file a page shorter, and then write it again as long as it was. Claim:
/// a read returns the page of one of the versions, or nothing if the file has none; it does not fail. Premise: none.
fn read_against_a_file_written_again() {
    let store = Others::new(TWO, false);
    let file = super::coherence::open(&store, TWO);
    let history: History<Vec<Bytes>> = History::new(vec![vec![OLD; PAGE_SIZE]]);
    let writer = {
        let (store, history) = (Arc::clone(&store), history.clone());
        spawn(move || {
            for (bytes, page) in [(PAGE_SIZE, Bytes::new()), (TWO, vec![NEW; PAGE_SIZE])] {
                history.call(
                    "write",
                    || store.write(bytes),
                    move |versions, ()| {
                        versions.push(page.clone());
                        true
                    },
                );
            }
        })
    };
    let read = || {
        let mut buf = [0; PAGE_SIZE];
        let n = buffered_read(&file, Out::from(&mut buf[..]), PAGE).unwrap();
        reach(buf[..n].first().map_or("nothing".into(), |byte| format!("{byte:#x}")));
        buf[..n].to_vec()
    };
    history.call("read", read, |versions, read| versions.contains(read));
    writer.join().unwrap();
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn a_read_against_a_file_written_again() {
    Model {
        name: "read against a file that others shorten and write again",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: read_against_a_file_written_again,
        reaches: &["0x11", "0x22", "nothing"],
        needs: &["fill.short_at_once"],
    }
    .check();
}

/// One thread wants the file shorter, which its store refuses; one reads its page, and then without a lock. Claim: the file stays what it
/// was; meanwhile a read may end earlier. Premise: none.
fn read_against_refusal() {
    let file = memory(PAGE_SIZE);
    let Created::New(held) = file.mapping.add_page(0) else { panic!("a frame is free") };
    drop(held.lock);
    let pfn = held.handle.into_pfn();
    let history = History::new(vec![OURS; PAGE_SIZE]);
    let refused = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let cut = || change_size(&file.mapping, HALF, None, |_| Err(io::ErrorKind::Other.into()));
            history.call("cut", || cut().is_ok(), |_, &cut| !cut);
        })
    };
    let page = file.mapping.frames().page(pfn).adopt();
    let bring = || bring(&file.mapping, page.page(), 0, None).is_ok();
    history.call("read", bring, |_, &read| read);
    drop(page);
    let hit = || hit(&file, Short::Serve).unwrap_or_default();
    history.call("hit", hit, |file, hit| file.starts_with(hit));
    refused.join().unwrap();
    at_rest(&file, &history);
}

#[test]
fn big_a_read_against_a_truncation_that_is_refused() {
    Model {
        name: "read against a truncation that the store refuses",
        rows: &[],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: read_against_refusal,
        reaches: &["8 bytes", "16 bytes"],
        needs: &["truncate.refused.page", "truncate.refused.page_first"],
    }
    .check();
}

/// Two pages are read without a lock while the file is cut within the second. Claims: a hit is the file before or after, or
/// nothing; a failed one leaves nothing. Premise: as for one page.
fn hit_of_two_pages(short: Short) {
    let file = memory(TWO);
    assert!(cache_page(&file.mapping, 0, OURS) && cache_page(&file.mapping, 1, OURS));
    let history = History::new(vec![OURS; TWO]);
    let cutter = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || history.call("cut", || resize(&file, PAGE + HALF), resized(PAGE + HALF)))
    };
    history.call("hit", || hit(&file, short), hit_is_right);
    cutter.join().unwrap();
    at_rest(&file, &history);
}

#[test]
fn a_hit_of_two_pages_against_truncation() {
    Model {
        name: "hit of two pages against truncation",
        rows: &[49, 50],
        preemption_bound: Some(6),
        grace_periods: false,
        twin: false,
        body: || hit_of_two_pages(Short::Serve),
        reaches: &["nothing", "24 bytes", "32 bytes"],
        needs: &["copy_out.wipe", "read_cached.missed.wipe"],
    }
    .check();
}

#[test]
fn a_whole_hit_of_two_pages_against_truncation() {
    Model {
        name: "whole hit of two pages against truncation",
        rows: &[49, 50],
        preemption_bound: Some(7),
        grace_periods: false,
        twin: false,
        body: || hit_of_two_pages(Short::Refuse),
        reaches: &["nothing", "32 bytes"],
        needs: &["read_cached.short.wipe"],
    }
    .check();
}

/// Two pages are read without a lock while the second is evicted and its frame given to another file, in the same index. Claims as
/// above.
fn hit_of_two_pages_against_eviction() {
    let file = memory(TWO);
    assert!(cache_page(&file.mapping, 0, OURS) && cache_page(&file.mapping, 1, OURS));
    let history = History::new(true);
    let evicter = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let evict = || evict(&file.mapping, 1, Entry::EMPTY, &rcu::read());
            history.call("evict", evict, |there, &gone| {
                *there &= !gone;
                true
            });
        })
    };
    let right = |_: &mut bool, hit: &Option<Bytes>| hit.as_ref().is_none_or(|hit| *hit == [OURS; TWO]);
    history.call("hit", || hit(&file, Short::Serve), right);
    evicter.join().unwrap();
    history.settle();
    let again = || hit(&file, Short::Serve).is_some();
    history.call("hit at rest", again, |there, hit| there == hit);
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn big_a_hit_of_two_pages_against_eviction() {
    Model {
        name: "hit of two pages against eviction",
        rows: &[49],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: hit_of_two_pages_against_eviction,
        reaches: &["nothing", "32 bytes"],
        needs: &["read_cached.missed.wipe"],
    }
    .check();
}

/// Another program has cut a store that says nothing but its size, within the page. One thread is told to follow; one copies the
/// page out. Claim: a copy is of the page as it was, or none. Premise: as for truncation.
fn copy_against_followed_cut() {
    let file = memory(PAGE_SIZE);
    assert!(cache_page(&file.mapping, 0, OURS));
    file.store().truncate(HALF).unwrap();
    let history = History::new(Some(OURS));
    let follower = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let follow = || revalidate(&file.mapping, false).unwrap();
            history.call("follow", follow, |page, &size| page.take().is_some() && size == HALF);
        })
    };
    history.call("copy", || super::copy_out::copy(&file.mapping), super::copy_out::copied_is_right);
    follower.join().unwrap();
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn big_a_copy_against_a_cut_that_is_followed() {
    Model {
        name: "copy-out against a cut by others that is followed",
        rows: &[50],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: copy_against_followed_cut,
        reaches: &["copied", "unavailable", "changed"],
        needs: &["resize.shrunk_first"],
    }
    .check();
}

/// A page whose index node holds nothing else is taken out while another thread is inside a read section. Claim: when the call returns,
/// frame and node are given back. Premise: a node is freed a grace period after it was retired.
fn given_back(take_out: fn(&OpenFile)) {
    let file = memory(TWO);
    assert!(cache_page(&file.mapping, 1, OURS));
    let history = History::new(());
    let reader = {
        let history = history.clone();
        spawn(move || history.call("read", || drop(rcu::read()), |(), ()| true))
    };
    history.call("take out", || take_out(&file), |(), ()| true);
    let shared = &file.mapping.shared;
    let left = || (shared.frames.usage().in_use, shared.xarray_nodes.tallied());
    history.call("count", left, |(), &left| left == (0, 0));
    reader.join().unwrap();
    history.check();
}

#[test]
fn a_truncation_gives_back() {
    Model {
        name: "truncation against a read section",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || given_back(|file| resize(file, PAGE)),
        reaches: &[],
        needs: &["truncate.barrier", "truncate.barrier_last"],
    }
    .check();
}

#[test]
fn a_revalidation_gives_back() {
    Model {
        name: "revalidation against a read section",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: || given_back(|file| assert_eq!(revalidate(&file.mapping, true).unwrap(), 2 * PAGE)),
        reaches: &[],
        needs: &["revalidate.barrier"],
    }
    .check();
}
