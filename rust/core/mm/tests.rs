//! An address space beside a map of pages: what is mapped where, what each page holds, and what a call that fails leaves behind.

use super::events::{Event, Events};
use super::mmap::{Madvise, Prot};
use super::page_table::{TABLE_BYTES, TASK_SIZE};
use super::vma::{VmFlags, Vma};
use super::{Locking, Mm, MmOptions, TouchReport};
use crate::cache::filemap::Pattern;
use crate::cache::{Abort, OpenFile, VmFault};
use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;
use crate::store::{MemoryStore, Store};
use crate::{File, Io, PageCache, StoreOptions};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

pub(super) const PAGE: u64 = PAGE_SIZE as u64;
/// Where the first mapping goes.
pub(super) const FIRST: u64 = 0x1_0000;
/// Pages of a file, and those that hold its last bytes.
pub(super) const FILE: u64 = 8;
/// Pages of addresses that steps choose from, and that they look at.
const CHOSEN: u64 = 14;
const LOOKED_AT: u64 = 260;

/// What every byte of a page of a file is.
pub(super) fn byte(file: usize, index: u64) -> u8 {
    (1 + 100 * file as u64 + index) as u8
}

pub(super) fn open(cache: &PageCache, number: usize) -> File {
    let bytes = (0..FILE).flat_map(|index| [byte(number, index); PAGE_SIZE]).collect();
    let store = Arc::new(MemoryStore::new(bytes));
    cache.open_store_with(store, FILE * PAGE, StoreOptions::default().ra_pages(0)).unwrap()
}

/// Pages from `page` on, the last of them perhaps only in part.
#[derive(Debug, Clone, Copy)]
struct Span {
    page: u64,
    pages: u64,
    short: u64,
}

impl Span {
    fn address(self) -> u64 {
        FIRST + self.page * PAGE
    }
    fn length(self) -> u64 {
        self.pages * PAGE - self.short
    }
    fn all(self) -> std::ops::Range<u64> {
        self.page..self.page + self.pages
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Map { file: usize, index: u64, of: Span, prot: Prot, shared: bool },
    Unmap(Span),
    Protect(Span, Prot),
    Advise(Span, Madvise),
    Load(u64),
    Store(u64, u8),
}

fn steps() -> impl Strategy<Value = Step> {
    let short = prop_oneof![Just(0), Just(PAGE - 1), 0..PAGE];
    let span = || {
        let short = prop_oneof![Just(0), Just(PAGE - 1), 0..PAGE];
        (0..CHOSEN, 1..6_u64, short).prop_map(|(page, pages, short)| Span { page, pages, short })
    };
    let prot = || prop_oneof![Just(Prot::Read), Just(Prot::ReadWrite)];
    let map = (0..2_usize, 0..FILE, 1..7_u64, short, prot(), any::<bool>());
    let advice = prop_oneof![
        Just(Madvise::Normal),
        Just(Madvise::Random),
        Just(Madvise::Sequential),
        Just(Madvise::DontNeed),
        Just(Madvise::WillNeed),
    ];
    prop_oneof![
        4 => map.prop_map(|(file, index, pages, short, prot, shared)| {
            Step::Map { file, index, of: Span { page: 0, pages, short }, prot, shared }
        }),
        2 => span().prop_map(Step::Unmap),
        2 => (span(), prot()).prop_map(|(span, prot)| Step::Protect(span, prot)),
        3 => (span(), advice).prop_map(|(span, advice)| Step::Advise(span, advice)),
        3 => (0..CHOSEN).prop_map(Step::Load),
        4 => (0..CHOSEN, any::<u8>()).prop_map(|(page, value)| Step::Store(page, value)),
    ]
}

/// A mapped page: of which file, how, what its entry is as in [`Mm::pagemap`], and the private copy's byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapped {
    file: usize,
    index: u64,
    flags: VmFlags,
    entry: u8,
    copy: Option<u8>,
}

/// How a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Argument,
    Unsupported,
    Segmentation,
    Bus,
}

impl Wrong {
    fn of(error: &Error) -> Self {
        match error {
            Error::InvalidArgument(_) => Self::Argument,
            Error::Unsupported(_) => Self::Unsupported,
            Error::Segmentation { .. } => Self::Segmentation,
            Error::Bus { .. } => Self::Bus,
            error => panic!("no step fails so: {error}"),
        }
    }
}

