//! Models of mappings: copies of them, writers, and their end.

use super::super::mmap_lock::MmapWrite;
use super::super::vma::{VmFlags, Vma};
use super::*;

/// One thread finds a mapping, copies it and checks the sequence, as at the beginning of a speculative fault; one moves the
/// mapping's end and changes its flags. Claim: a copy that is accepted is one version of the mapping and holds the address, never
/// parts of two. Premise: fields change only inside an odd sequence.
fn copy_against_a_writer() {
    let (mm, file, below) = one_page(Prot::Read, true);
    let at = mm.mmap(&file, Some(3 * PAGE), 0, Prot::Read, true).unwrap();
    mm.munmap(below, PAGE).unwrap();
    let vma = Arc::clone(&mm.inner.vmas.load(&rcu::read())[0]);
    let set = |vma: &Arc<Vma>, (end, flags): (u64, VmFlags), lock: &MmapWrite<'_>| {
        vma.move_end(end, lock);
        vma.set_flags(flags, lock);
    };
    let flags = vma.copy().flags;
    let [before, after] = [(at + 3 * PAGE, flags), (at + 2 * PAGE, flags.with(VmFlags::RAND_READ))];
    let history = History::new(before);
    let writer = {
        let (mm, vma, history) = (mm.clone(), Arc::clone(&vma), history.clone());
        spawn(move || {
            let change = || set(&vma, after, &mm.inner.lock.write());
            history.call("change", change, move |now, ()| std::mem::replace(now, after) == before);
        })
    };
    let copy = |address| {
        let section = rcu::read();
        let found = mm.inner.find_and_copy(address, false, &section);
        let found = found.map(|(vma, _)| (vma.end, vma.flags));
        match found {
            Ok(_) => reach("copied"),
            Err(cause) => reach(cause),
        }
        found
    };
    // A torn copy is no version at all.
    history.call("copy", || copy(at + PAGE), |now, copied| copied.is_err() || *copied == Ok(*now));
    writer.join().unwrap();
    history.settle();
    history.call("copy at rest", || copy(at + PAGE), |now, copied| *copied == Ok(*now));
    history.call("copy below", || copy(below), |_, copied| *copied == Err(Abort::Unmapped));
    history.check();
    drop((mm, file));
}

#[test]
fn big_a_copied_mapping_is_one_version() {
    Model {
        name: "copy of a mapping against a writer",
        rows: &[1, 2, 5],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: copy_against_a_writer,
        reaches: &["copied", "VMA_COPY", "ODD", "UNMAPPED"],
        needs: &[
            "seq.start.acquire",
            "seq.start.even",
            "seq.check.fence",
            "seq.check.fence_first",
            "seq.begin.fence",
            "seq.begin.odd_first",
            "seq.end.release",
            "spf.vma_copy",
            "spf.mapped",
            "spf.seed.live_vma",
            "mmap_lock.write.odd",
        ],
    }
    .check();
}

/// Two writers. Claim: the sequence counts both, so no reader between them takes one for the other. Premise: the sequence is
/// even again before the next writer is let in.
fn two_writers() {
    let (mm, file, _) = one_page(Prot::Read, true);
    let start = mm.inner.lock.sequence.read_start();
    let history = History::new(start);
    let write = |history: &History<Option<u64>>, mm: &Mm| {
        history.call(
            "write",
            || drop(mm.inner.lock.write()),
            |sequence, ()| {
                *sequence = sequence.map(|sequence| sequence + 2);
                true
            },
        );
    };
    let other = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || write(&history, &mm))
    };
    write(&history, &mm);
    other.join().unwrap();
    history.settle();
    history.call("read", || mm.inner.lock.sequence.read_start(), |sequence, seen| seen == sequence);
    history.check();
    drop((mm, file));
}

#[test]
fn two_writers_of_the_sequence() {
    Model {
        name: "two writers of the sequence",
        rows: &[2],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: two_writers,
        reaches: &[],
        needs: &["mmap_lock.seed.unlock_first", "mmap_lock.odd_inside"],
    }
    .check();
}

/// One thread finds a mapping and touches its file in a read section; one removes the mapping and drops it. Claim: mapping and
/// file are alive until the section ends. Premise: what the array held is dropped after a grace period.
fn find_against_free() {
    let (mm, file, at) = one_page(Prot::Read, true);
    drop(file);
    let history = History::new(true);
    let freer = {
        let (mm, history) = (mm.clone(), history.clone());
        spawn(move || {
            let free = || {
                mm.inner.vmas.load(&rcu::read())[0].unlink();
                mm.inner.vmas.publish(Vec::new(), &mm.inner.lock.write());
                rcu::synchronize();
            };
            history.call("free", free, |there, ()| std::mem::replace(there, false));
        })
    };
    let find = || {
        let section = rcu::read();
        let found = mm.inner.find_and_copy(at, false, &section);
        match found {
            Ok((vma, _)) => {
                reach("found");
                assert_eq!(vma.file().mapping.pages_in_file(), 1);
            }
            Err(cause) => reach(cause),
        }
        found.is_ok()
    };
    history.call("find", find, |there, found| !found || *there);
    freer.join().unwrap();
    history.settle();
    history.call("find at rest", find, |there, found| found == there);
    history.check();
}

#[test]
fn a_found_mapping_is_alive() {
    Model {
        name: "finding a mapping against its end",
        rows: &[10, 12],
        preemption_bound: None,
        grace_periods: true,
        twin: false,
        body: find_against_free,
        reaches: &["found", "UNMAPPED"],
        needs: &["vmas.seed.freed_at_once"],
    }
    .check();
}
