//! Models of one version: changes that other programs make to a file, against hits, fills and each other.

use super::super::coherence::adopt;
use super::super::coherence::follow_changes;
use super::super::coherence::{look_at_the_end, settle};
use super::super::copy_out;
use super::super::read::buffered_read;
use super::super::size_change::change_size;
use super::super::version::Seen;
use super::*;
use crate::error::Error;
use crate::page::Out;
use crate::store::Look;
use crate::sync::Mutex;

pub(super) const OLD: u8 = 0x11;
pub(super) const NEW: u8 = 0x22;
pub(super) const TWO: usize = 2 * PAGE_SIZE;

/// A file of which other programs make another version: each of its bytes tells its version.
pub(super) struct Others {
    file: Mutex<(Vec<u8>, u64)>,
    has_times: bool,
}

impl Others {
    pub(super) fn new(bytes: usize, has_times: bool) -> Arc<Self> {
        Arc::new(Self { file: Mutex::new((vec![OLD; bytes], 1)), has_times })
    }

    /// Another version, of this length.
    pub(super) fn write(&self, bytes: usize) {
        let mut file = self.file.lock();
        *file = (vec![NEW; bytes], file.1 + 1);
    }

    /// More bytes, of the same version.
    pub(super) fn append(&self, bytes: usize) {
        self.file.lock().0.resize(bytes, OLD);
    }

    /// The first half of a write, with which its time moves; the other half.
    fn begin(&self) {
        let mut file = self.file.lock();
        file.0[..PAGE_SIZE].fill(NEW);
        file.1 = 2;
    }

    fn end(&self) {
        self.file.lock().0[PAGE_SIZE..].fill(NEW);
    }
}

impl Store for Others {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let file = self.file.lock();
        let from = file.0.len().min(offset as usize);
        let n = buf.len().min(file.0.len() - from);
        buf[..n].copy_from_slice(&file.0[from..from + n]);
        Ok(n)
    }

    fn truncate(&self, size: u64) -> std::io::Result<()> {
        self.file.lock().0.resize(size as usize, 0);
        Ok(())
    }

    fn look(&self) -> std::io::Result<Look> {
        let file = self.file.lock();
        let changed = self.has_times.then_some(file.1);
        Ok(Look { size: Some(file.0.len() as u64), version: Some(file.1), changed })
    }
}

/// What a read returned: of which version, and how much of it. Nothing is always right.
pub(super) type Answer = Option<(u8, usize)>;

pub(super) fn told(bytes: &[u8]) -> (u8, usize) {
    let first = *bytes.first().expect("the file is not empty");
    // 0: of no version.
    let version = if bytes.iter().all(|&byte| byte == first) { first } else { 0 };
    reach(match version {
        OLD => "old",
        NEW => "new",
        _ => "torn",
    });
    (version, bytes.len())
}

/// The state: the versions that have existed, and their lengths.
pub(super) type Versions = Vec<(u8, usize)>;

#[allow(clippy::ptr_arg, clippy::trivially_copy_pass_by_ref, reason = "as histories pass answers")]
pub(super) fn existed(versions: &mut Versions, answer: &Answer) -> bool {
    answer.is_none_or(|answer| versions.contains(&answer))
}

pub(super) fn open(store: &Arc<Others>, bytes: usize) -> Arc<OpenFile> {
    handle(store, bytes).open_file().unwrap()
}

pub(super) fn handle(store: &Arc<Others>, bytes: usize) -> File {
    let shared = Shared::new(4, Io::Inline).unwrap();
    let store = Arc::clone(store) as Arc<dyn Store>;
    File::in_memory(&shared, store, bytes as u64)
}

fn read_cached(file: &OpenFile) -> Answer {
    let mut buf = [0; TWO];
    let n = copy_out::read_cached(&file.mapping, Out::from(&mut buf[..]), 0, Short::Serve, &rcu::read());
    if n.is_none() {
        reach("nothing");
        assert_eq!(buf, [0; TWO], "a failed hit leaves nothing");
    }
    n.map(|n| told(&buf[..n]))
}

