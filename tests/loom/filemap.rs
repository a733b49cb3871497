//! Models of faults in the cache, in three forms: speculative, around, classic; against truncation, against the read that fills
//! the page, and against the thread that takes the marker.

use super::super::Abort;
use super::super::address_space::{Created, HeldPage};
use super::super::again::read_again;
use super::super::filemap::filemap_fault;
use super::super::filemap::hold_waiting;
use super::super::filemap::hold_without_waiting;
use super::super::filemap::{Pass, Pattern, Step};
use super::super::fill::read_page;
use super::super::size_change::change_size;
use super::super::speculation;
use super::super::speculation::next_uptodate_page;
use super::*;
use crate::sync::Numbers;

/// A page that a fault got must be ours as long as it is locked. Returns its first byte.
pub(super) fn is_ours(ours: &AddressSpace, held: HeldPage<'_>) -> u8 {
    reach("locked");
    assert!(held.lock.page().is_at(ours.id(), 0), "a truncated page: {:?}", held.handle);
    let byte = first_byte(held.handle.page());
    drop(held);
    byte
}

/// A speculative fault after its lookup: the first byte of the page or the cause.
fn speculative(ours: &AddressSpace, found: PageHandle<'_>) -> Result<u8, Abort> {
    match speculation::hold(ours, found, 0) {
        Ok(held) => Ok(is_ours(ours, held)),
        Err(cause) => {
            reach(cause);
            Err(cause)
        }
    }
}

/// Fault-around over the first page only.
pub(super) fn around(ours: &AddressSpace) -> Option<u8> {
    let Some((index, held)) = next_uptodate_page(ours, &mut 0, 0, &rcu::read()) else {
        reach("skipped");
        return None;
    };
    assert_eq!(index, 0);
    Some(is_ours(ours, held))
}

#[derive(Clone, Copy)]
enum Form {
    Speculative,
    Around,
}

/// A fault of that form on our page, which a speculative one has already found.
fn fault(form: Form, ours: &AddressSpace, found: Option<u32>) -> Option<u8> {
    match form {
        Form::Speculative => speculative(ours, ours.frames().page(found.expect("found before")).adopt()).ok(),
        Form::Around => around(ours),
    }
}

fn found_before(form: Form, ours: &AddressSpace) -> Option<u32> {
    matches!(form, Form::Speculative).then(|| hold(ours).into_pfn())
}

/// One thread faults; one truncates the page away. Claims: a page that is returned is the file's as long as it is locked; at the
/// end no reference and no lock is left, however the attempt ended. Premise: truncation takes the page lock.
fn fault_against_truncate(form: Form) {
    let (ours, _) = two_files(1);
    let history = History::new(true);
    let (mine, others) = (found_before(form, &ours), hold(&ours).into_pfn());
    let truncater = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || truncate_found(&ours, others),
                |there, &truncated| !truncated || std::mem::replace(there, false),
            );
        })
    };
    // An attempt may always abort.
    history.call(
        "fault",
        || fault(form, &ours, mine),
        |there, byte| byte.is_none() || (*there && *byte == Some(OURS)),
    );
    truncater.join().unwrap();
    history.settle();
    history.call("frames", || ours.frames().usage().in_use, |there, &used| used == usize::from(*there));
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn trylock_and_mapping_check_against_truncate() {
    Model {
        name: "trylock and mapping check against truncate",
        rows: &[16, 17, 18],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || fault_against_truncate(Form::Speculative),
        reaches: &["locked", "FILE_LOCKED", "FILE_MAPPING", "truncated", "not truncated"],
        // The third is the patch as posted: it leaks a reference on every abort after the lookup.
        needs: &[
            "filemap.spec.mapping",
            "filemap.seed.mapping_before_lock",
            "filemap.spec.put",
            "filemap.spec.mapping.unlock",
            "delete.clear_mapping",
            "truncate.put",
        ],
    }
    .check();
}

#[test]
fn big_fault_around_against_truncate() {
    Model {
        name: "fault-around against truncate",
        rows: &[16, 17, 18],
        preemption_bound: Some(7),
        grace_periods: false,
        twin: false,
        body: || fault_against_truncate(Form::Around),
        reaches: &["locked", "skipped"],
        needs: &["filemap.around.mapping"],
    }
    .check();
}

