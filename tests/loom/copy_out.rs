//! Models of copies without a reference: against removal and reuse, zeroing, growth, and the read that fills the page.

use super::super::address_space::Created;
use super::super::copy_out::copy_out;
use super::super::copy_out::read_cached;
use super::super::fill::read_page;
use super::super::size_change::change_size;
use super::*;
use crate::page::Out;

/// Copies our page out: returns the byte that fills it, unless the attempt failed.
pub(super) fn copy(ours: &AddressSpace) -> Option<u8> {
    let mut buf = [0; PAGE_SIZE];
    match copy_out(ours, 0, Out::from(&mut buf[..]), Marked::Refuse, Short::Refuse, &rcu::read()) {
        CopyOut::Copied(_) => {
            reach("copied");
            assert_eq!(buf, [buf[0]; PAGE_SIZE], "two lives in one copy");
            Some(buf[0])
        }
        CopyOut::Unavailable => {
            reach("unavailable");
            None
        }
        CopyOut::Changed => {
            reach("changed");
            assert_eq!(buf, [0; PAGE_SIZE], "a failed attempt leaves nothing");
            None
        }
    }
}

/// An attempt may always fail.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "as histories pass answers")]
pub(super) fn copied_is_right(page: &mut Option<u8>, copied: &Option<u8>) -> bool {
    copied.is_none() || copied == page
}

#[derive(Clone, Copy)]
enum Removal {
    Evict,
    Truncate,
}

/// One thread copies our page out without a reference; one removes it, overwrites the frame as its next owner would, and caches
/// it again in the same slot with other bytes. Claim: a copy that is accepted is all of one life of the page. Premise: a remover
/// changes slot and mapping, then the generation, then bytes. (If the slot stayed different, the second check of the slot would
/// be enough; only the generation shows that it changed twice.)
fn copy_against_reuse(removal: Removal) {
    let (ours, _) = two_files(1);
    let history = History::new(Some(OURS));
    let remover = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        let pfn = hold(&ours).into_pfn();
        spawn(move || {
            let handle = ours.frames().page(pfn).adopt();
            let remove = || match removal {
                Removal::Evict => {
                    drop(handle);
                    assert!(remove(&ours), "a copier has no reference");
                }
                Removal::Truncate => assert!(truncate_found(&ours, handle.into_pfn())),
            };
            history.call("remove", remove, |page, ()| page.take().is_some());
            history.call(
                "cache",
                || cache_page(&ours, 0, STRANGERS),
                |page, &cached| cached && page.replace(STRANGERS).is_none(),
            );
        })
    };
    history.call("copy", || copy(&ours), copied_is_right);
    remover.join().unwrap();
    history.settle();
    history.call("copy at rest", || copy(&ours), |page, copied| copied == page);
    history.check();
}

#[test]
fn big_copy_out_against_removal_and_reuse() {
    Model {
        name: "copy-out against removal and reuse",
        rows: &[49, 52],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || copy_against_reuse(Removal::Evict),
        reaches: &["copied", "unavailable", "changed"],
        needs: &[
            "remove_mapping.generation",
            "copy_out.slot",
            "remove_mapping.generation_last",
            "copy_out.generation_first",
        ],
    }
    .check();
}

#[test]
fn big_copy_out_against_truncation_and_reuse() {
    Model {
        name: "copy-out against truncation and reuse",
        rows: &[49, 52],
        preemption_bound: Some(3),
        grace_periods: false,
        twin: false,
        body: || copy_against_reuse(Removal::Truncate),
        reaches: &["copied", "unavailable", "changed"],
        needs: &["delete.generation", "delete.generation_last"],
    }
    .check();
}

/// One thread copies our page out; one evicts it and makes its frame a private copy of another page. Claim and premise as
/// above.
fn copy_against_private_copy() {
    let (ours, strangers) = two_files(2);
    cache_page(&strangers, 0, STRANGERS);
    let history = History::new(Some(OURS));
    let remover = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            let remove = || assert!(remove(&ours), "a copier has no reference");
            history.call("remove", remove, |page, ()| page.take().is_some());
            let private = ours.frames().alloc(Use::Private).expect("one is free");
            private.page().bytes().copy_from(hold(&strangers).page().bytes());
            reach("reused");
        })
    };
    history.call("copy", || copy(&ours), copied_is_right);
    remover.join().unwrap();
    history.settle();
    history.call("copy at rest", || copy(&ours), |page, copied| copied == page);
    history.check();
}

#[test]
fn copy_out_against_a_private_copy() {
    Model {
        name: "copy-out against a private copy in its frame",
        rows: &[49],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: copy_against_private_copy,
        reaches: &["copied", "unavailable", "changed", "reused"],
        needs: &["page.bytes.copy.fence"],
    }
    .check();
}

/// One thread copies the whole page out; one truncates the file to half of it and zeroes the tail. Claim: a copy that is
/// accepted is the page as it was: never half zeros. Premise: a zeroer changes the size, then the generation, then bytes.
fn copy_against_zeroing() {
    let (ours, _) = two_files(1);
    let history = History::new(Some(OURS));
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            let truncate = || change_size(&ours, PAGE / 2, None, |_| Ok(())).unwrap();
            history.call("truncate", truncate, |page, ()| page.take().is_some());
        })
    };
    history.call("copy", || copy(&ours), copied_is_right);
    truncater.join().unwrap();
    history.settle();
    history.call("copy at rest", || copy(&ours), |page, copied| copied == page);
    history.check();
}