/// Mapped pages by their number, the first being that at [`FIRST`].
#[derive(Debug, Default)]
struct Model {
    pages: BTreeMap<u64, Mapped>,
    faults: u64,
    failed: u64,
    changes: u64,
    /// Pages of each file that have been read.
    read: [BTreeSet<u64>; 2],
}

/// First page, first page beyond, file, index of the first in it, flags.
type Run = (u64, u64, usize, u64, VmFlags);

impl Model {
    /// The mappings: each is as long as it can be.
    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (&page, mapped) in &self.pages {
            let key = |flags: VmFlags| flags.without(VmFlags::ANON_VMA);
            match runs.last_mut() {
                Some((first, beyond, file, index, flags))
                    if *beyond == page
                        && (*file, *index + page - *first) == (mapped.file, mapped.index)
                        && key(*flags) == key(mapped.flags) =>
                {
                    *beyond += 1;
                    *flags = flags.with(mapped.flags);
                }
                _ => runs.push((page, page + 1, mapped.file, mapped.index, mapped.flags)),
            }
        }
        runs
    }

    /// A mapping is ready for private copies if any part that was merged into it was.
    fn settle(&mut self) {
        for (first, beyond, _, _, flags) in self.runs() {
            self.pages.range_mut(first..beyond).for_each(|(_, mapped)| mapped.flags = flags);
        }
    }

    fn gap(&self, pages: u64) -> u64 {
        (0..=LOOKED_AT).find(|&page| self.pages.range(page..page + pages).next().is_none()).unwrap()
    }

    fn is_covered(&self, span: Span) -> bool {
        span.all().all(|page| self.pages.contains_key(&page))
    }

    /// What the step answers: an address or a byte, if it is one that answers anything.
    fn step(&mut self, step: Step) -> std::result::Result<u64, Wrong> {
        self.changes += u64::from(match step {
            Step::Map { prot, shared, .. } => prot == Prot::Read || !shared,
            Step::Advise(_, advice) => !matches!(advice, Madvise::DontNeed | Madvise::WillNeed),
            Step::Unmap(_) | Step::Protect(..) => true,
            Step::Load(_) | Step::Store(..) => false,
        });
        if let Step::Advise(span, Madvise::WillNeed) = step {
            // Holes or not.
            self.pages.range(span.all()).filter(|(_, mapped)| mapped.index < FILE).for_each(|(_, mapped)| {
                self.read[mapped.file].insert(mapped.index);
            });
        }
        match step {
            Step::Map { prot: Prot::ReadWrite, shared: true, .. } => return Err(Wrong::Unsupported),
            Step::Map { file, index, of, prot, shared } => {
                let at = self.gap(of.pages);
                let mut flags = if shared { VmFlags::SHARED } else { VmFlags::NONE };
                if prot == Prot::ReadWrite {
                    flags = flags.with(VmFlags::WRITE);
                }
                for n in 0..of.pages {
                    let mapped = Mapped { file, index: index + n, flags, entry: 0, copy: None };
                    self.pages.insert(at + n, mapped);
                }
                self.settle();
                return Ok(FIRST + at * PAGE);
            }
            Step::Unmap(span) => {
                let before = self.pages.len();
                self.pages.retain(|page, _| !span.all().contains(page));
                if self.pages.len() == before {
                    return Err(Wrong::Argument);
                }
            }
            Step::Protect(span, _) | Step::Advise(span, _) if !self.is_covered(span) => {
                return Err(Wrong::Argument);
            }
            Step::Protect(span, prot) => {
                let mut pages = self.pages.range(span.all());
                if prot == Prot::ReadWrite && pages.any(|(_, mapped)| mapped.flags.has(VmFlags::SHARED)) {
                    return Err(Wrong::Unsupported);
                }
                for (_, mapped) in self.pages.range_mut(span.all()) {
                    if prot == Prot::ReadWrite {
                        mapped.flags = mapped.flags.with(VmFlags::WRITE);
                    } else {
                        mapped.flags = mapped.flags.without(VmFlags::WRITE);
                        mapped.entry &= !2;
                    }
                }
            }
            Step::Advise(_, Madvise::WillNeed) => {}
            Step::Advise(span, advice) => {
                let both = VmFlags::RAND_READ.with(VmFlags::SEQ_READ);
                for (_, mapped) in self.pages.range_mut(span.all()) {
                    match advice {
                        Madvise::DontNeed => (mapped.entry, mapped.copy) = (0, None),
                        Madvise::Random => mapped.flags = mapped.flags.without(both).with(VmFlags::RAND_READ),
                        Madvise::Sequential => {
                            mapped.flags = mapped.flags.without(both).with(VmFlags::SEQ_READ);
                        }
                        _ => mapped.flags = mapped.flags.without(both),
                    }
                }
            }
            Step::Load(page) => return self.access(page, None),
            Step::Store(page, value) => return self.access(page, Some(value)),
        }
        self.settle();
        Ok(0)
    }

    fn access(&mut self, page: u64, store: Option<u8>) -> std::result::Result<u64, Wrong> {
        let before = (self.faults, self.failed);
        (self.faults, self.failed) = (before.0 + 1, before.1 + 1);
        let Some(mapped) = self.pages.get_mut(&page) else { return Err(Wrong::Segmentation) };
        if store.is_some() && !mapped.flags.has(VmFlags::WRITE) {
            return Err(Wrong::Segmentation);
        }
        if store.is_some() && mapped.copy.is_none() {
            // As in Linux, before the page is looked for.
            mapped.flags = mapped.flags.with(VmFlags::ANON_VMA);
        }
        if mapped.index >= FILE {
            self.settle();
            return Err(Wrong::Bus);
        }
        self.failed = before.1;
        self.read[mapped.file].insert(mapped.index);
        if mapped.entry != 0 && (store.is_none() || mapped.entry & 2 != 0) {
            self.faults = before.0;
        }
        if let Some(value) = store {
            (mapped.entry, mapped.copy) = (7, Some(value));
        } else {
            mapped.entry |= 1;
        }
        let value = mapped.copy.unwrap_or(byte(mapped.file, mapped.index));
        self.settle();
        Ok(value.into())
    }
}