pub(super) fn pread(file: &Arc<OpenFile>) -> Answer {
    let mut buf = [0; TWO];
    match buffered_read(file, Out::from(&mut buf[..]), 0) {
        Ok(n) => Some(told(&buf[..n])),
        Err(Error::Io(error)) if error.is_change() => {
            reach("stale");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The first of two pages is cached. Both are read without a lock, while another thread finds that the store has another version,
/// `bytes` long, and caches its last page. Claim: what is read is one of the two versions, whole, or nothing. Premise: pages
/// leave under `invalidate_lock`.
fn hit_against_change(bytes: usize) {
    let store = Others::new(TWO, false);
    let file = open(&store, TWO);
    assert!(cache_page(&file.mapping, 0, OLD));
    store.write(bytes);
    let history: History<Versions> = History::new(vec![(OLD, TWO)]);
    let reader = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || history.call("read", || read_cached(&file), existed))
    };
    let find = || {
        adopt(&file.mapping, false).unwrap();
        bytes < TWO || cache_page(&file.mapping, 1, NEW)
    };
    history.call("find the change", find, move |versions, &cached| {
        versions.push((NEW, bytes));
        cached
    });
    reader.join().unwrap();
    history.settle();
    history.call("read at rest", || pread(&file), move |_, &read| read == Some((NEW, bytes)));
    history.check();
}

#[test]
fn big_a_hit_of_two_pages_against_a_change() {
    Model {
        name: "hit of two pages against a change that is found",
        rows: &[],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: || hit_against_change(TWO),
        reaches: &["new", "nothing"],
        needs: &[
            "read_cached.one_version",
            "epoch.release",
            "adopt.seed.epoch_first",
            "read_cached.changed.wipe",
        ],
    }
    .check();
}

#[test]
fn big_a_hit_against_a_shorter_version() {
    Model {
        name: "hit against a shorter version that is found",
        rows: &[],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || hit_against_change(PAGE_SIZE),
        reaches: &["new", "nothing"],
        needs: &["adopt.seed.size_first"],
    }
    .check();
}

/// A page that the file fills in part is read without a lock, while another thread finds that the file has grown. Claim: a read
/// returns what was there before, or everything that is there now: appended bytes, no zeros. Premise: appended bytes are there
/// before the size.
fn hit_against_growth() {
    const HALF: usize = PAGE_SIZE / 2;
    let store = Others::new(HALF, false);
    let file = open(&store, HALF);
    assert!(pread(&file).is_some());
    store.append(PAGE_SIZE);
    let history: History<Versions> = History::new(vec![(OLD, HALF)]);
    let finder = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            history.call(
                "find the growth",
                || follow_changes(&file.mapping).unwrap(),
                |versions, ()| {
                    versions.push((OLD, PAGE_SIZE));
                    true
                },
            );
        })
    };
    history.call("read", || read_cached(&file), existed);
    finder.join().unwrap();
    history.settle();
    history.call("read at rest", || pread(&file), |_, &read| read == Some((OLD, PAGE_SIZE)));
    history.check();
}

#[test]
fn big_a_hit_against_growth() {
    Model {
        name: "hit against growth that is found",
        rows: &[],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: hit_against_growth,
        reaches: &["old", "nothing"],
        needs: &["resize.seed.size_first"],
    }
    .check();
}

/// Other programs have rewritten the file, whose page is cached. One thread makes it shorter, one follows the change. Claims: what is read
/// is theirs, up to the new end; the change is followed once. Premise: what a truncation notes of the store is what it left.
fn cut_against_follower() {
    let store = Others::new(PAGE_SIZE, false);
    let file = open(&store, PAGE_SIZE);
    assert!(cache_page(&file.mapping, 0, OLD));
    store.write(PAGE_SIZE);
    let epoch = file.mapping.version.epoch();
    let history = History::new(PAGE_SIZE);
    let follower = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            history.call("follow", || follow_changes(&file.mapping).unwrap(), |_, ()| true);
        })
    };
    let cut = || change_size(&file.mapping, PAGE / 2, None, |size| store.truncate(size)).unwrap();
    history.call("cut", cut, |size, ()| {
        *size = PAGE_SIZE / 2;
        true
    });
    follower.join().unwrap();
    history.settle();
    history.call("read at rest", || pread(&file), |&mut size, read| *read == Some((NEW, size)));
    history.check();
    assert_eq!(file.mapping.version.epoch(), epoch + 2, "one version has followed");
}

