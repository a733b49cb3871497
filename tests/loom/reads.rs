//! Models of calls that read at several offsets, and of reads past the cache.

use super::super::coherence::{adopt, follow_changes};
use super::super::direct_read::read_twice;
use super::super::one_version;
use super::coherence::{Answer, NEW, OLD, Others, TWO, Versions, existed, handle, told};
use super::*;
use crate::error::Error;
use crate::page::Out;
use crate::store::Look;
use crate::sync::Mutex;

const ROWS: [u64; 2] = [0, PAGE];

/// Two rows in two pages, of which the first is cached, are gathered without a lock, while another thread finds that the store has
/// another version, and caches its last page. Claim: all rows that are served are of one of the two versions. Premise: pages leave
/// under `invalidate_lock`.
fn cached_rows_against_change() {
    let store = Others::new(TWO, false);
    let file = handle(&store, TWO);
    let mapping = Arc::clone(&file.open_file().unwrap().mapping);
    assert!(cache_page(&mapping, 0, OLD));
    store.write(TWO);
    let history: History<Versions> = History::new(vec![(OLD, TWO)]);
    let finder = {
        let (mapping, history) = (Arc::clone(&mapping), history.clone());
        spawn(move || {
            let find = || {
                adopt(&mapping, false).unwrap();
                cache_page(&mapping, 1, NEW)
            };
            history.call("find the change", find, |versions, &cached| {
                versions.push((NEW, TWO));
                cached
            });
        })
    };
    let gather = || {
        let mut rows = [0; TWO];
        let n = file.gather_cached(&ROWS, PAGE_SIZE, &mut rows).unwrap();
        reach(format!("{n} rows"));
        (n > 0).then(|| (told(&rows[..n * PAGE_SIZE]).0, TWO))
    };
    history.call("gather", gather, existed);
    finder.join().unwrap();
    history.check();
    mapping.frames().audit(&[]).unwrap();
}

#[test]
fn big_a_gather_of_cached_rows_against_a_change() {
    Model {
        name: "gather of cached rows against a change that is found",
        rows: &[],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: cached_rows_against_change,
        reaches: &["0 rows", "1 rows"],
        needs: &["gather_cached.one_version"],
    }
    .check();
}

/// Two rows in two pages, of which the first is cached, are gathered while another thread finds that the store has another version.
/// Claim and premise as above.
fn rows_against_change() {
    let store = Others::new(TWO, false);
    let file = handle(&store, TWO);
    let mapping = Arc::clone(&file.open_file().unwrap().mapping);
    assert!(cache_page(&mapping, 0, OLD));
    let history: History<Versions> = History::new(vec![(OLD, TWO)]);
    let finder = {
        let (mapping, store, history) = (Arc::clone(&mapping), Arc::clone(&store), history.clone());
        spawn(move || {
            let find = || {
                store.write(TWO);
                follow_changes(&mapping).unwrap();
            };
            history.call("write and find", find, |versions, ()| {
                versions.push((NEW, TWO));
                true
            });
        })
    };
    let gather = || {
        let mut rows = [0; TWO];
        match file.gather(&ROWS, PAGE_SIZE, &mut rows) {
            Ok(()) => Some(told(&rows)),
            Err(Error::Io(error)) if error.is_change() => None,
            Err(error) => panic!("{error}"),
        }
    };
    history.call("gather", gather, existed);
    finder.join().unwrap();
    history.check();
    mapping.frames().audit(&[]).unwrap();
}

#[test]
fn big_a_gather_against_a_change() {
    Model {
        name: "gather against a change that another finds",
        rows: &[],
        preemption_bound: Some(2),
        grace_periods: false,
        twin: false,
        body: rows_against_change,
        reaches: &["old", "new"],
        needs: &["read.one_version"],
    }
    .check();
}

/// A store whose bytes are all of one or all of another byte, and that may say how often that has changed.
struct Flips {
    file: Mutex<(u8, u64)>,
    says: bool,
}

impl Flips {
    fn flip(&self) {
        let mut file = self.file.lock();
        *file = (OLD + NEW - file.0, file.1 + 1);
    }
}

impl Store for Flips {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        buf.fill(self.file.lock().0);
        Ok(buf.len())
    }

    fn look(&self) -> std::io::Result<Look> {
        let flips = self.file.lock().1;
        Ok(if self.says {
            Look { size: Some(TWO as u64), version: Some(flips), changed: None }
        } else {
            Look::default()
        })
    }
}

/// Two rows are read past the cache, twice, while another program writes `flips` times. Claim: they are of one version. Premise:
/// each read of the store is of one version.
fn twice_against_writes(says: bool, flips: u32) {
    let store = Arc::new(Flips { file: Mutex::new((OLD, 0)), says });
    let shared = Shared::new(4, Io::Inline).unwrap();
    let file =
        File::in_memory(&shared, Arc::clone(&store) as Arc<dyn Store>, TWO as u64).open_file().unwrap();
    let history: History<Versions> = History::new(vec![(OLD, TWO)]);
    let writer = {
        let (store, history) = (Arc::clone(&store), history.clone());
        spawn(move || {
            let write = || (0..flips).for_each(|_| store.flip());
            history.call("write", write, |versions, ()| {
                versions.push((NEW, TWO));
                true
            });
        })
    };
    let read = || {
        let mut rows = [0; TWO];
        let mut call = one_version::one_version_now(&file.mapping).expect("it is not young");
        let read = read_twice(&file, &mut call, &ROWS, PAGE_SIZE, Out::from(&mut rows[..])).unwrap();
        if read.is_none() {
            reach("nothing");
        }
        read.map(|_| told(&rows))
    };
    history.call("read twice", read, move |versions: &mut Versions, answer: &Answer| {
        existed(versions, answer) || (flips > 1 && *answer == Some((NEW, TWO)))
    });
    writer.join().unwrap();
    history.check();
}

#[test]
fn a_direct_read_against_a_write() {
    Model {
        name: "read past the cache against a write that nobody reports",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || twice_against_writes(false, 1),
        reaches: &["old", "new", "nothing"],
        needs: &["read_twice.agree"],
    }
    .check();
}

#[test]
fn a_direct_read_against_writes_that_come_back() {
    Model {
        name: "read past the cache against writes to and fro",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || twice_against_writes(true, 3),
        reaches: &["old", "nothing"],
        needs: &["read_twice.stood_still"],
    }
    .check();
}