/// Takes the same step in an address space.
fn take(mm: &Mm, files: &[File; 2], step: Step) -> Result<u64> {
    let within = |page: u64| FIRST + page * PAGE + 100;
    match step {
        Step::Map { file, index, of, prot, shared } => {
            return mm.mmap(&files[file], Some(of.length()), index * PAGE, prot, shared);
        }
        Step::Unmap(span) => mm.munmap(span.address(), span.length())?,
        Step::Protect(span, prot) => mm.mprotect(span.address(), span.length(), prot)?,
        Step::Advise(span, advice) => mm.madvise(span.address(), span.length(), advice)?,
        Step::Load(page) => {
            let mut found = [0];
            return mm.load(within(page), &mut found).map(|()| found[0].into());
        }
        Step::Store(page, value) => return mm.store(within(page), &[value]).map(|()| value.into()),
    }
    Ok(0)
}

/// The mappings as a model has them.
fn runs(mm: &Mm, files: &[Arc<OpenFile>; 2]) -> Vec<Run> {
    let section = crate::rcu::read();
    let number = |address: u64| (address - FIRST) / PAGE;
    let copies = mm.inner.vmas.load(&section).iter().map(|vma| vma.copy());
    copies
        .map(|vma| {
            let file = files.iter().position(|file| Arc::ptr_eq(file, vma.file())).unwrap();
            (number(vma.start), number(vma.end), file, vma.pgoff, vma.flags)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn an_address_space_is_a_map_of_pages(
        steps in prop::collection::vec(steps(), 1..40),
        speculative in any::<bool>(),
        kept in 0..FILE,
    ) {
        let cache = PageCache::new(256 * PAGE, Io::Inline).unwrap();
        let files = [0, 1].map(|number| open(&cache, number));
        let opens = files.each_ref().map(|file| file.open_file().unwrap());
        let locking = if speculative { Locking::Speculative } else { Locking::MmapLock };
        let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(PAGE)).unwrap();
        let mut model = Model::default();
        let entries = |model: &Model| -> Vec<u8> {
            (0..LOOKED_AT).map(|page| model.pages.get(&page).map_or(0, |mapped| mapped.entry)).collect()
        };
        for step in steps {
            let told = take(&mm, &files, step).map_err(|error| Wrong::of(&error));
            prop_assert_eq!(told, model.step(step), "{:?}", step);
            prop_assert_eq!(runs(&mm, &opens), model.runs(), "{:?}", step);
            prop_assert_eq!(mm.pagemap(FIRST, LOOKED_AT * PAGE).unwrap(), entries(&model), "{:?}", step);
            let copies = model.pages.values().filter(|mapped| mapped.copy.is_some()).count();
            prop_assert_eq!(cache.stats().private_frames, copies as u64, "{:?}", step);
            for (file, read) in files.iter().zip(&model.read) {
                let resident: Vec<u8> = (0..FILE).map(|index| u8::from(read.contains(&index))).collect();
                prop_assert_eq!(file.residency(0, None).unwrap(), resident, "{:?}", step);
            }
            let sum = |event| mm.inner.events.sum(event);
            prop_assert_eq!(sum(Event::MmapLockWrite), model.changes, "{:?}", step);
            prop_assert_eq!(sum(Event::Pgfault), model.faults, "{:?}", step);
            prop_assert_eq!(sum(Event::MinFlt) + sum(Event::MajFlt), model.faults - model.failed, "{:?}", step);
            prop_assert_eq!(sum(Event::SpfAttempt), if speculative { model.faults } else { 0 }, "{:?}", step);
        }
        mm.check().unwrap();
        cache.check().unwrap();
        let tables = if entries(&model).iter().any(|&entry| entry != 0) { 3 } else { 0 };
        prop_assert_eq!(mm.page_table_bytes(), (1 + tables) * TABLE_BYTES);
        // A truncation visits every mapping of its file, and private copies go too.
        files[0].truncate(kept * PAGE + 1).unwrap();
        for mapped in model.pages.values_mut().filter(|mapped| mapped.file == 0 && mapped.index > kept) {
            mapped.entry = 0;
        }
        prop_assert_eq!(mm.pagemap(FIRST, LOOKED_AT * PAGE).unwrap(), entries(&model));
        mm.close().unwrap();
        mm.check().unwrap();
        cache.check().unwrap();
        prop_assert_eq!((cache.stats().private_frames, mm.page_table_bytes()), (0, TABLE_BYTES));
        for open in &opens {
            prop_assert_eq!(Arc::strong_count(open), 2, "only the handle and this test have the file");
        }
    }
}

pub(super) fn one(pages_of_cache: u64, locking: Locking) -> (PageCache, File, Mm) {
    let cache = PageCache::new(pages_of_cache * PAGE, Io::Inline).unwrap();
    let file = open(&cache, 0);
    let mm = Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(PAGE)).unwrap();
    (cache, file, mm)
}

