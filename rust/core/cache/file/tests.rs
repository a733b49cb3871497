//! Files as their users see them: bytes compared with a vector, and what each call answers.

use crate::cache::open_file::OpenFile;
use crate::store::{LocalFile, Look, MAX_SIZE, MemoryStore, Opening, Store};
use crate::sync::{Mutex, Tally};
use crate::{
    Advice, Error, File, Io, Mm, MmOptions, OpenMode, OpenOptions, Out, PAGE_SIZE, PageCache, Prot,
    StoreOptions,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const PAGE: u64 = PAGE_SIZE as u64;

fn byte(at: u64) -> u8 {
    (at % 251) as u8 + 1
}

fn bytes(size: u64) -> Vec<u8> {
    (0..size).map(byte).collect()
}

type Call<T> = fn(&File) -> Result<T, Error>;

/// A file on disk, gone with this.
struct Path(PathBuf);

impl Path {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("specmm-file-{name}-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Read(u64, usize),
    ReadCached(u64, usize),
    Gather(Vec<u64>, usize),
    Pin(u64, usize),
    Load(u64, usize),
    Truncate(u64),
    /// Others change the size, which is followed.
    Resize(u64),
    Revalidate,
    DropCaches,
    Reclaim(usize),
    Advise(Advice, u64, Option<u64>),
}

/// The most that the file has; the cache has 8 pages.
const MOST: u64 = 12 * PAGE;

fn offsets() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..MOST + PAGE,
        (0..13_u64, 0..5_u64).prop_map(|(page, by)| (page * PAGE + by).saturating_sub(2))
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let lengths = || prop_oneof![Just(0_usize), Just(1), 1..200_usize, 1..3 * PAGE_SIZE];
    let advice = prop_oneof![
        Just(Advice::Normal),
        Just(Advice::Random),
        Just(Advice::Sequential),
        Just(Advice::WillNeed),
        Just(Advice::DontNeed)
    ];
    prop_oneof![
        6 => (offsets(), lengths()).prop_map(|(at, length)| Step::Read(at, length)),
        3 => (offsets(), lengths()).prop_map(|(at, length)| Step::ReadCached(at, length)),
        3 => (prop::collection::vec(offsets(), 0..20), 0..200_usize).prop_map(|(at, length)| Step::Gather(at, length)),
        2 => (offsets(), lengths()).prop_map(|(at, length)| Step::Pin(at, length)),
        3 => (offsets(), lengths()).prop_map(|(at, length)| Step::Load(at, length)),
        2 => (0..MOST).prop_map(Step::Truncate),
        2 => (0..=12_u64).prop_map(|pages| Step::Truncate(pages * PAGE)),
        2 => (0..MOST).prop_map(Step::Resize),
        1 => Just(Step::Revalidate),
        1 => Just(Step::DropCaches),
        1 => (0..4_usize).prop_map(Step::Reclaim),
        2 => (advice, offsets(), prop::option::of(offsets())).prop_map(|(advice, at, length)| Step::Advise(advice, at, length)),
    ]
}

/// A file and what it must have.
struct Pair {
    cache: PageCache,
    store: Arc<MemoryStore>,
    file: File,
    mm: Mm,
    address: u64,
    right: Vec<u8>,
}

impl Pair {
    fn new(io: Io, ra_pages: u32) -> Self {
        let right = bytes(6 * PAGE + 100);
        let cache = PageCache::new(8 * PAGE, io).unwrap();
        let store = Arc::new(MemoryStore::new(right.clone()));
        let options = StoreOptions::default().ra_pages(ra_pages);
        let file =
            cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, right.len() as u64, options).unwrap();
        let mm = Mm::new(&cache, MmOptions::default()).unwrap();
        let address = mm.mmap(&file, Some(MOST + PAGE), 0, Prot::Read, true).unwrap();
        Self { cache, store, file, mm, address, right }
    }

    /// What the file has of a range.
    fn part(&self, at: u64, length: usize) -> &[u8] {
        let from = (at as usize).min(self.right.len());
        &self.right[from..(from + length).min(self.right.len())]
    }

    fn resize(&mut self, size: u64) {
        self.right.resize(size as usize, 0);
    }

    fn take(&mut self, step: &Step) {
        let size = self.right.len() as u64;
        match *step {
            Step::Read(at, length) => {
                let mut buf = vec![0xaa; length];
                let before = self.cache.stats();
                let n = self.file.pread(&mut buf, at).unwrap();
                assert_eq!(buf[..n], *self.part(at, length));
                let after = self.cache.stats();
                let pages = if n == 0 { 0 } else { (at + n as u64).div_ceil(PAGE) - at / PAGE };
                let (hits, misses) = (after.hits - before.hits, after.misses - before.misses);
                assert_eq!(hits + misses, pages, "{hits} and {misses}");
            }
            Step::ReadCached(at, length) => {
                let mut buf = vec![0xaa; length];
                if let Some(n) = self.file.read_cached(&mut buf, at) {
                    assert_eq!(buf[..n], *self.part(at, length));
                } else {
                    assert!(
                        buf.iter().all(|&byte| byte == 0xaa || byte == 0),
                        "what is not returned is wiped"
                    );
                }
            }
            Step::Gather(ref offsets, length) => {
                let mut buf = vec![0xaa; offsets.len() * length];
                let beyond = |&&at: &&u64| length > 0 && at + length as u64 > size;
                match (self.file.gather(offsets, length, &mut buf), offsets.iter().find(beyond)) {
                    (Ok(()), None) => {
                        for (row, &at) in buf.chunks(length.max(1)).zip(offsets) {
                            assert_eq!(row, self.part(at, length));
                        }
                    }
                    (Err(Error::Bus { index, offset, size: of, cause: None }), Some(&at)) => {
                        assert_eq!((index, offset, of), (at / PAGE, at, size));
                    }
                    (answer, beyond) => panic!("{answer:?} {beyond:?}"),
                }
            }
            Step::Pin(at, length) => match self.file.pin(at, length) {
                Ok(pin) => {
                    assert_eq!((pin.len(), pin.is_empty()), (length, false));
                    let before = pin.to_vec();
                    assert_eq!(before, self.part(at, length));
                    self.file.truncate(at).unwrap();
                    self.store.truncate(size).unwrap();
                    self.file.revalidate().unwrap();
                    self.right[at as usize..].fill(0);
                    assert_eq!(before, pin[..], "a pin is a snapshot");
                }
                Err(Error::InvalidArgument(_)) => assert!(length == 0 || at % PAGE + length as u64 > PAGE),
                Err(Error::Bus { index, offset, size: of, cause: None }) => {
                    assert_eq!((index, offset, of), (at / PAGE, at, size));
                    assert!(at + length as u64 > size);
                }
                Err(error) => panic!("{error}"),
            },
            Step::Load(at, length) => {
                let mut buf = vec![0xaa; length];
                let end = size.next_multiple_of(PAGE);
                let within = length == 0 || at + length as u64 <= end;
                match self.mm.load(self.address + at, &mut buf) {
                    Ok(()) => {
                        assert!(within);
                        let mut right = self.part(at, length).to_vec();
                        right.resize(length, 0);
                        assert_eq!(buf, right, "zeros after the end");
                    }
                    Err(Error::Bus { size: of, cause: None, .. }) => assert!(!within && of == size),
                    // Past the mapping.
                    Err(Error::Segmentation { .. }) => assert!(at + length as u64 > MOST + PAGE),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Truncate(size) => {
                self.file.truncate(size).unwrap();
                self.resize(size);
            }
            Step::Resize(size) => {
                self.store.truncate(size).unwrap();
                assert_eq!(self.file.revalidate().unwrap(), size);
                self.resize(size);
            }
            Step::Revalidate => assert_eq!(self.file.revalidate_dropping().unwrap(), size),
            Step::DropCaches => {
                self.cache.drop_caches().unwrap();
            }
            Step::Reclaim(pages) => assert!(self.cache.reclaim(pages).unwrap() <= pages),
            Step::Advise(advice, at, length) => self.file.advise(advice, at, length).unwrap(),
        }
        assert_eq!(self.file.size().unwrap(), self.right.len() as u64);
    }
}

#[test]
fn a_file_has_the_bytes_that_a_vector_would() {
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 100, failure_persistence: None, ..Config::default() },
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let (plans, ra_pages) = (prop::collection::vec(steps(), 1..40), prop_oneof![Just(0_u32), 1..12_u32]);
    let io = prop_oneof![3 => Just(Io::Inline), 1 => Just(Io::Threads)];
    runner
        .run(&(plans, ra_pages, io), |(plan, ra_pages, io)| {
            let mut pair = Pair::new(io, ra_pages);
            for step in &plan {
                pair.take(step);
                pair.cache.check().unwrap();
            }
            pair.mm.close().unwrap();
            pair.file.close().unwrap();
            pair.cache.check().unwrap();
            let stats = pair.cache.stats();
            assert_eq!(
                (stats.frames_in_use, stats.shadows, stats.xarray_nodes, stats.page_tables),
                (0, 0, 0, 0)
            );
            Ok(())
        })
        .unwrap();
}

/// A store of any size, of zeros; it may refuse to be changed.
#[derive(Default)]
struct Zeros {
    refuses: Mutex<bool>,
    truncated: Mutex<Vec<u64>>,
}

impl Store for Zeros {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
        buf.fill(0);
        Ok(buf.len())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.truncated.lock().push(size);
        if *self.refuses.lock() { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }
}

fn zeros(pages: u64) -> (Arc<Zeros>, PageCache, File) {
    let store = Arc::new(Zeros::default());
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let options = StoreOptions::default().name("zeros").ra_pages(0);
    let file = cache.open_store_with(Arc::clone(&store) as Arc<dyn Store>, pages * PAGE, options).unwrap();
    (store, cache, file)
}

#[test]
fn sizes_and_offsets_end_at_16_tib() {
    let (store, cache, file) = zeros(3);
    let refused = |answer: Result<(), Error>| {
        assert!(
            matches!(&answer, Err(Error::InvalidArgument(text)) if text.contains(&(MAX_SIZE + 1).to_string()))
        );
    };
    file.truncate(MAX_SIZE).unwrap();
    refused(file.truncate(MAX_SIZE + 1));
    assert_eq!((file.size().unwrap(), store.truncated.lock().clone()), (MAX_SIZE, vec![MAX_SIZE]));
    let mut bytes = [9; 4];
    assert_eq!(file.pread(&mut bytes, MAX_SIZE - 3).unwrap(), 3);
    assert_eq!(file.pread(&mut bytes, MAX_SIZE).unwrap(), 0);
    assert_eq!(bytes, [0, 0, 0, 9]);
    refused(file.pread(&mut bytes, MAX_SIZE + 1).map(drop));
    for advice in [Advice::Normal, Advice::DontNeed, Advice::WillNeed] {
        file.advise(advice, MAX_SIZE, None).unwrap();
        refused(file.advise(advice, MAX_SIZE + 1, Some(0)));
    }
    refused(file.advise(Advice::Random, MAX_SIZE + 1, None));
    assert_eq!(file.advice().unwrap(), Advice::Normal);
    assert!(matches!(file.pin(MAX_SIZE, 1), Err(Error::Bus { .. })));
    refused(file.pin(MAX_SIZE + 1, 1).map(drop));
    let call = file.one_version().unwrap();
    assert_eq!(file.pread_part(&call, Out::from(&mut bytes[..]), MAX_SIZE).unwrap(), Some(0));
    refused(file.pread_part(&call, Out::from(&mut bytes[..]), MAX_SIZE + 1).map(drop));
    cache.check().unwrap();
}

#[test]
fn a_refused_change_leaves_the_size_and_drops_no_whole_page_inside() {
    let (store, cache, file) = zeros(6);
    file.pread(&mut vec![0; 6 * PAGE_SIZE], 0).unwrap();
    *store.refuses.lock() = true;
    let resident = || file.residency(0, None).unwrap();
    // Growth touches nothing; of a shrink, the pages past the end went first, and with them the one that it would have cut.
    for (size, left) in [(9 * PAGE, 6), (6 * PAGE, 6), (5 * PAGE, 5), (3 * PAGE + 5, 3), (0, 0)] {
        let error = file.truncate(size).unwrap_err();
        assert!(
            matches!(&error, Error::Io(error) if error.errno() == 28 && error.file == "zeros"),
            "{error:?}"
        );
        assert_eq!(file.size().unwrap(), 6 * PAGE);
        assert_eq!(resident().iter().position(|&byte| byte == 0).unwrap_or(6), left, "{size}");
        assert_eq!(resident().into_iter().map(usize::from).sum::<usize>(), left, "{size}");
    }
    assert_eq!(*store.truncated.lock(), [9 * PAGE, 6 * PAGE, 5 * PAGE, 3 * PAGE + 5, 0]);
    assert_eq!(file.pread(&mut vec![0; 7 * PAGE_SIZE], 0).unwrap(), 6 * PAGE_SIZE);
    cache.check().unwrap();
}

#[test]
fn what_a_handle_was_opened_as_outlives_it() {
    let path = Path::new("modes", &bytes(100));
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    for (mode, size) in [(OpenMode::Read, 100), (OpenMode::ReadWrite, 100), (OpenMode::Create, 0)] {
        let file = cache.open_with(&path.0, OpenOptions::default().mode(mode)).unwrap();
        let is = |file: &File| (file.mode(), file.name() == path.0.as_os_str(), file.is_closed());
        assert_eq!((is(&file), file.size().unwrap()), ((mode, true, false), size));
        assert_eq!(file.pread(&mut [0; 100], 0).unwrap() as u64, size);
        let error = file.truncate(40).err();
        let einval = |error: &Error| matches!(error, Error::Io(error) if error.errno() == 22 && error.file == path.0.as_os_str());
        assert_eq!(error.is_some_and(|error| einval(&error)), mode == OpenMode::Read);
        if mode == OpenMode::Read {
            assert_eq!(file.read_cached(&mut [0; 100], 0), Some(100), "what is refused drops nothing");
        }
        assert_eq!(std::fs::metadata(&path.0).unwrap().len(), if mode == OpenMode::Read { 100 } else { 40 });
        file.close().unwrap();
        file.close().unwrap();
        assert_eq!(is(&file), (mode, true, true));
        std::fs::write(&path.0, bytes(100)).unwrap();
    }
    let exists = cache.open_with(&path.0, OpenOptions::default().mode(OpenMode::CreateNew)).unwrap_err();
    assert!(matches!(exists, Error::Io(error) if error.errno() == 17));
}

#[test]
fn every_call_of_a_closed_file_says_what_is_closed() {
    let calls: [Call<()>; 15] = [
        |file| file.size().map(drop),
        |file| file.look().map(drop),
        |file| file.truncate(5),
        |file| file.advise(Advice::Normal, 0, None),
        |file| file.advice().map(drop),
        |file| file.readahead_state().map(drop),
        |file| file.filemap_fault(0, true).map(drop),
        |file| file.filemap_fault(0, false).map(drop),
        |file| file.revalidate().map(drop),
        |file| file.revalidate_dropping().map(drop),
        |file| file.pread(&mut [0], 0).map(drop),
        |file| file.gather(&[0], 1, &mut [0]),
        |file| file.gather_cached(&[0], 1, &mut [0]).map(drop),
        |file| file.pin(0, 1).map(drop),
        |file| file.one_version_now().map(drop),
    ];
    for (close, what) in [
        ((|_, file| file.close()) as fn(&PageCache, &File) -> Result<(), Error>, "file \"zeros\""),
        (|cache, _| cache.close(), "the page cache"),
        (|cache, file| file.close().and_then(|()| cache.close()), "the page cache"),
    ] {
        let (_store, cache, file) = zeros(1);
        file.pread(&mut [0], 0).unwrap();
        for call in calls {
            call(&file).unwrap();
        }
        file.truncate(PAGE).unwrap();
        close(&cache, &file).unwrap();
        for call in calls {
            let answer = call(&file);
            assert!(matches!(&answer, Err(Error::Closed(found)) if found == what), "{answer:?}");
        }
        assert_eq!(file.read_cached(&mut [0], 0), None);
        close(&cache, &file).unwrap();
    }
}

#[test]
fn a_file_with_pins_stays_open() {
    let (_store, cache, file) = zeros(2);
    let pins = [file.pin(0, 1).unwrap(), file.pin(PAGE + 7, 9).unwrap()];
    let error = file.close().unwrap_err();
    assert!(
        matches!(&error, Error::Pinned(text) if text.contains("\"zeros\"") && text.contains("2 live pins"))
    );
    let error = cache.close().unwrap_err();
    assert!(matches!(&error, Error::Pinned(text) if text.contains("2 of its pages")), "{error:?}");
    assert!(!file.is_closed() && !cache.is_closed());
    assert_eq!(file.pread(&mut [0; 4], PAGE).unwrap(), 4);
    drop(pins);
    file.close().unwrap();
    cache.close().unwrap();
    assert!(file.is_closed() && cache.is_closed());
}

#[test]
fn a_path_that_names_another_file_is_followed() {
    let path = Path::new("followed", &bytes(3 * PAGE));
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let options = OpenOptions::default().mode(OpenMode::ReadWrite).ra_pages(8);
    let file = cache.open_with(&path.0, options).unwrap();
    file.advise(Advice::Sequential, 0, None).unwrap();
    let mut page = [0; PAGE_SIZE];
    file.pread(&mut page, 0).unwrap();
    let pin = file.pin(PAGE, 5).unwrap();
    let (reads, ahead) = (cache.stats().reads, file.readahead_state().unwrap());
    assert!(ahead.size > 0 && ahead.prev_pos > 0, "{ahead:?}");
    assert_eq!(file.revalidate().unwrap(), 3 * PAGE);
    assert_eq!(file.read_cached(&mut page, 0), Some(PAGE_SIZE), "the same file keeps its pages");
    assert_eq!(file.readahead_state().unwrap(), ahead, "and the same open its window");
    let follows: [Call<u64>; 2] = [File::revalidate, File::revalidate_dropping];
    for (number, follow) in (1..).zip(follows) {
        let other = Path::new("other", &vec![number; 5000]);
        std::fs::rename(&other.0, &path.0).unwrap();
        assert_eq!(file.size().unwrap(), if number == 1 { 3 * PAGE } else { 5000 }, "nobody has looked");
        assert_eq!(follow(&file).unwrap(), 5000);
        assert_eq!((file.pread(&mut page, PAGE).unwrap(), page[0]), (5000 - PAGE_SIZE, number));
        assert_eq!((file.mode(), file.advice().unwrap()), (OpenMode::ReadWrite, Advice::Sequential));
        assert_eq!(file.readahead_state().unwrap().ra_pages, 16);
    }
    assert!(cache.stats().reads > reads);
    file.truncate(4096).unwrap();
    assert_eq!(std::fs::metadata(&path.0).unwrap().len(), 4096, "the file that the path names");
    assert_eq!(pin[..], bytes(PAGE + 5)[PAGE_SIZE..], "of the file that it was");
    drop(pin);
    // A file that was deleted stays readable; what cannot be opened is an error.
    std::fs::remove_file(&path.0).unwrap();
    assert_eq!((file.revalidate().unwrap(), file.pread(&mut page, 0).unwrap()), (4096, 4096));
    std::fs::create_dir(&path.0).unwrap();
    let error = file.revalidate().unwrap_err();
    assert!(
        matches!(&error, Error::Io(error) if error.errno() == 21 && error.file == path.0.as_os_str()),
        "{error:?}"
    );
    assert_eq!(file.pread(&mut page, 0).unwrap(), 4096);
    std::fs::remove_dir(&path.0).unwrap();
    cache.check().unwrap();
}

#[test]
fn a_new_file_is_created_once() {
    let path = Path::new("created", b"");
    std::fs::remove_file(&path.0).unwrap();
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let file = cache.open_with(&path.0, OpenOptions::default().mode(OpenMode::CreateNew)).unwrap();
    file.truncate(10).unwrap();
    let other = Path::new("created-other", &bytes(20));
    std::fs::rename(&other.0, &path.0).unwrap();
    assert_eq!((file.revalidate().unwrap(), file.mode()), (20, OpenMode::CreateNew));
    file.truncate(15).unwrap();
    assert_eq!(std::fs::read(&path.0).unwrap(), bytes(15));
}

#[test]
fn a_file_opened_for_reading_follows_its_path_to_one_that_cannot_be_written() {
    let path = Path::new("running", &bytes(10));
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let file = cache.open(&path.0).unwrap();
    // A program that runs is "text file busy" for writers, also for the superuser.
    let program = std::env::current_exe().unwrap();
    std::fs::remove_file(&path.0).unwrap();
    std::os::unix::fs::symlink(&program, &path.0).unwrap();
    assert_eq!(file.revalidate().unwrap(), std::fs::metadata(&program).unwrap().len());
    let mut start = [0; 4];
    assert_eq!((file.pread(&mut start, 0).unwrap(), &start), (4, b"\x7fELF"));
}

#[test]
fn a_path_that_cannot_be_looked_at_is_an_error() {
    let folder = std::env::temp_dir().join(format!("specmm-folder-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("file");
    std::fs::write(&path, bytes(10)).unwrap();
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let file = cache.open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_dir(&folder).unwrap();
    std::fs::write(&folder, b"no folder").unwrap();
    let error = file.revalidate().unwrap_err();
    assert!(matches!(&error, Error::Io(error) if error.errno() == 20), "{error:?}");
    std::fs::remove_file(&folder).unwrap();
    assert_eq!(file.revalidate().unwrap(), 10, "a file that was deleted stays readable");
}

#[test]
fn caches_have_at_least_a_page_and_at_most_4_tib() {
    for (bytes, frames) in [(PAGE, 1), (2 * PAGE - 1, 1), (5 * PAGE + 7, 5)] {
        assert_eq!(PageCache::new(bytes, Io::Inline).unwrap().capacity_frames(), frames);
    }
    // Not every system has so much.
    match PageCache::new(PAGE << 30, Io::Inline) {
        Ok(cache) => assert_eq!(cache.capacity_frames(), 1 << 30),
        Err(error) => assert!(matches!(error, Error::OutOfMemory { .. }), "{error}"),
    }
    for bytes in [0, PAGE - 1, ((1 << 30) + 1) * PAGE, u64::MAX] {
        let refused = PageCache::new(bytes, Io::Inline).unwrap_err();
        assert!(
            matches!(&refused, Error::InvalidArgument(text) if text.contains(&format!("{bytes} bytes"))),
            "{refused:?}"
        );
    }
}

/// A store that must not be asked for anything.
struct Untouchable;

impl Store for Untouchable {
    fn read_at(&self, _buf: &mut [u8], offset: u64) -> io::Result<usize> {
        panic!("it is read at {offset}");
    }

    fn size(&self) -> io::Result<Option<u64>> {
        panic!("it is asked for its size");
    }

    fn look(&self) -> io::Result<Look> {
        panic!("it is looked at");
    }
}

#[test]
fn stores_are_opened_within_limits() {
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let open =
        |cache: &PageCache, size, options| cache.open_store_with(Arc::new(Zeros::default()), size, options);
    let plain = StoreOptions::default();
    assert_eq!(open(&cache, MAX_SIZE, plain).unwrap().size().unwrap(), MAX_SIZE);
    open(&cache, 0, plain.ra_pages(1 << 18)).unwrap();
    let path = Path::new("limits", b"");
    cache.open_with(&path.0, OpenOptions::default().ra_pages(1 << 18)).unwrap();
    let timeout = Duration::from_millis(250);
    for (refused, what) in [
        (open(&cache, MAX_SIZE + 1, plain), "17592186044417"),
        (open(&cache, 0, plain.ra_pages((1 << 18) + 1)), "262145"),
        (open(&cache, 0, plain.timeout(timeout)), "0.25 s"),
        (cache.open_with(&path.0, OpenOptions::default().ra_pages((1 << 18) + 1)), "262145"),
    ] {
        assert!(matches!(&refused, Err(Error::InvalidArgument(text)) if text.contains(what)), "{refused:?}");
    }
    for (size, options) in
        [(MAX_SIZE + 1, plain), (0, plain.ra_pages((1 << 18) + 1)), (0, plain.timeout(timeout))]
    {
        assert!(cache.open_store_with(Arc::new(Untouchable), size, options).is_err());
    }
    let threads = PageCache::new(1 << 20, Io::Threads).unwrap();
    let file = open(&threads, 100, plain.timeout(timeout)).unwrap();
    assert_eq!(file.pread(&mut [1; 4], 98).unwrap(), 2);
    threads.close().unwrap();
    cache.close().unwrap();
    for closed in [
        open(&cache, 0, plain).map(drop),
        cache.open(&path.0).map(drop),
        // Before anything is created.
        cache.open_with(path.0.join("none"), OpenOptions::default().mode(OpenMode::Create)).map(drop),
        cache.reclaim(1).map(drop),
        cache.drop_caches().map(drop),
    ] {
        assert!(matches!(&closed, Err(Error::Closed(what)) if what == "the page cache"), "{closed:?}");
    }
}

/// A store whose reads take a while.
#[derive(Default)]
struct Slow {
    begun: Tally,
    ended: Tally,
}

impl Store for Slow {
    fn read_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<usize> {
        self.begun.add(1);
        std::thread::sleep(Duration::from_millis(20));
        buf.fill(7);
        self.ended.add(1);
        Ok(buf.len())
    }
}

#[test]
fn a_cache_that_is_closed_has_ended_its_reads() {
    let cache = PageCache::new(1 << 20, Io::Threads).unwrap();
    let store = Arc::new(Slow::default());
    let file = cache.open_store(Arc::clone(&store) as Arc<dyn Store>, 8 * PAGE).unwrap();
    file.advise(Advice::WillNeed, 0, None).unwrap();
    while store.begun.tallied() == 0 {
        std::thread::yield_now();
    }
    cache.close().unwrap();
    assert_eq!((store.begun.tallied(), store.ended.tallied()), (1, 1));
}

#[test]
fn a_reader_past_every_file_has_a_file_all_the_same() {
    let (_store, _cache, file) = zeros(1);
    let mut reader = file.reader();
    reader.seek(SeekFrom::Start(MAX_SIZE + 1)).unwrap();
    assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
    file.close().unwrap();
    assert!(reader.read(&mut [0; 4]).unwrap_err().to_string().contains("\"zeros\""));
}

#[test]
fn what_is_dropped_and_what_is_evicted_is_counted() {
    let (_store, cache, file) = zeros(6);
    let (_other_store, other_cache, _) = zeros(1);
    let other = cache
        .open_store_with(Arc::new(Zeros::default()), 3 * PAGE, StoreOptions::default().ra_pages(0))
        .unwrap();
    file.pread(&mut vec![0; 6 * PAGE_SIZE], 0).unwrap();
    other.pread(&mut vec![0; 3 * PAGE_SIZE], 0).unwrap();
    assert_eq!((cache.reclaim(0).unwrap(), cache.reclaim(2).unwrap()), (0, 2));
    assert_eq!((cache.stats().frames_in_use, cache.stats().evictions), (7, 2));
    let pin = other.pin(2 * PAGE, 1).unwrap();
    assert_eq!(cache.drop_caches().unwrap(), 6);
    assert_eq!((cache.stats().frames_in_use, cache.stats().dropped), (1, 6));
    drop(pin);
    assert_eq!((cache.drop_caches().unwrap(), cache.drop_caches().unwrap()), (1, 0));
    assert_eq!((cache.reclaim(5).unwrap(), other_cache.drop_caches().unwrap()), (0, 0));
    cache.settle();
    cache.check().unwrap();
}

#[test]
fn opens_of_one_file_share_its_pages() {
    let path = Path::new("shared", &bytes(2 * PAGE));
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let plain = OpenOptions::default().ra_pages(0);
    let first = cache.open_with(&path.0, plain).unwrap();
    first.pread(&mut [0; 2 * PAGE_SIZE], 0).unwrap();
    let second = cache.open_with(&path.0, plain.mode(OpenMode::ReadWrite)).unwrap();
    assert_eq!(second.read_cached(&mut [0; 8], 9), Some(8));
    second.truncate(PAGE + 3).unwrap();
    assert_eq!((first.size().unwrap(), first.residency(0, None).unwrap()), (PAGE + 3, vec![1, 1]));
    // An open looks at the file.
    std::fs::write(&path.0, bytes(7)).unwrap();
    assert_eq!(first.size().unwrap(), PAGE + 3);
    let third = cache.open_with(&path.0, plain).unwrap();
    assert_eq!([&first, &second, &third].map(|file| file.size().unwrap()), [7; 3]);
    let mut found = [0; 9];
    assert_eq!((first.pread(&mut found, 0).unwrap(), &found[..7]), (7, &bytes(7)[..]));
    // Its pages go with its last user.
    first.close().unwrap();
    third.close().unwrap();
    assert_eq!(cache.stats().frames_in_use, 1);
    second.close().unwrap();
    cache.check().unwrap();
    assert_eq!(cache.stats().frames_in_use, 0);
    let again = cache.open_with(&path.0, plain).unwrap();
    assert_eq!(again.read_cached(&mut [0; 8], 0), None);
    assert_eq!(again.size().unwrap(), 7);
}

#[test]
fn what_was_appended_while_a_file_was_opened_is_found() {
    let path = Path::new("appended", &bytes(100));
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let store = LocalFile::open(&path.0, Opening::default()).unwrap();
    let identity = store.identity().unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    assert_ne!(store.look().unwrap(), Look::default());
    // It had 60 bytes when its size was asked for.
    let mapping = cache.files().mapping(Some(identity), &store, 60, "appended".as_ref()).unwrap();
    let open = OpenFile::new(mapping, store, OpenMode::Read, 0);
    let file = File::new(cache.files(), open, "appended".as_ref(), None);
    assert_eq!(file.size().unwrap(), 60);
    assert_eq!(file.pread(&mut [0; 200], 0).unwrap(), 100);
    assert_eq!(file.size().unwrap(), 100);
    cache.check().unwrap();
}

#[test]
fn what_a_truncation_cuts_off_comes_back_as_zeros() {
    let size = 3 * PAGE + 50;
    for page in 0..4 {
        for by in [0, 1, 2, 7, 8, 9, 49, PAGE - 1] {
            let cut = (page * PAGE + by).min(size);
            for ra_pages in [0, 8] {
                let mut pair = Pair::new(Io::Inline, ra_pages);
                pair.take(&Step::Truncate(size));
                pair.take(&Step::Read(0, size as usize));
                let reads = pair.cache.stats().reads;
                pair.take(&Step::Truncate(cut));
                let left = cut.div_ceil(PAGE);
                assert_eq!(pair.file.residency(0, None).unwrap(), vec![1; left as usize], "{cut}");
                pair.take(&Step::Truncate(size));
                pair.take(&Step::Load(0, 4 * PAGE_SIZE));
                pair.take(&Step::Read(0, 4 * PAGE_SIZE));
                assert_eq!(pair.cache.stats().reads > reads, left < 4, "{cut}");
                pair.cache.check().unwrap();
            }
        }
    }
}

#[test]
fn a_marker_is_served_to_those_who_do_not_read_ahead() {
    let path = Path::new("marker", &bytes(40 * PAGE));
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let ahead = cache.open_with(&path.0, OpenOptions::default().ra_pages(8)).unwrap();
    let alone = cache.open_with(&path.0, OpenOptions::default().ra_pages(0)).unwrap();
    ahead.pread(&mut [0; 9], 0).unwrap();
    let (pages, reads) = (cache.stats().readahead_pages, cache.stats().reads);
    let mut found = [0; 9];
    let mut marked = 0;
    for index in 0..pages {
        marked += u64::from(alone.read_cached(&mut found, index * PAGE).is_none());
        assert_eq!(alone.pread(&mut found, index * PAGE).unwrap(), 9);
        assert_eq!(found[..], bytes(index * PAGE + 9)[(index * PAGE) as usize..]);
    }
    assert_eq!((marked, cache.stats().reads), (1, reads));
    cache.check().unwrap();
}
