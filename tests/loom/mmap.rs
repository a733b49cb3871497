//! Models of the changes of mappings against truncation, which reaches page tables by the file's list of mappings.

use super::Mm;
use super::mmap::{Madvise, Prot};
use super::models::{PAGE, mapped};
use crate::loom_harness::{History, Model, reach, spawn};

/// One thread changes mappings of two mapped pages, one truncates the file to nothing. Claims: truncation finds every entry
/// (a page that leaves the cache is mapped nowhere), and nothing is left. Premise: a range that may have entries is on the
/// file's list, whole.
fn against_truncate(prepare: fn(&Mm, u64), change: fn(&Mm, u64)) {
    let (mm, file, at) = mapped(2, Prot::Read, true);
    prepare(&mm, at);
    for page in 0..2 {
        mm.inner.fault_speculatively(at + page * PAGE, false).expect("nobody interferes");
    }
    // How many of the two pages have entries.
    let history = History::new(2_usize);
    let changer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || history.call("change", || change(&mm, at), |_, ()| true))
    };
    let open = file.open_file().unwrap();
    let truncate = || {
        open.mapping.shrink_pages(0);
        reach("truncated");
    };
    history.call("truncate", truncate, |entries, ()| {
        *entries = 0;
        true
    });
    changer.join().unwrap();
    history.settle();
    let count = || mm.pagemap(at, 2 * PAGE).unwrap().iter().filter(|&&entry| entry != 0).count();
    history.call("count the entries", count, |entries, seen| entries == seen);
    history.check();
    assert_eq!(mm.inner.shared.frames.usage().in_use, 0, "a frame of a truncated page is in use");
}

fn nothing(_: &Mm, _: u64) {}

/// Splits the mapping between its pages.
fn split(mm: &Mm, at: u64) {
    mm.madvise(at, PAGE, Madvise::Random).unwrap();
}

/// Makes the two mappings alike, so that they merge.
fn merge(mm: &Mm, at: u64) {
    mm.madvise(at, PAGE, Madvise::Normal).unwrap();
}

#[test]
fn big_munmap_against_truncate() {
    Model {
        name: "munmap against truncate",
        rows: &[20],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || against_truncate(nothing, |mm, at| mm.munmap(at, 2 * PAGE).unwrap()),
        reaches: &["truncated"],
        needs: &["munmap.seed.unlink_first"],
    }
    .check();
}

#[test]
fn split_against_truncate() {
    Model {
        name: "split of a mapping against truncate",
        rows: &[20],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || against_truncate(nothing, split),
        reaches: &["truncated"],
        needs: &["split.seed.shrinks_first", "vma.move_end.seed.off_the_list"],
    }
    .check();
}

#[test]
fn big_merge_against_truncate() {
    Model {
        name: "merge of mappings against truncate",
        rows: &[20],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || against_truncate(split, merge),
        reaches: &["truncated"],
        needs: &["merge.seed.unlinks_first"],
    }
    .check();
}