fn refused<T: std::fmt::Debug>(told: Result<T>, why: &str) {
    match told {
        Err(Error::InvalidArgument(text)) if text.contains(why) => {}
        told => panic!("{told:?}, not {why:?}"),
    }
}

#[test]
fn a_range_is_aligned_not_empty_and_within_the_address_space() {
    type Call = fn(&Mm, u64, u64) -> Result<()>;
    let calls: [Call; 4] = [
        |mm, address, length| mm.munmap(address, length),
        |mm, address, length| mm.mprotect(address, length, Prot::Read),
        |mm, address, length| mm.madvise(address, length, Madvise::Random),
        |mm, address, length| mm.madvise(address, length, Madvise::DontNeed),
    ];
    let (_cache, _file, mm) = one(4, Locking::Speculative);
    for call in calls {
        for (address, length, why) in [
            (FIRST + 1, PAGE, "not page-aligned"),
            (FIRST + PAGE / 2, PAGE, "not page-aligned"),
            (FIRST, 0, "is empty"),
            (TASK_SIZE - PAGE, PAGE + 1, "leave the address space"),
            (TASK_SIZE, 1, "leave the address space"),
            (FIRST, u64::MAX, "leave the address space"),
            (u64::MAX - PAGE + 1, PAGE, "leave the address space"),
            (TASK_SIZE - PAGE, PAGE, "mapped"),
            (TASK_SIZE - PAGE, 1, "mapped"),
        ] {
            refused(call(&mm, address, length), why);
        }
    }
    // Where nothing is mapped is told under the lock, and what is no range before it.
    assert_eq!(mm.inner.events.sum(Event::MmapLockWrite), 6);
    mm.check_range(TASK_SIZE - 3, 3).unwrap();
    refused(mm.check_range(TASK_SIZE - 3, 4), "leave the address space");
    refused(mm.load(TASK_SIZE - 3, &mut [0; 4]), "leave the address space");
    refused(mm.store(u64::MAX, &[0; 4]), "leave the address space");
    refused(mm.touch(TASK_SIZE, 1, 1, false), "leave the address space");
    refused(mm.touch(FIRST, 1, 0, false), "stride 0");
    refused(mm.pagemap(FIRST + 1, 1), "not page-aligned");
    refused(mm.pagemap(TASK_SIZE, 1), "leave the address space");
    assert_eq!(mm.pagemap(TASK_SIZE - PAGE, 1).unwrap(), [0]);
}

