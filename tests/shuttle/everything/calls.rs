//! The calls that a thread draws, each with what it claims.

use super::store::version_of;
use super::world::{Area, CUT, KEPT, REMOTE, REWRITTEN, World};
use super::{PAGE, PAGES, WORDS};
use crate::cache::{Advice, File, Pinned, StoreOptions};
use crate::error::Error;
use crate::mm::{Madvise, Prot};
use crate::page::PAGE_SIZE;
use crate::shuttle_harness::{contents, reach, word, words};
use crate::store::MemoryStore;
use crate::sync::imp::draw;
use std::io::Read;
use std::sync::Arc;

/// A pin, and what it showed at first.
struct Held {
    pinned: Pinned,
    file: usize,
    bytes: Vec<u8>,
}

/// One thread that calls.
pub(super) struct Caller {
    pub(super) world: Arc<World>,
    /// The version of the rewritten file before which this thread may find nothing any more.
    since: u64,
    held: Option<Held>,
}

pub(super) type Call = fn(&mut Caller);

/// Calls on files and on the cache.
pub(super) const FILES: &[Call] = &[
    Caller::read,
    Caller::read,
    Caller::read_on,
    Caller::hit,
    Caller::gather,
    Caller::gather_hits,
    Caller::pin,
    Caller::pin,
    Caller::unpin,
    Caller::unpin,
    Caller::truncate,
    Caller::rewrite,
    Caller::revalidate,
    Caller::advise,
    Caller::drop_caches,
    Caller::reclaim,
    Caller::settle,
    Caller::residency,
    Caller::fault_alone,
    Caller::open,
    Caller::open_again,
];

/// Calls on address spaces.
pub(super) const SPACES: &[Call] = &[
    Caller::load,
    Caller::load,
    Caller::store,
    Caller::fault,
    Caller::touch,
    Caller::mmap,
    Caller::munmap,
    Caller::mprotect,
    Caller::madvise,
    Caller::pagemap,
];

/// Calls that end something for everybody.
pub(super) const ENDS: &[Call] = &[Caller::close_file, Caller::close_space, Caller::close_cache];

fn nothing_else(_error: &Error) -> bool {
    false
}

/// There is nothing at that place of the file, or others rewrite it too often.
fn is_beyond_or_stale(error: &Error) -> bool {
    match error {
        Error::Bus { cause: None, .. } => reach("beyond the end"),
        Error::Io(cause) if cause.is_change() => reach("rewritten too often"),
        _ => return false,
    }
    true
}

/// Others have unmapped the range, or mapped another file there.
fn is_unmapped(error: &Error) -> bool {
    matches!(error, Error::InvalidArgument(_) | Error::Unsupported(_))
}

/// As an access may be refused.
fn is_fault(error: &Error) -> bool {
    if matches!(error, Error::Segmentation { .. }) {
        reach("nothing mapped");
        return true;
    }
    is_beyond_or_stale(error)
}

