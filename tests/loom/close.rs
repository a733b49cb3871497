//! Models of the end of an open file: against the calls that use it, and against another open in its place.

use super::super::Advice;
use super::*;
use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;

/// A file of one cached page.
fn one_page() -> (Arc<Shared>, File) {
    let shared = Shared::new(4, Io::Inline).unwrap();
    let store = Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE]));
    let file = File::in_memory(&shared, store, PAGE);
    cache_page(&file.open_file().unwrap().mapping, 0, OURS);
    (shared, file)
}

/// Closes the file. The state is whether it is open.
fn close(file: &File, history: &History<bool>) {
    history.call("close", || file.close().unwrap(), |open, ()| std::mem::replace(open, false));
}

/// Whether a call found the file open.
fn found_open<T>(answer: Result<T>) -> bool {
    let open = match answer {
        Ok(_) => true,
        Err(Error::Closed(_)) => false,
        Err(error) => panic!("{error}"),
    };
    reach(if open { "open" } else { "closed" });
    open
}

/// One thread closes the file; one makes `call`. Claims: the call finds the file open or closed, as a whole; no lock and no
/// reference is left. Premise: who uses the file counts as a user of it.
fn close_against(call: fn(&File) -> Result<()>) {
    let (shared, file) = one_page();
    let history = History::new(true);
    let closer = {
        let (file, history) = (file.clone(), history.clone());
        spawn(move || close(&file, &history))
    };
    history.call("call", || found_open(call(&file)), |open, found| open == found);
    closer.join().unwrap();
    history.settle();
    history.call("call at rest", || found_open(call(&file)), |open, found| open == found);
    history.check();
    drop(file);
    shared.frames.audit(&[]).unwrap();
}

fn check(name: &'static str, body: fn()) {
    Model {
        name,
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body,
        reaches: &["open", "closed"],
        needs: &[],
    }
    .check();
}

#[test]
fn a_close_against_a_read() {
    check("close of a file against a read", || {
        close_against(|file| {
            let mut bytes = [0; PAGE_SIZE];
            let read = file.pread(&mut bytes, 0);
            assert!(read.is_err() || bytes == [OURS; PAGE_SIZE]);
            read.map(drop)
        });
    });
}

#[test]
fn a_close_against_a_fault() {
    check("close of a file against a fault", || {
        close_against(|file| file.filemap_fault(0, false).map(drop));
    });
}

#[test]
fn a_close_against_a_truncation() {
    check("close of a file against truncation", || {
        close_against(|file| file.truncate(PAGE / 2));
    });
}

#[test]
fn a_close_against_readahead() {
    check("close of a file against readahead", || {
        close_against(|file| file.advise(Advice::WillNeed, 0, None));
    });
}

#[test]
fn a_close_against_a_revalidation() {
    check("close of a file against a look at its store", || {
        close_against(|file| file.revalidate().map(drop));
    });
}

/// One thread closes the file; one finds that its path names another one now, and puts an open of that in its place. Claim: what
/// was closed stays closed. Premise: none.
fn close_against_reopening() {
    let (shared, file) = one_page();
    let history = History::new(true);
    let closer = {
        let (file, history) = (file.clone(), history.clone());
        spawn(move || close(&file, &history))
    };
    let reopen = || {
        let Ok(open) = file.open_file() else { return found_open::<()>(Err(Error::Closed(String::new()))) };
        let another = open.again(Arc::clone(&open.mapping), Arc::clone(open.store()));
        let reopened = file.reopen(&open, another);
        reach(if reopened { "open" } else { "closed" });
        reopened
    };
    history.call("reopen", reopen, |open, reopened| open == reopened);
    closer.join().unwrap();
    history.settle();
    history.call("look", || file.is_closed(), |open, closed| open != closed);
    history.check();
    drop(file);
    shared.frames.audit(&[]).unwrap();
}

#[test]
fn a_close_against_a_reopening() {
    Model {
        name: "close of a file against another open in its place",
        rows: &[],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: close_against_reopening,
        reaches: &["open", "closed"],
        needs: &["rcu.cell.is_expected"],
    }
    .check();
}

/// One thread puts an open of another file in the place of ours; one reads without a lock. Claim: our file has no user any more when the
/// call returns, and so no page. Premise: a hit holds no reference.
fn reopening_against_hit() {
    let (shared, file) = one_page();
    // Whether the file is ours.
    let history = History::new(true);
    let reader = {
        let (file, history) = (file.clone(), history.clone());
        spawn(move || {
            let hit = || {
                let mut bytes = [0; PAGE_SIZE];
                let hit = file.read_cached(&mut bytes, 0);
                reach(if hit.is_some() { "ours" } else { "another" });
                hit.is_some()
            };
            history.call("hit", hit, |ours, hit| ours == hit);
        })
    };
    let reopen = || {
        let open = file.open_file().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(vec![STRANGERS; PAGE_SIZE]));
        let mapping = new_mapping(&shared, &store, PAGE, "another".as_ref());
        file.reopen(&open, open.again(mapping, store))
    };
    history.call("reopen", reopen, |ours, &reopened| reopened && std::mem::replace(ours, false));
    history.call("pages", || shared.frames.usage().in_use, |_, &pages| pages == 0);
    reader.join().unwrap();
    history.check();
}

#[test]
fn a_reopening_against_a_hit() {
    Model {
        name: "another open in a file's place against a hit",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: reopening_against_hit,
        reaches: &["ours", "another"],
        needs: &["reopen.barrier", "reopen.barrier_last"],
    }
    .check();
}

/// One thread closes the file; one reads it without a lock. Claim: the last user gone, a close leaves no page. Premise: a hit holds
/// no reference.
fn close_against_hit() {
    let (shared, file) = one_page();
    let history = History::new(true);
    let reader = {
        let (file, history) = (file.clone(), history.clone());
        spawn(move || {
            let hit = || {
                let mut bytes = [0; PAGE_SIZE];
                let hit = file.read_cached(&mut bytes, 0);
                reach(if hit.is_some() { "open" } else { "closed" });
                assert!(hit.is_none() || bytes == [OURS; PAGE_SIZE]);
                hit.is_some()
            };
            history.call("hit", hit, |open, hit| open == hit);
        })
    };
    close(&file, &history);
    history.call("pages", || shared.frames.usage().in_use, |_, &pages| pages == 0);
    reader.join().unwrap();
    history.check();
}

#[test]
fn a_close_against_a_hit() {
    Model {
        name: "close of a file against a hit",
        rows: &[],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: close_against_hit,
        reaches: &["open", "closed"],
        needs: &["close.barrier"],
    }
    .check();
}