#[test]
fn mmap_says_what_is_wrong_and_maps_nothing_then() {
    let (cache, file, mm) = one(16, Locking::Speculative);
    let map = |length, offset| mm.mmap(&file, length, offset, Prot::Read, true);
    let last = u64::MAX - PAGE + 1;
    for (length, offset, why) in [
        (Some(PAGE), 1, "not page-aligned"),
        (Some(0), 0, "length 0"),
        (None, FILE * PAGE, "beyond the end of the file"),
        (Some(PAGE), last, "overflows"),
        (Some(1), last, "overflows"),
        (Some(2 * PAGE), last - PAGE, "overflows"),
        (Some(TASK_SIZE + 1), 0, "leave the address space"),
        (Some(TASK_SIZE - FIRST + 1), 0, "no gap"),
    ] {
        refused(map(length, offset), why);
    }
    let (other, _, _) = (PageCache::new(1 << 20, Io::Inline).unwrap(), 0, 0);
    refused(mm.mmap(&open(&other, 1), None, 0, Prot::Read, true), "another cache");
    assert_eq!(mm.inner.vmas.load(&crate::rcu::read()).len(), 0);
    // To the end of the file, in whole pages; nothing needs to be there.
    assert_eq!(map(None, (FILE - 2) * PAGE).unwrap(), FIRST);
    assert_eq!(map(Some(1), last - PAGE).unwrap(), FIRST + 2 * PAGE);
    // All that is left, and then nothing is.
    let left = TASK_SIZE - FIRST - 3 * PAGE;
    refused(map(Some(left + 1), 0), "no gap");
    assert_eq!(map(Some(left), 0).unwrap(), FIRST + 3 * PAGE);
    refused(map(Some(1), 0), "no gap");
    mm.munmap(TASK_SIZE - PAGE, PAGE).unwrap();
    assert_eq!(map(Some(1), 0).unwrap(), TASK_SIZE - PAGE);
    mm.close().unwrap();
    cache.check().unwrap();
}

#[test]
fn nothing_is_done_in_what_is_closed() {
    for close_cache in [false, true] {
        let (cache, file, mm) = one(16, Locking::Speculative);
        let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
        mm.touch(at, PAGE, PAGE, true).unwrap();
        let before = mm.vm_events();
        if close_cache {
            cache.close().unwrap();
        } else {
            assert!(!mm.is_closed());
            mm.close().unwrap();
            mm.close().unwrap();
        }
        assert!(mm.is_closed());
        let closed = |told: Result<()>| assert!(matches!(told, Err(Error::Closed(_))), "{told:?}");
        closed(mm.mmap(&file, None, 0, Prot::Read, true).map(drop));
        closed(mm.munmap(at, PAGE));
        closed(mm.mprotect(at, PAGE, Prot::Read));
        closed(mm.madvise(at, PAGE, Madvise::Normal));
        closed(mm.load(at, &mut [0]));
        closed(mm.load(at, &mut []));
        closed(mm.store(at, &[]));
        closed(mm.touch(at, 0, 1, false).map(drop));
        closed(mm.pagemap(at, PAGE).map(drop));
        closed(mm.check_range(at, PAGE));
        if close_cache {
            closed(Mm::new(&cache, MmOptions::default()).map(drop));
        }
        let outcome = mm.fault(at, false);
        assert_eq!((outcome.result, outcome.abort, outcome.major), (VmFault::SIGSEGV, None, false));
        closed(Err(outcome.error.unwrap()));
        // Closing takes the lock, and nothing else does anything.
        let grown =
            mm.vm_events().into_iter().zip(before).map(|((name, now), (_, before))| (name, now - before));
        let grown: Vec<_> = grown.filter(|&(_, by)| by > 0).collect();
        assert_eq!(grown, if close_cache { &[][..] } else { &[("mmap_lock_write", 1)][..] });
        mm.close().unwrap();
        assert_eq!(mm.inner.shared.frames.usage().private, 0);
    }
}