#[test]
fn big_a_cut_against_a_follower() {
    Model {
        name: "truncation against a change that another follows",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: cut_against_follower,
        reaches: &[],
        needs: &["truncate.follow", "truncate.followed_inside"],
    }
    .check();
}

/// The file is longer than is known. Two threads look before they read past its known end. Claim: each reads to the end. Premise:
/// the file became longer before both.
fn read_past_the_known_end(known: usize, bytes: usize, version: u8) {
    let store = Others::new(known, false);
    let file = open(&store, known);
    assert!(known == 0 || pread(&file).is_some());
    if version == OLD {
        store.append(bytes);
    } else {
        store.write(bytes);
    }
    let history = History::new(());
    let read = move |file: &Arc<OpenFile>| {
        if !look_at_the_end(&file.mapping, 0, bytes).unwrap() {
            reach("known");
        }
        pread(file)
    };
    let right = move |(): &mut (), answer: &Answer| *answer == Some((version, bytes));
    let other = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let follow = || follow_changes(&file.mapping).unwrap();
            history.call("follow", follow, |(), ()| true);
        })
    };
    history.call("read", || read(&file), right);
    other.join().unwrap();
    history.check();
}

#[test]
fn big_a_read_past_the_known_end_against_growth() {
    Model {
        name: "read past the known end against growth that another follows",
        rows: &[],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || read_past_the_known_end(PAGE_SIZE / 2, PAGE_SIZE, OLD),
        reaches: &["known"],
        needs: &["adopt.grown.noted_last"],
    }
    .check();
}

#[test]
fn big_a_read_past_the_known_end_against_a_change() {
    Model {
        name: "read past the known end against a change that another follows",
        rows: &[],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || read_past_the_known_end(0, PAGE_SIZE, NEW),
        reaches: &["known"],
        needs: &["adopt.noted_last"],
    }
    .check();
}

/// Two pages were read of a version that was still being written: one is of it, one of the version before. It is old now. One thread
/// finds that, and so drops them; one reads both without a lock. Claim: a read returns the version whole, or nothing. Premise: a
/// version that is old is whole.
fn hit_against_trust() {
    let store = Others::new(TWO, false);
    let file = open(&store, TWO);
    store.write(TWO);
    adopt(&file.mapping, false).unwrap();
    let look = store.look().unwrap();
    // As found when it was young; of its age models know nothing.
    file.mapping.version.note(Seen { look, young: Some(look) });
    file.mapping.version.move_on(true, true);
    assert!(cache_page(&file.mapping, 0, NEW) && cache_page(&file.mapping, 1, OLD));
    let history: History<Versions> = History::new(vec![(NEW, TWO)]);
    let reader = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || history.call("hit", || read_cached(&file), existed))
    };
    history.call("settle", || settle(&file.mapping, true).unwrap(), |_, ()| true);
    reader.join().unwrap();
    history.settle();
    history.call("read at rest", || pread(&file), |_, read| *read == Some((NEW, TWO)));
    history.check();
}

#[test]
fn a_hit_against_trust() {
    Model {
        name: "hit against the trust in a version that was young",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: hit_against_trust,
        reaches: &["nothing"],
        needs: &["trust.epoch_last"],
    }
    .check();
}

/// Two pages are read, of which the first is cached, while another program writes another version. Claim: a read returns one of
/// the two versions, whole; and so does a later hit. Premise: each read of the store is of one version.
fn fill_against_change() {
    let store = Others::new(TWO, false);
    let file = open(&store, TWO);
    assert!(cache_page(&file.mapping, 0, OLD));
    let history: History<Versions> = History::new(vec![(OLD, TWO)]);
    let writer = {
        let (store, history) = (Arc::clone(&store), history.clone());
        spawn(move || {
            history.call(
                "write",
                || store.write(TWO),
                |versions, ()| {
                    versions.push((NEW, TWO));
                    true
                },
            );
        })
    };
    history.call("read", || pread(&file), existed);
    history.call("read again", || read_cached(&file), existed);
    writer.join().unwrap();
    history.check();
}