impl Caller {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), since: 0, held: None }
    }

    /// Claim: whatever ran meanwhile, the bytes of a pin are what they were.
    pub(super) fn look_at_pin(&self) {
        let Some(Held { pinned, bytes, .. }) = &self.held else { return };
        let mut now = vec![0; bytes.len()];
        pinned.read(&mut now);
        assert_eq!(&now, bytes, "the bytes of a pin changed");
    }

    fn file(&self) -> (usize, &File) {
        let file = draw(self.world.files.len());
        (file, &self.world.files[file])
    }

    /// A word of a file, and how many from there on, up to two pages.
    fn range() -> (u64, usize) {
        (draw((PAGES * WORDS) as usize) as u64, 1 + draw(2 * WORDS as usize))
    }

    fn read(&mut self) {
        let ((file, of), (at, count)) = (self.file(), Self::range());
        let mut buf = vec![0xEE; count * 8];
        match of.pread(&mut buf, at * 8) {
            Ok(got) => self.judge(file, at, count, &buf[..got]),
            Err(error) => self.world.refused(&error, is_beyond_or_stale),
        }
    }

    fn judge(&self, file: usize, at: u64, count: usize, bytes: &[u8]) {
        self.world.judge(file, at, count, &words(bytes).collect::<Vec<_>>(), self.since);
    }

    /// Two reads of a stream.
    fn read_on(&mut self) {
        let (file, of) = self.file();
        let mut reader = of.reader();
        let mut at = 0;
        for _ in 0..2 {
            let mut buf = [0xEE; PAGE_SIZE];
            match reader.read(&mut buf) {
                Ok(got) => self.judge(file, at, WORDS as usize, &buf[..got]),
                Err(error) => {
                    let error = error.downcast::<Error>().expect("an error of ours");
                    return self.world.refused(&error, is_beyond_or_stale);
                }
            }
            at += WORDS;
        }
    }

    fn hit(&mut self) {
        let ((file, of), (at, count)) = (self.file(), Self::range());
        let mut buf = vec![0xEE; count * 8];
        if let Some(got) = of.read_cached(&mut buf, at * 8) {
            reach("hit");
            self.judge(file, at, count, &buf[..got]);
        }
    }

    /// Offsets of two words.
    fn rows() -> [u64; 2] {
        [0, 1].map(|_| draw((PAGES * WORDS) as usize) as u64 * 8)
    }

    /// Claim: rows of one call are right, and of one version.
    fn judge_rows(&self, file: usize, rows: &[u64], bytes: &[u8]) {
        let found: Vec<_> = words(bytes).collect();
        for (row, found) in rows.iter().zip(&found) {
            self.world.judge(file, row / 8, 1, &[*found], self.since);
        }
        if file == REWRITTEN {
            let versions: Vec<_> = found.iter().map(|&found| version_of(found)).collect();
            assert!(versions.windows(2).all(|two| two[0] == two[1]), "rows of the versions {versions:?}");
        }
    }

    fn gather(&mut self) {
        let ((file, of), rows) = (self.file(), Self::rows());
        let mut buf = [0xEE; 16];
        match of.gather(&rows, 8, &mut buf) {
            Ok(()) => self.judge_rows(file, &rows, &buf),
            Err(error) => self.world.refused(&error, is_beyond_or_stale),
        }
    }

    fn gather_hits(&mut self) {
        let ((file, of), rows) = (self.file(), Self::rows());
        let mut buf = [0xEE; 16];
        match of.gather_cached(&rows, 8, &mut buf) {
            Ok(served) => self.judge_rows(file, &rows[..served], &buf[..served * 8]),
            Err(error) => self.world.refused(&error, nothing_else),
        }
    }

    fn pin(&mut self) {
        self.unpin();
        let (file, of) = self.file();
        let page = draw(PAGES as usize) as u64;
        match of.pin(page * PAGE, PAGE_SIZE) {
            Ok(pinned) => {
                self.world.pins.lock().unwrap()[file] += 1;
                reach("pinned");
                let mut bytes = vec![0xEE; PAGE_SIZE];
                pinned.read(&mut bytes);
                self.judge(file, page * WORDS, WORDS as usize, &bytes);
                self.held = Some(Held { pinned, file, bytes });
            }
            Err(error) => self.world.refused(&error, is_beyond_or_stale),
        }
    }

    pub(super) fn unpin(&mut self) {
        if let Some(Held { pinned, file, .. }) = self.held.take() {
            self.world.pins.lock().unwrap()[file] -= 1;
            drop(pinned);
        }
    }

    fn truncate(&mut self) {
        let file = &self.world.files[[CUT, REMOTE][draw(2)]];
        let size = [KEPT * 8, (KEPT + 2) * 8, PAGES * PAGE][draw(3)];
        if let Err(error) = file.truncate(size) {
            self.world.refused(&error, nothing_else);
        }
    }

    /// What other programs do.
    fn rewrite(&mut self) {
        self.world.rewritten.rewrite();
    }

    /// Claim: afterwards nothing older is found.
    fn revalidate(&mut self) {
        let file = &self.world.files[REWRITTEN];
        let version = self.world.rewritten.version();
        let answer = match draw(3) {
            0 => file.revalidate(),
            1 => file.revalidate_dropping(),
            _ => file.look(),
        };
        match answer {
            Ok(_) => self.since = version,
            Err(error) => self.world.refused(&error, nothing_else),
        }
    }

    fn advise(&mut self) {
        let (_, file) = self.file();
        let advice = [Advice::WillNeed, Advice::DontNeed, Advice::Random, Advice::Sequential][draw(4)];
        if let Err(error) = file.advise(advice, draw(2) as u64 * PAGE, Some(2 * PAGE)) {
            self.world.refused(&error, nothing_else);
        }
    }

    fn drop_caches(&mut self) {
        match self.world.cache.drop_caches() {
            Ok(0) => {}
            Ok(_) => reach("dropped"),
            Err(error) => self.world.refused(&error, nothing_else),
        }
    }

    fn reclaim(&mut self) {
        match self.world.cache.reclaim(1 + draw(2)) {
            Ok(0) => {}
            Ok(_) => reach("reclaimed"),
            Err(error) => self.world.refused(&error, nothing_else),
        }
    }

    fn settle(&mut self) {
        self.world.cache.settle();
    }

    /// Which pages of all files are cached.
    fn residency(&mut self) {
        for file in &self.world.files {
            for answer in [
                file.residency(0, None).map(|resident| resident.len() as u64),
                file.resident_in(2).map(|(pages, _)| pages),
            ] {
                match answer {
                    Ok(pages) => assert!(pages <= PAGES, "{pages} pages"),
                    Err(error) => self.world.refused(&error, nothing_else),
                }
            }
        }
    }

    fn fault_alone(&mut self) {
        let (_, file) = self.file();
        if let Err(error) = file.filemap_fault(draw(PAGES as usize) as u64, draw(2) == 0) {
            self.world.refused(&error, is_beyond_or_stale);
        }
    }

    /// A file of one's own, from open to close.
    fn open(&mut self) {
        const OWN: u64 = 7;
        let store = Arc::new(MemoryStore::new(contents(OWN, 1)));
        let file = match self.world.cache.open_store_with(store, PAGE, StoreOptions::default().ra_pages(0)) {
            Ok(file) => file,
            Err(error) => return self.world.refused(&error, nothing_else),
        };
        let mut buf = [0xEE; 8];
        match file.pread(&mut buf, 8) {
            Ok(got) => assert_eq!((got, u64::from_ne_bytes(buf)), (8, word(OWN, 1))),
            Err(error) => self.world.refused(&error, nothing_else),
        }
        file.close().unwrap();
        assert!(
            matches!(file.pread(&mut buf, 8), Err(Error::Closed(_))),
            "read through a file that is closed"
        );
    }

    /// Another open of the file that others rewrite.
    fn open_again(&mut self) {
        match self.world.cache.adopt(&self.world.files[REWRITTEN]) {
            Ok(again) => {
                let mut buf = [0xEE; 2 * PAGE_SIZE];
                match again.pread(&mut buf, 0) {
                    Ok(got) => self.judge(REWRITTEN, 0, 2 * WORDS as usize, &buf[..got]),
                    Err(error) => self.world.refused(&error, is_beyond_or_stale),
                }
                again.close().unwrap();
            }
            Err(error) => self.world.refused(&error, nothing_else),
        }
    }

    /// An area and the address of a word in it.
    fn address(&self) -> Option<(Area, u64)> {
        let area = self.world.area()?;
        Some((area, area.base + draw((area.pages * WORDS) as usize) as u64 * 8))
    }

    fn load(&mut self) {
        let Some((area, address)) = self.address() else { return };
        self.load_from(area, address);
    }

    fn load_from(&self, area: Area, address: u64) {
        let mut buf = [0xEE; 8];
        match self.world.mms[area.mm].load(address, &mut buf) {
            Ok(()) => {
                reach("load");
                self.world.loaded(area.mm, address, u64::from_ne_bytes(buf), self.since);
            }
            Err(error) => self.world.refused(&error, is_fault),
        }
    }

    fn store(&mut self) {
        let Some((area, address)) = self.address() else { return };
        match self.world.mms[area.mm].store(address, &World::to_store(address).to_ne_bytes()) {
            Ok(()) => reach("store"),
            Err(error) => self.world.refused(&error, is_fault),
        }
    }

    fn fault(&mut self) {
        let Some((area, address)) = self.address() else { return };
        let outcome = self.world.mms[area.mm].fault(address, draw(4) == 0);
        match outcome.error {
            Some(error) => self.world.refused(&error, is_fault),
            None if outcome.abort.is_none() && area.mm == 0 => reach("commit"),
            None => reach("classic"),
        }
    }

    fn touch(&mut self) {
        let Some(area) = self.world.area() else { return };
        if let Err(error) = self.world.mms[area.mm].touch(area.base, 2 * PAGE, PAGE, false) {
            self.world.refused(&error, is_fault);
        }
    }

    /// Maps a file, and loads from there.
    fn mmap(&mut self) {
        let (mm, file) = (draw(self.world.mms.len()), draw(self.world.files.len()));
        match self.world.map(mm, file, draw(2) as u64, draw(2) == 0) {
            Ok(area) => self.load_from(area, area.base + 8),
            Err(error) => self.world.refused(&error, nothing_else),
        }
    }

    /// Claim: what is in the list is mapped.
    fn munmap(&mut self) {
        let area = {
            let mut areas = self.world.areas.lock().unwrap();
            if areas.is_empty() {
                return;
            }
            let at = draw(areas.len());
            areas.swap_remove(at)
        };
        if let Err(error) = self.world.mms[area.mm].munmap(area.base, area.pages * PAGE) {
            self.world.refused(&error, nothing_else);
        }
    }

    fn mprotect(&mut self) {
        let Some(area) = self.world.area() else { return };
        let prot = [Prot::Read, Prot::ReadWrite][draw(2)];
        if let Err(error) = self.world.mms[area.mm].mprotect(area.base + PAGE, PAGE, prot) {
            self.world.refused(&error, is_unmapped);
        }
    }

    fn madvise(&mut self) {
        let Some(area) = self.world.area() else { return };
        let advice = [Madvise::DontNeed, Madvise::WillNeed, Madvise::Random, Madvise::Normal][draw(4)];
        if let Err(error) = self.world.mms[area.mm].madvise(area.base, 2 * PAGE, advice) {
            self.world.refused(&error, is_unmapped);
        }
    }

    /// All entries of all areas. Claim: entries are those of pages, or of private copies, which alone may be writable.
    fn pagemap(&mut self) {
        let areas = self.world.areas.lock().unwrap().clone();
        for area in areas {
            match self.world.mms[area.mm].pagemap(area.base, area.pages * PAGE) {
                Ok(map) => assert!(map.iter().all(|entry| [0, 1, 5, 7].contains(entry)), "{map:?}"),
                Err(error) => self.world.refused(&error, nothing_else),
            }
        }
    }

    /// Claim: a file that is closed has no pins, and answers no more.
    fn close_file(&mut self) {
        let (number, file) = self.file();
        match file.close() {
            Ok(()) => {
                assert_eq!(self.world.pins.lock().unwrap()[number], 0, "pins of a file that is closed");
                reach("file closed");
                let refused = file.pread(&mut [0], 0);
                assert!(matches!(refused, Err(Error::Closed(_))), "{refused:?}");
            }
            Err(error) => self.world.refused(&error, is_pinned),
        }
    }

    /// Claim: an address space that is closed answers no more.
    fn close_space(&mut self) {
        let mm = &self.world.mms[draw(self.world.mms.len())];
        mm.close().unwrap();
        reach("space closed");
        let refused = mm.load(0, &mut [0]);
        assert!(matches!(refused, Err(Error::Closed(_))), "{refused:?}");
    }

    /// Claim: a cache that is closed has no pins, and answers no more.
    fn close_cache(&mut self) {
        match self.world.cache.close() {
            Ok(()) => {
                assert_eq!(*self.world.pins.lock().unwrap(), [0; 3], "pins of a cache that is closed");
                reach("cache closed");
                let refused = self.world.cache.drop_caches();
                assert!(matches!(refused, Err(Error::Closed(_))), "{refused:?}");
            }
            Err(error) => self.world.refused(&error, is_pinned),
        }
    }
}

fn is_pinned(error: &Error) -> bool {
    if matches!(error, Error::Pinned(_)) {
        reach("not closed while pinned");
        return true;
    }
    false
}