/// A test of what waits for a grace period, which other threads of this process may run or hold up: until it succeeds.
pub(super) fn undisturbed(test: impl Fn() -> std::result::Result<(), String>) {
    let mut ended = test();
    for _ in 0..200 {
        if ended.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        ended = test();
    }
    ended.unwrap();
}

#[test]
fn replaced_arrays_of_mappings_do_not_pile_up() {
    type Call = fn(&Mm, &File, u64) -> Result<()>;
    let calls: [Call; 3] = [
        |mm, file, _| mm.mmap(file, Some(PAGE), 0, Prot::Read, true).map(drop),
        |mm, _, at| mm.mprotect(at, PAGE, Prot::Read),
        |mm, _, at| mm.madvise(at, PAGE, Madvise::Normal),
    ];
    for call in calls {
        // Of small ones some hundred wait for the next grace period, of large ones none does.
        for (mappings, calls, most, least) in [(10, 800, 300, 1), (1100, 3, 0, 0)] {
            undisturbed(|| {
                let (_cache, file, mm) = one(16, Locking::Speculative);
                let map = |index| mm.mmap(&file, Some(PAGE), index * PAGE, Prot::Read, true).unwrap();
                let at = map(1);
                // All of one page, so they do not merge.
                for _ in 0..mappings {
                    map(0);
                }
                let mut replaced = Vec::new();
                for _ in 0..calls {
                    replaced.push(Arc::downgrade(&mm.inner.vmas.array(&mm.inner.lock.write())));
                    call(&mm, &file, at).unwrap();
                }
                let waiting = replaced.iter().filter(|array| array.strong_count() > 0).count();
                let right = (least..=most).contains(&waiting);
                if right {
                    Ok(())
                } else {
                    Err(format!("{waiting} of {calls} arrays of {mappings} mappings wait"))
                }
            });
        }
    }
}

#[test]
fn fault_around_is_a_power_of_two_from_a_page_to_two_mebibytes() {
    let cache = PageCache::new(PAGE, Io::Inline).unwrap();
    let new = |bytes| Mm::new(&cache, MmOptions::default().fault_around_bytes(bytes)).map(drop);
    for bytes in [PAGE, 2 * PAGE, 1 << 21] {
        new(bytes).unwrap();
    }
    for bytes in [0, 1, PAGE / 2, 3 * PAGE, (1 << 21) + PAGE, 1 << 22] {
        refused(new(bytes), "is not a power of two between 4096 and 2097152");
    }
}

#[test]
fn the_names_of_modes_and_rights_are_those_that_are_told() {
    for locking in Locking::ALL {
        assert_eq!(locking.to_string().parse::<Locking>().unwrap(), *locking);
    }
    refused("rcu".parse::<Locking>(), "not one of mmap_lock, speculative");
    assert_eq!(("r".parse::<Prot>().unwrap(), "rw".parse::<Prot>().unwrap()), (Prot::Read, Prot::ReadWrite));
    refused("w".parse::<Prot>(), "not one of r, rw");
    refused("never".parse::<Madvise>(), "not one of normal, random, sequential, dontneed, willneed");
}

