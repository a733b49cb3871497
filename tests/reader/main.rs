//! `FileReader` compared with `std::fs::File`: random sequences of operations on the same file must give the same results and
//! error kinds.
#![cfg(not(any(specmm_loom, specmm_shuttle)))]
#![allow(missing_docs, reason = "a test suite")]

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{MemfdFlags, memfd_create};
use specmm::store::{Fault, FaultyStore, MAX_SIZE, MemoryStore, Plan};
use specmm::{
    Advice, CacheOptions, Error, Io, Mm, MmOptions, OpenOptions, PAGE_SIZE, PageCache, StoreOptions,
};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SIZE: u64 = 40_000;

#[derive(Debug, Clone)]
enum Step {
    Read(usize),
    ReadExact(usize),
    ReadToEnd,
    Seek(SeekFrom),
    Position,
    Rewind,
    SeekBy(i64),
    /// Another program appends, and the reader seeks to the end.
    Append(usize),
}

fn offsets() -> impl Strategy<Value = u64> {
    let near = |at: u64| (at.saturating_sub(3)..=at.saturating_add(3)).boxed();
    prop_oneof![
        4 => 0..SIZE + 5_000,
        1 => near(SIZE),
        1 => near(4_096),
        1 => near(MAX_SIZE),
        1 => near(i64::MAX as u64),
        1 => near(u64::MAX),
        1 => any::<u64>(),
    ]
}

fn shifts() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => -40_100_i64..40_100,
        1 => -5_i64..5,
        1 => i64::MIN..i64::MIN + 4,
        1 => i64::MAX - 4..=i64::MAX,
        1 => any::<i64>(),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..9_000).prop_map(Step::Read),
        3 => (0_usize..9_000).prop_map(Step::ReadExact),
        1 => Just(Step::ReadToEnd),
        2 => offsets().prop_map(|at| Step::Seek(SeekFrom::Start(at))),
        2 => shifts().prop_map(|by| Step::Seek(SeekFrom::End(by))),
        2 => shifts().prop_map(|by| Step::Seek(SeekFrom::Current(by))),
        1 => Just(Step::Position),
        1 => Just(Step::Rewind),
        1 => shifts().prop_map(Step::SeekBy),
        1 => (1_usize..6_000).prop_map(Step::Append),
    ]
}

/// The result of a step: numbers, bytes, or the error by its kind and errno.
#[derive(Debug, PartialEq)]
enum Answer {
    Number(u64),
    Bytes(Vec<u8>),
    Failed(ErrorKind, Option<i32>),
}

impl From<std::io::Error> for Answer {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.kind(), error.raw_os_error())
    }
}

fn take(reader: &mut (impl Read + Seek), step: &Step) -> Answer {
    let number = |result: std::io::Result<u64>| result.map_or_else(Answer::from, Answer::Number);
    match *step {
        Step::Read(n) => {
            let mut bytes = vec![0; n];
            match reader.read(&mut bytes) {
                Ok(n) => Answer::Bytes(bytes[..n].to_vec()),
                Err(error) => error.into(),
            }
        }
        Step::ReadExact(n) => {
            let mut bytes = vec![0; n];
            reader.read_exact(&mut bytes).map_or_else(Answer::from, |()| Answer::Bytes(bytes))
        }
        Step::ReadToEnd => {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map_or_else(Answer::from, |_| Answer::Bytes(bytes))
        }
        Step::Seek(to) => number(reader.seek(to)),
        Step::Position => number(reader.stream_position()),
        Step::Rewind => number(reader.rewind().and_then(|()| reader.stream_position())),
        Step::SeekBy(by) => number(reader.seek_relative(by).and_then(|()| reader.stream_position())),
        Step::Append(_) => number(reader.seek(SeekFrom::End(0))),
    }
}

/// A file in memory: only there does Linux accept every position up to `i64::MAX`.
struct Data {
    path: PathBuf,
    _file: OwnedFd,
}

impl Data {
    fn new() -> Self {
        let file = memfd_create("specmm-reader", MemfdFlags::CLOEXEC).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into();
        let data = Self { path, _file: file };
        data.fill();
        data
    }