#[test]
fn a_fill_against_a_change() {
    Model {
        name: "read of two pages against a change",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: fill_against_change,
        reaches: &["old", "new"],
        needs: &["fill.one_version", "read.one_version", "fill.looks_last"],
    }
    .check();
}

/// A page is read while another thread follows an append, brings in the page that is new, and then writes another version, which is
/// not looked at. Claim: what is cached afterwards is of one version. Premise as above.
fn fill_against_growth_and_change() {
    let store = Others::new(PAGE_SIZE + 10, true);
    let file = open(&store, PAGE_SIZE + 10);
    let history: History<Versions> = History::new(vec![(OLD, PAGE_SIZE + 10)]);
    let writer = {
        let (file, store, history) = (Arc::clone(&file), Arc::clone(&store), history.clone());
        spawn(move || {
            let follow = || {
                store.append(TWO);
                follow_changes(&file.mapping).unwrap();
                cache_page(&file.mapping, 1, OLD)
            };
            history.call("append and follow", follow, |versions, &cached| {
                versions.push((OLD, TWO));
                cached
            });
            store.write(TWO);
            // Before the fill checks again.
            history.call("read together", || read_cached(&file), existed);
        })
    };
    assert_eq!(buffered_read(&file, Out::from(&mut [0; PAGE_SIZE][..]), 0).unwrap(), PAGE_SIZE);
    writer.join().unwrap();
    history.call("read together again", || read_cached(&file), existed);
    history.check();
}

#[test]
fn big_fill_against_growth_and_a_change() {
    Model {
        name: "read of a page against growth that is followed, and a change",
        rows: &[],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: fill_against_growth_and_change,
        reaches: &["old", "nothing"],
        needs: &["fill.grown"],
    }
    .check();
}

/// Two pages are read, of which the first is cached, while another thread finds that the store has another version. Claim: a read
/// returns one of the two versions, whole. Premise as above.
fn read_against_finder() {
    let store = Others::new(TWO, false);
    let file = open(&store, TWO);
    assert!(cache_page(&file.mapping, 0, OLD));
    let history: History<Versions> = History::new(vec![(OLD, TWO)]);
    let finder = {
        let (file, store, history) = (Arc::clone(&file), Arc::clone(&store), history.clone());
        spawn(move || {
            history.call(
                "write and find",
                || {
                    store.write(TWO);
                    follow_changes(&file.mapping).unwrap();
                },
                |versions, ()| {
                    versions.push((NEW, TWO));
                    true
                },
            );
        })
    };
    history.call("read", || pread(&file), existed);
    finder.join().unwrap();
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn big_a_read_against_a_change_that_another_finds() {
    Model {
        name: "read of two pages against a change that another finds",
        rows: &[],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: read_against_finder,
        reaches: &["old", "new"],
        needs: &["read.one_version"],
    }
    .check();
}

/// Another program writes in two steps, and the time changes with the first. The pages are read one by one and then, if they are
/// cached, together. Claim: what is read together is one of the two versions. Premise: a write has ended when its time is old,
/// which it never is here.
fn hit_of_a_young_version() {
    let store = Others::new(TWO, true);
    let file = open(&store, TWO);
    let history: History<Versions> = History::new(vec![(OLD, TWO)]);
    let writer = {
        let (store, history) = (Arc::clone(&store), history.clone());
        spawn(move || {
            let write = || {
                store.begin();
                store.end();
            };
            history.call("write", write, |versions, ()| {
                versions.push((NEW, TWO));
                true
            });
        })
    };
    for page in [0, PAGE] {
        assert_eq!(buffered_read(&file, Out::from(&mut [0; PAGE_SIZE][..]), page).unwrap(), PAGE_SIZE);
    }
    history.call("read together", || read_cached(&file), existed);
    history.call("read", || pread(&file), existed);
    writer.join().unwrap();
    history.check();
}

#[test]
fn a_hit_of_a_young_version() {
    Model {
        name: "hit of a version that is being written",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: hit_of_a_young_version,
        reaches: &["old", "nothing", "stale"],
        needs: &["read_cached.young"],
    }
    .check();
}