proptest! {
    #[test]
    fn loads_and_stores_are_those_of_one_array(
        steps in prop::collection::vec((0..6 * PAGE, 0..2 * PAGE + 10, any::<u8>(), any::<bool>()), 1..20),
    ) {
        let (_cache, file, mm) = one(32, Locking::Speculative);
        let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
        let mut bytes: Vec<u8> = (0..FILE).flat_map(|index| [byte(0, index); PAGE_SIZE]).collect();
        for (from, length, value, store) in steps {
            let part = from as usize..(from + length) as usize;
            if store {
                let data: Vec<u8> = (0..length).map(|n| value.wrapping_add(n as u8)).collect();
                mm.store(at + from, &data).unwrap();
                bytes[part].copy_from_slice(&data);
            } else {
                let mut found = vec![0; length as usize];
                mm.load(at + from, &mut found).unwrap();
                prop_assert!(found == bytes[part]);
            }
        }
    }

    #[test]
    fn touches_are_counted_and_change_nothing(
        from in 0..3 * PAGE,
        length in 0..4 * PAGE,
        stride in prop_oneof![1..50_u64, PAGE - 1..PAGE + 2, 1..3 * PAGE],
        write in any::<bool>(),
        speculative in any::<bool>(),
    ) {
        let locking = if speculative { Locking::Speculative } else { Locking::MmapLock };
        let (_cache, file, mm) = one(32, locking);
        let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
        let mut entries = [0; FILE as usize];
        let touched = (from..from + length).step_by(stride as usize);
        touched.clone().for_each(|at| entries[(at / PAGE) as usize] = if write { 7 } else { 1 });
        let faults = entries.iter().filter(|&&entry| entry != 0).count() as u64;
        let expected = TouchReport {
            touches: touched.count() as u64,
            faults,
            major: faults,
            // No page is cached yet, so no attempt succeeds.
            aborts: if speculative { faults } else { 0 },
        };
        prop_assert_eq!(mm.touch(at + from, length, stride, write).unwrap(), expected);
        prop_assert_eq!(mm.pagemap(at, FILE * PAGE).unwrap(), entries);
        let again = TouchReport { touches: expected.touches, ..TouchReport::default() };
        prop_assert_eq!(mm.touch(at + from, length, stride, write).unwrap(), again);
        let mut sum = expected;
        sum.add(expected);
        prop_assert_eq!((sum.touches, sum.faults), (2 * expected.touches, 2 * expected.faults));
        prop_assert_eq!((sum.major, sum.aborts), (2 * expected.major, 2 * expected.aborts));
        let mut found = vec![0; (FILE * PAGE) as usize];
        mm.load(at, &mut found).unwrap();
        prop_assert!((0..).zip(&found).all(|(at, &found)| found == byte(0, at / PAGE)));
    }
}

#[test]
fn an_address_space_that_is_dropped_holds_nothing() {
    let (cache, file, mm) = one(32, Locking::Speculative);
    let open = file.open_file().unwrap();
    let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
    mm.touch(at, 3 * PAGE, PAGE, true).unwrap();
    drop(mm);
    cache.check().unwrap();
    assert_eq!(
        (cache.stats().private_frames, cache.stats().page_tables, Arc::strong_count(&open)),
        (0, 0, 2)
    );
}

#[test]
fn a_check_finds_what_does_not_add_up() {
    let (_cache, _file, mm) = one(4, Locking::Speculative);
    let is_right = || match mm.check() {
        Ok(()) => true,
        Err(Error::Invariant(_)) => false,
        Err(error) => panic!("{error}"),
    };
    let events = &mm.inner.events;
    assert!(is_right());
    events.add(Event::SpfAttempt);
    assert!(!is_right(), "an attempt without an end");
    events.add_abort(Abort::Pud);
    assert!(is_right());
    // An abort without a cause, though attempts are commits plus aborts.
    let other = Events::new().unwrap();
    other.add(Event::SpfAttempt);
    other.add(Event::SpfAbort);
    assert!(!other.balance());
}

#[test]
fn mappings_merge_that_continue_one_another() {
    let (cache, file, mm) = one(4, Locking::Speculative);
    let open = file.open_file().unwrap();
    let other = self::open(&cache, 1).open_file().unwrap();
    let vma = |from: u64, to: u64, index: u64, flags, open: &Arc<OpenFile>| {
        let range = (FIRST + from * PAGE, FIRST + to * PAGE, index);
        Vma::new(range, flags, Arc::clone(open), Arc::clone(&mm.inner.tables))
    };
    let none = VmFlags::NONE;
    let first = vma(0, 2, 5, none, &open);
    for (from, index, flags, open, merges) in [
        (2, 7, none, &open, true),
        (2, 7, VmFlags::ANON_VMA, &open, true),
        (3, 8, none, &open, false),
        (3, 7, none, &open, false),
        (2, 8, none, &open, false),
        (2, 7, VmFlags::RAND_READ, &open, false),
        (2, 7, none, &other, false),
    ] {
        let next = vma(from, from + 1, index, flags, open);
        assert_eq!(first.merges_with(&next), merges, "{from} {index} {flags:?}");
    }
    let both = VmFlags::RAND_READ.with(VmFlags::SEQ_READ);
    let flags = [none, VmFlags::WRITE, VmFlags::SEQ_READ, VmFlags::RAND_READ, both];
    let (normal, sequential, random) = (Pattern::Normal, Pattern::Sequential, Pattern::Random);
    assert_eq!(flags.map(VmFlags::pattern), [normal, normal, sequential, random, random]);
}