/// One thread looks at the size, then faults; one sets the size to zero, which truncation does first. Claim: a thread that has
/// seen the file end before the page gets no page. Premise: none.
fn fault_after_the_end(
    fault: fn(&Arc<OpenFile>, Option<u32>) -> Option<u8>,
    found: fn(&AddressSpace) -> Option<u32>,
) {
    let file = open_file(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])));
    let ours = &file.mapping;
    cache_page(ours, 0, OURS);
    let history = History::new(PAGE);
    let mine = found(ours);
    let truncater = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            history.call(
                "shrink",
                || file.mapping.i_size_write(0),
                |size, ()| {
                    *size = 0;
                    true
                },
            );
        })
    };
    history.call("size", || ours.i_size(), |size, answer| size == answer);
    history.call("fault", || fault(&file, mine), |&mut size, byte| byte.is_none() || size == PAGE);
    truncater.join().unwrap();
    history.settle();
    history.call("size at rest", || ours.i_size(), |size, answer| size == answer);
    history.check();
    ours.frames().audit(&[]).unwrap();
}

#[test]
fn the_end_of_the_file_under_the_page_lock() {
    Model {
        name: "end of file under the page lock",
        rows: &[17, 21],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || {
            fault_after_the_end(
                |file, found| fault(Form::Speculative, &file.mapping, found),
                |ours| found_before(Form::Speculative, ours),
            );
        },
        reaches: &["locked", "FILE_EOF"],
        needs: &["filemap.spec.eof", "filemap.spec.unlock"],
    }
    .check();
}

#[test]
fn fault_around_and_the_end_of_the_file() {
    Model {
        name: "fault-around and the end of the file",
        rows: &[38],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || fault_after_the_end(|file, _| fault(Form::Around, &file.mapping, None), |_| None),
        reaches: &["locked", "skipped"],
        needs: &["filemap.around.eof"],
    }
    .check();
}

#[test]
fn a_classic_fault_and_the_end_of_the_file() {
    Model {
        name: "classic fault and the end of the file",
        rows: &[21],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || {
            fault_after_the_end(
                |file, found| match classic(file, Pass::First, found) {
                    Classic::Locked(byte) => Some(byte),
                    _ => None,
                },
                |ours| Some(hold(ours).into_pfn()),
            );
        },
        reaches: &["locked", "beyond"],
        needs: &["filemap.classic.eof"],
    }
    .check();
}

/// One thread faults on a page that is there but was not read; one locks it and reads it. Claim: a fault sees the file's bytes,
/// never what the frame held before. Premise: a page is filled under its lock.
fn fault_against_read(form: Form) {
    let (_, strangers) = two_files(2);
    let Created::New(held) = strangers.add_page(0) else { panic!("a frame is free") };
    drop(held);
    let history = History::new(None);
    let mine = found_before(form, &strangers);
    let reader = {
        let (strangers, history) = (Arc::clone(&strangers), history.clone());
        let found = hold(&strangers).into_pfn();
        spawn(move || {
            let handle = strangers.frames().page(found).adopt();
            let read = || try_locked(handle, |lock| read_page(&strangers, lock, 0).unwrap()).is_some();
            history.call("read", read, |page, &read| !read || page.replace(STRANGERS).is_none());
        })
    };
    history.call("fault", || fault(form, &strangers, mine), |page, byte| byte.is_none() || byte == page);
    reader.join().unwrap();
    history.settle();
    let found = found_before(form, &strangers);
    history.call("fault at rest", || fault(form, &strangers, found), |page, byte| byte == page);
    history.check();
    strangers.frames().audit(&[]).unwrap();
}

#[test]
fn speculation_against_the_read_that_fills() {
    Model {
        name: "speculation against the read that fills the page",
        rows: &[19],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || fault_against_read(Form::Speculative),
        reaches: &["locked", "FILE_LOCKED", "FILE_NOT_UPTODATE"],
        needs: &["filemap.spec.uptodate"],
    }
    .check();
}

#[test]
fn fault_around_against_the_read_that_fills() {
    Model {
        name: "fault-around against the read that fills the page",
        rows: &[19],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || fault_against_read(Form::Around),
        reaches: &["locked", "skipped"],
        needs: &["filemap.around.uptodate"],
    }
    .check();
}

/// One thread faults on a page with the marker; one takes the marker, as the thread that starts the window does. Claim: no fault
/// is served past a marker that has not been taken. Premise: a marker is set before the page can be found.
fn fault_against_marker(form: Form) {
    let (ours, _) = two_files(1);
    let handle = hold(&ours);
    handle.page().lock().set_readahead();
    drop(handle);
    // The state is whether the marker is there.
    let history = History::new(true);
    let mine = found_before(form, &ours);
    let taker = {
        let (ours, history) = (Arc::clone(&ours), history.clone());
        spawn(move || {
            history.call(
                "take",
                || ours.frames().page(0).take_readahead(),
                |marker, &took| std::mem::replace(marker, false) == took,
            );
        })
    };
    history.call("fault", || fault(form, &ours, mine), |marker, byte| byte.is_none() || !*marker);
    taker.join().unwrap();
    history.settle();
    let found = found_before(form, &ours);
    history.call("fault at rest", || fault(form, &ours, found), |marker, byte| byte.is_none() == *marker);
    history.check();
}