#[test]
fn copy_out_against_zeroing() {
    Model {
        name: "copy-out against zeroing of the tail",
        rows: &[50],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: copy_against_zeroing,
        reaches: &["copied", "unavailable", "changed"],
        needs: &[
            "copy_out.size",
            "truncate.size_first",
            "zero_tail.generation",
            "page.generation.check",
            "page.generation.fence",
            "page.generation.acquire",
            "page.advance.release",
            "page.bytes.fence",
            "zero_tail.generation_first",
        ],
    }
    .check();
}

/// One thread reads the file from its beginning; one cuts it to half a page and lets it grow by a quarter. Claim: the part by which
/// the file has grown reads as zeros: a thread that sees the size sees the bytes. Premise: bytes change before the size that shows
/// them.
fn read_against_growth() {
    const HALF: u64 = PAGE / 2;
    const GROWN: u64 = PAGE * 3 / 4;
    let (ours, _) = two_files(1);
    // The state is the file.
    let history = History::new(vec![OURS; PAGE_SIZE]);
    let grower = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            for size in [HALF, GROWN] {
                let resize = || change_size(&ours, size, None, |_| Ok(())).unwrap();
                history.call("resize", resize, move |file, ()| {
                    file.resize(size as usize, 0);
                    true
                });
            }
        })
    };
    let read = || {
        let mut buf = [0; PAGE_SIZE];
        let n = read_cached(&ours, Out::from(&mut buf[..]), 0, Short::Serve, &rcu::read());
        reach(n.map_or("nothing".into(), |n| format!("{n} bytes")));
        n.map(|n| buf[..n].to_vec())
    };
    history.call("read", read, |file, answer| answer.is_none() || answer.as_ref() == Some(file));
    grower.join().unwrap();
    history.settle();
    history.call("read at rest", read, |file, answer| answer.as_ref() == Some(file));
    history.check();
}

#[test]
fn a_read_against_growth() {
    Model {
        name: "read against growth",
        rows: &[50, 52],
        preemption_bound: Some(7),
        grace_periods: false,
        twin: false,
        body: read_against_growth,
        reaches: &["nothing", "8 bytes", "12 bytes", "16 bytes"],
        needs: &["i_size.acquire", "i_size.release"],
    }
    .check();
}

/// One thread copies out a page that another fills from the store: no reference, no lock. Claim: a copy that is accepted is of
/// the file's bytes, never of what the frame held before. Premise: the page is up to date only after it was filled.
fn copy_against_read() {
    let (ours, strangers) = two_files(1);
    assert!(remove(&ours));
    let Created::New(held) = strangers.add_page(0) else { panic!("the frame is free") };
    let pfn = held.lock.into_pfn();
    drop(held.handle);
    let history = History::new(None);
    let copier = {
        let (strangers, history) = (Arc::clone(&strangers), history.clone());
        spawn(move || history.call("copy", || copy(&strangers), copied_is_right))
    };
    let read = || {
        let lock = strangers.frames().page(pfn).adopt_lock();
        read_page(&strangers, &lock, 0).unwrap();
    };
    history.call("read", read, |page, ()| page.replace(STRANGERS).is_none());
    copier.join().unwrap();
    history.settle();
    history.call("copy at rest", || copy(&strangers), |page, copied| copied == page);
    history.check();
}

#[test]
fn copy_out_against_the_read_that_fills() {
    Model {
        name: "copy-out against the read that fills the page",
        rows: &[19],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: copy_against_read,
        reaches: &["copied", "unavailable"],
        needs: &["copy_out.uptodate", "page.uptodate.release", "page.flags.acquire", "fill.bytes_first"],
    }
    .check();
}

/// One thread reads the file from its beginning; one cuts it in half, and the page is filled from the store, which is still whole,
/// after the size has changed. Claim: a read that finds the page up to date finds the size for which it was filled. Premise: a fill
/// loads the size before it reads.
fn read_against_a_cut_that_is_filled_for() {
    const HALF: u64 = PAGE / 2;
    let file = open_file(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])));
    let Created::New(held) = file.mapping.add_page(0) else { panic!("a frame is free") };
    drop(held);
    // The state is the file.
    let history = History::new(vec![OURS; PAGE_SIZE]);
    let cutter = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let fill_and_cut = |size| {
                read_page(&file.mapping, &hold(&file.mapping).page().lock(), 0).unwrap();
                file.store().truncate(size)
            };
            let cut = || change_size(&file.mapping, HALF, None, fill_and_cut).unwrap();
            history.call("cut", cut, |file, ()| {
                file.truncate(HALF as usize);
                true
            });
        })
    };
    let read = || {
        let mut buf = [0; PAGE_SIZE];
        let n = read_cached(&file.mapping, Out::from(&mut buf[..]), 0, Short::Serve, &rcu::read());
        reach(n.map_or("nothing".into(), |n| format!("{n} bytes")));
        n.map(|n| buf[..n].to_vec())
    };
    history.call("read", read, |file, answer| answer.is_none() || answer.as_ref() == Some(file));
    cutter.join().unwrap();
    history.settle();
    history.call("read at rest", read, |file, answer| answer.as_ref() == Some(file));
    history.check();
}

#[test]
fn big_a_read_against_a_cut_of_a_page_that_is_filled() {
    Model {
        name: "read against a cut of a page that is being filled",
        rows: &[19, 50],
        preemption_bound: Some(7),
        grace_periods: false,
        twin: false,
        body: read_against_a_cut_that_is_filled_for,
        reaches: &["nothing", "8 bytes"],
        needs: &[
            "copy_out.uptodate",
            "truncate.size_first",
            "page.uptodate.release",
            "page.flags.acquire",
            "fill.bytes_first",
        ],
    }
    .check();
}