    fn fill(&self) {
        let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 7 % 251) as u8).collect();
        std::fs::write(&self.path, bytes).unwrap();
    }

    fn append(&self, n: usize) {
        let mut file = std::fs::File::options().append(true).open(&self.path).unwrap();
        file.write_all(&vec![b'+'; n]).unwrap();
    }
}

fn run(data: &Data, steps: &[Step], real: &mut (impl Read + Seek), reader: &mut (impl Read + Seek)) {
    for step in steps {
        if let Step::Append(n) = *step {
            data.append(n);
        }
        let before = real.stream_position().unwrap();
        let (theirs, ours) = (take(real, step), take(reader, step));
        assert_eq!(ours, theirs, "{step:?} from {before}");
        let positions = (reader.stream_position().unwrap(), real.stream_position().unwrap());
        assert_eq!(positions.0, positions.1, "after {step:?} from {before}");
    }
}

/// More in long runs.
fn config() -> Config {
    let deep = std::env::var_os("SPECMM_DEEP").is_some();
    Config { cases: if deep { 5_000 } else { 300 }, failure_persistence: None, ..Config::default() }
}

#[test]
fn a_reader_does_what_a_file_does() {
    let data = Data::new();
    let drawn = (prop::collection::vec(steps(), 1..30), any::<bool>());
    let result = TestRunner::new(config()).run(&drawn, |(steps, buffered)| {
        data.fill();
        let cache = PageCache::new(8 << 12, Io::Inline).unwrap();
        let file = cache.open_with(&data.path, OpenOptions::default().ra_pages(4)).unwrap();
        let (mut real, mut reader) = (std::fs::File::open(&data.path).unwrap(), file.reader());
        if buffered {
            let mut real = BufReader::with_capacity(1_000, real);
            run(&data, &steps, &mut real, &mut BufReader::with_capacity(1_000, reader));
        } else {
            run(&data, &steps, &mut real, &mut reader);
        }
        cache.check().unwrap();
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn lines_come_as_from_a_file() {
    let data = Data::new();
    let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
    let file = cache.open(&data.path).unwrap();
    let lines = |reader: &mut dyn BufRead| -> Vec<Vec<u8>> {
        let lines: std::io::Result<Vec<_>> = reader.split(b'\n').collect();
        lines.unwrap()
    };
    let ours = lines(&mut BufReader::new(file.reader()));
    assert!(ours.len() > 100, "{}", ours.len());
    assert_eq!(ours, lines(&mut BufReader::new(std::fs::File::open(&data.path).unwrap())));
    // Each reader has its own position, and a clone starts at the position of its original.
    let mut one = file.reader();
    one.seek(SeekFrom::Start(10)).unwrap();
    let mut two = one.clone();
    one.rewind().unwrap();
    assert_eq!((two.stream_position().unwrap(), two.file().name()), (10, file.name()));
}

fn kind_of(error: Error) -> (ErrorKind, Option<i32>, Option<String>) {
    let error = std::io::Error::from(error);
    let inner = error.get_ref().map(|inner| inner.downcast_ref::<Error>().expect("ours").to_string());
    (error.kind(), error.raw_os_error(), inner)
}

/// Each error, as it really arises.
#[test]
fn errors_are_of_the_kinds_that_the_standard_library_tells_apart() {
    let data = Data::new();
    let cache = PageCache::new(2 << 12, Io::Threads).unwrap();
    let long = "x".repeat(300);
    for path in ["/nowhere/at/all", "/", "/dev/null", "/dev/null/x", &long] {
        let plain = std::fs::File::open(path).and_then(|mut file| file.read(&mut [0]).map(|_| ()));
        let (kind, errno, inner) = kind_of(cache.open(path).unwrap_err());
        match plain {
            // A device could be read; the error says what it is.
            Ok(()) => assert_eq!((kind, errno), (ErrorKind::InvalidInput, None)),
            Err(error) => assert_eq!((kind, errno), (error.kind(), error.raw_os_error()), "{path:?}"),
        }
        assert_eq!(inner.is_some(), errno.is_none(), "{path:?}: {inner:?}");
    }

    let file = cache.open(&data.path).unwrap();
    let failed =
        |error: Error| (kind_of(error.clone()).0, kind_of(error.clone()).2 == Some(error.to_string()));
    assert_eq!(failed(file.pin(SIZE, 1).unwrap_err()), (ErrorKind::UnexpectedEof, true));
    assert_eq!(failed(file.pin(0, 5_000).unwrap_err()), (ErrorKind::InvalidInput, true));
    assert_eq!(failed("hugepage".parse::<Advice>().unwrap_err()), (ErrorKind::Unsupported, true));
    let refused = std::io::Error::from(file.truncate(1).unwrap_err());
    assert_eq!((refused.kind(), refused.raw_os_error()), (ErrorKind::InvalidInput, Some(22)));
    let pin = file.pin(0, 1).unwrap();
    assert_eq!(failed(file.close().unwrap_err()), (ErrorKind::ResourceBusy, true));
    drop(pin);
    let mut reader = file.reader();
    file.close().unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(reader.seek(SeekFrom::Start(0)).unwrap_err().kind(), ErrorKind::InvalidInput);

    let short = Plan { read: 1, fault: Fault::Short(3), for_ever: true };
    let short = FaultyStore::new(Arc::new(MemoryStore::new(vec![1; 10])), short);
    let short = cache.open_store(Arc::new(short), 10).unwrap();
    assert_eq!(short.reader().read_to_end(&mut Vec::new()).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    let broken = Plan { read: 1, fault: Fault::Error(28), for_ever: true };
    let broken = FaultyStore::new(Arc::new(MemoryStore::new(vec![1; 10])), broken);
    let error = cache.open_store(Arc::new(broken), 10).unwrap().reader().read(&mut [0]).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::StorageFull, Some(28)));
    let slow = Plan { read: 1, fault: Fault::Slow(Duration::from_millis(300)), for_ever: false };
    let slow = FaultyStore::new(Arc::new(MemoryStore::new(vec![1; 10])), slow);
    let patience = StoreOptions::default().name("slow").timeout(Duration::from_millis(10));
    let slow = cache.open_store_with(Arc::new(slow), 10, patience).unwrap();
    let error = slow.reader().read_exact(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().starts_with("slow: the store did not return"), "{error}");
    let no_page = PageCache::new(PAGE_SIZE as u64 - 1, Io::Inline).map(drop).unwrap_err();
    assert_eq!(failed(no_page), (ErrorKind::InvalidInput, true));

    let frames = CacheOptions::default().frame_timeout(Duration::ZERO);
    let tight = PageCache::with_options(PAGE_SIZE as u64, frames).unwrap();
    let file = tight.open(&data.path).unwrap();
    let _pin = file.pin(0, 1).unwrap();
    let full = file.pread(&mut [0], 2 * PAGE_SIZE as u64).unwrap_err();
    assert_eq!(failed(full), (ErrorKind::ResourceBusy, true));
    let mm = Mm::new(&tight, MmOptions::default()).unwrap();
    assert_eq!(failed(mm.load(PAGE_SIZE as u64, &mut [0]).unwrap_err()), (ErrorKind::InvalidInput, true));
}

static GIVE_UP: AtomicBool = AtomicBool::new(false);

/// `read_exact` and similar functions retry forever after an error of kind `Interrupted`.
#[test]
fn a_wait_that_is_given_up_ends_what_reads() {
    specmm::give_up_waiting_when(|| GIVE_UP.load(Ordering::Relaxed));
    let slow = Plan { read: 1, fault: Fault::Slow(Duration::from_secs(1)), for_ever: true };
    let slow = FaultyStore::new(Arc::new(MemoryStore::new(vec![1; 10])), slow);
    let cache = PageCache::new(2 << 12, Io::Threads).unwrap();
    let patience = StoreOptions::default().timeout(Duration::from_secs(60));
    let file = cache.open_store_with(Arc::new(slow), 10, patience).unwrap();
    GIVE_UP.store(true, Ordering::Relaxed);
    let error = file.reader().read_exact(&mut [0; 10]).unwrap_err();
    GIVE_UP.store(false, Ordering::Relaxed);
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(matches!(error.get_ref().unwrap().downcast_ref(), Some(Error::Interrupted(_))), "{error}");
}