#[test]
fn speculation_leaves_the_marker() {
    Model {
        name: "speculation against the marker",
        rows: &[36],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || fault_against_marker(Form::Speculative),
        reaches: &["locked", "FILE_READAHEAD"],
        needs: &["filemap.spec.readahead"],
    }
    .check();
}

#[test]
fn fault_around_leaves_the_marker() {
    Model {
        name: "fault-around against the marker",
        rows: &[36],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || fault_against_marker(Form::Around),
        reaches: &["locked", "skipped"],
        needs: &["filemap.around.readahead"],
    }
    .check();
}

/// A pass of the classic fault, without readahead; perhaps after its lookup.
fn classic(file: &Arc<OpenFile>, pass: Pass, found: Option<u32>) -> Classic {
    let found = found.map(|pfn| file.mapping.frames().page(pfn).adopt());
    let step = match (found, pass) {
        (None, pass) => filemap_fault(file, 0, Pattern::Random, pass).step,
        (found, Pass::First) => hold_without_waiting(file, 0, found),
        (found, Pass::Tried) => hold_waiting(file, 0, found),
    };
    match step {
        Step::Locked(held) => Classic::Locked(is_ours(&file.mapping, held)),
        Step::Beyond(size) => {
            reach("beyond");
            assert_eq!(size, 0);
            Classic::Beyond
        }
        Step::Blocked(_) => {
            reach("blocked");
            Classic::Blocked
        }
        step @ (Step::Unreadable(_) | Step::NoMemory(_)) => panic!("{step:?}"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Classic {
    Locked(u8),
    Beyond,
    Blocked,
}

/// One thread makes a classic pass after its lookup; one truncates the page away. Claim: a page that is returned is the file's as
/// long as it is locked. Premise as above.
fn classic_against_truncate(pass: Pass) {
    let file = open_file(Arc::new(MemoryStore::new(vec![OURS; PAGE_SIZE])));
    cache_page(&file.mapping, 0, OURS);
    let history = History::new(true);
    let [mine, others] = [(); 2].map(|()| hold(&file.mapping).into_pfn());
    let truncater = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            history.call(
                "truncate",
                || truncate_found(&file.mapping, others),
                |there, &truncated| !truncated || std::mem::replace(there, false),
            );
        })
    };
    // A page that has gone is created again, and must be read, as a later pass does.
    let right = move |there: &mut bool, answer: &Classic| match answer {
        Classic::Locked(byte) => (*there || pass == Pass::Tried) && *byte == OURS,
        Classic::Beyond => false,
        Classic::Blocked => pass == Pass::First,
    };
    history.call("fault", || classic(&file, pass, Some(mine)), right);
    truncater.join().unwrap();
    history.settle();
    history.call("fault at rest", || classic(&file, pass, None), right);
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn a_classic_fault_against_truncate() {
    Model {
        name: "classic fault against truncate",
        rows: &[16, 17, 18],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || classic_against_truncate(Pass::First),
        reaches: &["locked", "blocked", "truncated", "not truncated"],
        needs: &["filemap.classic.mapping"],
    }
    .check();
}

#[test]
fn a_later_classic_pass_against_truncate() {
    Model {
        name: "later classic pass against truncate",
        rows: &[18],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || classic_against_truncate(Pass::Tried),
        reaches: &["locked", "truncated", "not truncated"],
        needs: &["filemap.classic.mapping"],
    }
    .check();
}

/// A store whose every read returns different bytes: the number of the read.
struct Changing(Numbers);

impl Store for Changing {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        buf.fill(u8::try_from(self.0.next()).expect("few reads"));
        Ok(buf.len())
    }
}

/// Two threads want a page that is there but was not read; one of them may have to wait. Claims: each gets bytes that the file
/// has; bytes that were seen stay. Premise: the bytes of a page change under its lock.
fn two_readers(pass: Pass) {
    let file = open_file(Arc::new(Changing(Numbers::new())));
    let Created::New(held) = file.mapping.add_page(0) else { panic!("a frame is free") };
    drop(held);
    // The state: the page's bytes, once a thread has seen them.
    let history = History::new(None);
    let seen = |bytes: &mut Option<u8>, answer: &Classic| match answer {
        Classic::Locked(0) => false,
        Classic::Locked(byte) => *bytes.get_or_insert(*byte) == *byte,
        answer => *answer == Classic::Blocked,
    };
    let [mine, others] = [(); 2].map(|()| Some(hold(&file.mapping).into_pfn()));
    let other = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || history.call("fault", || classic(&file, Pass::Tried, others), seen))
    };
    history.call("fault", || classic(&file, pass, mine), seen);
    other.join().unwrap();
    history.settle();
    history.call("fault at rest", || classic(&file, Pass::Tried, None), seen);
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn big_a_first_pass_against_the_read_that_fills() {
    Model {
        name: "first classic pass against the read that fills the page",
        rows: &[19],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || two_readers(Pass::First),
        reaches: &["locked", "blocked"],
        needs: &["filemap.classic.uptodate"],
    }
    .check();
}