/// A store whose first read of a page waits until it is told.
struct Held {
    begins: Mutex<Sender<()>>,
    may_end: Mutex<Receiver<()>>,
}

impl Store for Held {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        self.begins.lock().unwrap().send(()).unwrap();
        self.may_end.lock().unwrap().recv().unwrap();
        buf.fill(1);
        Ok(buf.len())
    }
}

#[test]
fn mappings_change_while_what_is_needed_is_read() {
    let (cache, file, mm) = one(16, Locking::Speculative);
    let ((begins, began), (end, may_end)) = (channel(), channel());
    let held = Arc::new(Held { begins: Mutex::new(begins), may_end: Mutex::new(may_end) });
    let slow = cache.open_store_with(held, PAGE, StoreOptions::default().ra_pages(0)).unwrap();
    let at = mm.mmap(&slow, None, 0, Prot::Read, true).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| mm.madvise(at, PAGE, Madvise::WillNeed));
        began.recv().unwrap();
        mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
        end.send(()).unwrap();
        reader.join().unwrap().unwrap();
    });
    let mut found = [0];
    mm.load(at, &mut found).unwrap();
    assert_eq!(found, [1]);
}

#[test]
fn rights_that_are_taken_are_taken_from_entries() {
    let (cache, file, mm) = one(32, Locking::Speculative);
    let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
    mm.touch(at, 2 * PAGE, PAGE, true).unwrap();
    mm.load(at + 2 * PAGE, &mut [0]).unwrap();
    for (prot, entries) in [
        (Prot::ReadWrite, [7, 7, 1]),
        (Prot::Read, [7, 5, 1]),
        (Prot::Read, [7, 5, 1]),
        (Prot::ReadWrite, [7, 5, 1]),
    ] {
        mm.mprotect(at + PAGE, 2 * PAGE, prot).unwrap();
        assert_eq!(mm.pagemap(at, 3 * PAGE).unwrap(), entries, "{prot:?}");
    }
    mm.store(at + PAGE, &[1]).unwrap();
    assert_eq!((mm.pagemap(at, 3 * PAGE).unwrap(), cache.stats().private_frames), (vec![7, 7, 1], 2));
}

#[test]
fn what_takes_an_entry_or_its_right_waits_for_the_accesses_that_are_running() {
    type Call = fn(&Mm, u64) -> Result<()>;
    let calls: [(Call, u8); 3] = [
        (|mm, at| mm.mprotect(at, PAGE, Prot::Read), 5),
        (|mm, at| mm.madvise(at, PAGE, Madvise::DontNeed), 0),
        (|mm, at| mm.munmap(at, PAGE), 0),
    ];
    for (call, entry) in calls {
        let (_cache, file, mm) = one(16, Locking::Speculative);
        let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
        mm.store(at, &[1]).unwrap();
        // As an access has.
        let section = crate::rcu::read();
        std::thread::scope(|scope| {
            let change = scope.spawn(|| call(&mm, at));
            while mm.pagemap(at, PAGE).unwrap() != [entry] {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert!(!change.is_finished(), "a store that had the entry may still be running");
            drop(section);
            change.join().unwrap().unwrap();
        });
    }
}

#[test]
fn an_unmapping_uses_the_pages_that_were_accessed_and_no_others() {
    let cache = PageCache::new(64 * PAGE, Io::Inline).unwrap();
    let store = Arc::new(MemoryStore::new(vec![7; (32 * PAGE) as usize]));
    let file = cache.open_store_with(store, 32 * PAGE, StoreOptions::default().ra_pages(16)).unwrap();
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
    // The first brings in the pages around it, the second sets entries around it.
    mm.load(at + 5 * PAGE, &mut [0]).unwrap();
    mm.load(at + 7 * PAGE, &mut [0]).unwrap();
    let present = mm.pagemap(at, 32 * PAGE).unwrap().iter().filter(|&&entry| entry != 0).count();
    assert!(present > 8, "{present} entries were set");
    let before = cache.stats();
    assert!(before.readahead_pages > 8, "{before:?}");
    mm.munmap(at, 32 * PAGE).unwrap();
    let after = cache.stats();
    assert_eq!(after.readahead_used - before.readahead_used, 2);
    cache.check().unwrap();
}