#[test]
fn big_two_classic_faults_read_once() {
    Model {
        name: "two classic faults read a page once",
        rows: &[19],
        preemption_bound: Some(7),
        grace_periods: false,
        twin: false,
        body: || two_readers(Pass::Tried),
        reaches: &["locked"],
        needs: &["read_page.not_uptodate"],
    }
    .check();
}

/// One thread faults on a page that was not read, and reads it; one changes the size of the file, and of its store, within the page.
/// Claim: the fault gets the page, which ends in zeros where the shorter file ends. Premise: the store is whole before and after.
fn fault_against_resize(from: u64, to: u64) {
    let shared = Shared::new(2, Io::Inline).unwrap();
    let store = Arc::new(MemoryStore::new(vec![OURS; from as usize]));
    let file = File::in_memory(&shared, store, from).open_file().unwrap();
    let Created::New(held) = file.mapping.add_page(0) else { panic!("a frame is free") };
    drop(held);
    let history = History::new(());
    let changer = {
        let (file, history) = (Arc::clone(&file), history.clone());
        spawn(move || {
            let change = || change_size(&file.mapping, to, None, |size| file.store().truncate(size)).unwrap();
            history.call("change", change, |(), ()| true);
        })
    };
    let mine = Some(hold(&file.mapping).into_pfn());
    let fault = || classic(&file, Pass::Tried, mine);
    history.call("fault", fault, |(), answer| *answer == Classic::Locked(OURS));
    changer.join().unwrap();
    history.check();
    let mut bytes = [0; PAGE_SIZE];
    hold(&file.mapping).page().bytes().read(0, &mut bytes);
    let (inside, beyond) = bytes.split_at(from.min(to) as usize);
    assert!(inside.iter().all(|&byte| byte == OURS) && beyond.iter().all(|&byte| byte == 0), "{bytes:?}");
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn big_a_fault_that_reads_against_a_cut() {
    Model {
        name: "classic fault that reads against truncation in its page",
        rows: &[19, 50],
        preemption_bound: Some(4),
        grace_periods: false,
        twin: false,
        body: || fault_against_resize(PAGE, PAGE / 2),
        reaches: &["locked"],
        needs: &["fill.short_again", "truncate.shrunk_before_store"],
    }
    .check();
}

#[test]
fn a_fault_that_reads_against_growth() {
    Model {
        name: "classic fault that reads against growth in its page",
        rows: &[19, 50],
        preemption_bound: None,
        grace_periods: false,
        twin: false,
        body: || fault_against_resize(PAGE / 2, PAGE),
        reaches: &["locked"],
        needs: &["truncate.grown_after_store"],
    }
    .check();
}

/// One thread requests a failed window of two pages again; one faults on the first and reads it alone. Claims: bytes that were
/// seen stay; no lock is left behind. Premise: the bytes of a page change under its lock.
fn window_asked_again() {
    let shared = Shared::new(8, Io::Inline).unwrap();
    let file = File::in_memory(&shared, Arc::new(Changing(Numbers::new())), 2 * PAGE).open_file().unwrap();
    for index in 0..2 {
        let Created::New(held) = file.mapping.add_page(index) else { panic!("a frame is free") };
        drop(held);
    }
    file.mapping.again.note(4, true);
    let history = History::new(None);
    let seen = |bytes: &mut Option<u8>, answer: &Classic| match answer {
        Classic::Locked(0) => false,
        Classic::Locked(byte) => *bytes.get_or_insert(*byte) == *byte,
        answer => *answer == Classic::Blocked,
    };
    let mine = Some(hold(&file.mapping).into_pfn());
    let other = {
        let file = Arc::clone(&file);
        spawn(move || read_again(&file, 0))
    };
    history.call("fault", || classic(&file, Pass::Tried, mine), seen);
    other.join().unwrap();
    history.settle();
    history.call("fault at rest", || classic(&file, Pass::Tried, None), seen);
    history.check();
    file.mapping.frames().audit(&[]).unwrap();
}

#[test]
fn big_a_window_asked_again_against_a_classic_fault() {
    Model {
        name: "window asked for again against a classic fault",
        rows: &[19],
        preemption_bound: Some(5),
        grace_periods: false,
        twin: false,
        body: window_asked_again,
        reaches: &["locked"],
        needs: &["read_page.not_uptodate"],
    }
    .check();
}
