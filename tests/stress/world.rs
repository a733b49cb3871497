//! What the threads of one round share: a cache, two files, address spaces, and permanent mappings.

use crate::tally::Tally;
use crate::words;
use specmm::internals::rcu;
use specmm::{File, Io, Locking, Mm, MmOptions, OpenMode, OpenOptions, PAGE_SIZE, PageCache, Prot};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub const PAGE: u64 = PAGE_SIZE as u64;

/// One round.
pub struct Plan {
    frames: u64,
    io: Io,
    ra_pages: u32,
}

/// Few frames, even fewer, and once nearly enough.
pub const PLANS: &[Plan] = &[
    Plan { frames: 96, io: Io::Threads, ra_pages: 16 },
    Plan { frames: 40, io: Io::Inline, ra_pages: 4 },
    Plan { frames: 512, io: Io::Threads, ra_pages: 32 },
];

/// Sizes of the files: one within a leaf table, one over two; both end inside a page.
const SIZES: [u64; 2] = [64 * PAGE + 100, 700 * PAGE + 3333];

pub struct Data {
    pub path: PathBuf,
    pub size: u64,
    pub file: File,
}

/// A mapping that lives as long as the round.
pub struct Fixed {
    pub mm: usize,
    pub file: usize,
    pub at: u64,
    pub length: u64,
    pub private: bool,
}

pub struct World {
    folder: PathBuf,
    pub cache: PageCache,
    pub files: Vec<Data>,
    pub mms: Vec<Mm>,
    pub fixed: Vec<Fixed>,
}

impl World {
    pub fn new(plan: &Plan) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("specmm-stress-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the files");
        let cache = PageCache::new(plan.frames * PAGE, plan.io).expect("room for the frames");
        let files: Vec<_> = SIZES
            .iter()
            .enumerate()
            .map(|(number, &size)| {
                let path = folder.join(number.to_string());
                std::fs::write(&path, words::bytes(number, 0, size as usize)).expect("room for the files");
                let file = cache
                    .open_with(
                        &path,
                        OpenOptions::default().mode(OpenMode::ReadWrite).ra_pages(plan.ra_pages),
                    )
                    .expect("just written");
                Data { path, size, file }
            })
            .collect();
        let options =
            [(Locking::Speculative, 64 << 10), (Locking::MmapLock, 64 << 10), (Locking::Speculative, PAGE)];
        let mms: Vec<_> = options
            .iter()
            .map(|&(locking, fault_around_bytes)| {
                Mm::new(&cache, MmOptions::default().locking(locking).fault_around_bytes(fault_around_bytes))
                    .expect("sound options")
            })
            .collect();
        let mut fixed = Vec::new();
        for (mm, space) in mms.iter().enumerate() {
            for (file, data) in files.iter().enumerate() {
                for private in [false, true] {
                    let prot = if private { Prot::ReadWrite } else { Prot::Read };
                    let at = space.mmap(&data.file, None, 0, prot, !private).expect("room for a mapping");
                    // A shorter file is still mapped to its full length, and every length is whole pages.
                    fixed.push(Fixed { mm, file, at, length: data.size.next_multiple_of(PAGE), private });
                }
            }
        }
        Self { folder, cache, files, mms, fixed }
    }

    /// What must hold when all threads have stopped, and then when everything is closed.
    pub fn audit_and_close(self, total: &mut Tally) {
        for mm in &self.mms {
            mm.check().expect("counters balance");
            for (name, n) in mm.vm_events() {
                total.see(name, n);
            }
        }
        self.cache.check().expect("the cache is sound");
        let stats = self.cache.stats();
        total.see("hits", stats.hits);
        total.see("misses", stats.misses);
        total.see("evictions", stats.evictions);
        total.see("evictions_background", stats.evictions_background);
        total.see("refaults", stats.refaults);
        total.see("readahead_pages", stats.readahead_pages);
        total.see("retries", stats.retries);
        for mm in &self.mms {
            mm.close().expect("closing");
        }
        self.cache.check().expect("the cache is sound without mappings");
        assert_eq!(self.cache.stats().private_frames, 0, "private copies outlived their mappings");
        for data in &self.files {
            data.file.close().expect("closing");
        }
        // A worker of the cache may be the last to hold a file.
        self.cache.settle();
        let cache = self.cache.clone();
        drop((self.mms, self.files, self.cache));
        rcu::barrier();
        let stats = cache.stats();
        assert_eq!((stats.frames_in_use, stats.xarray_nodes), (0, 0), "frames or nodes outlived the files");
        assert_eq!(stats.page_tables, 0, "page tables outlived their entries");
        cache.close().expect("closing");
        std::fs::remove_dir_all(&self.folder).expect("our own folder");
    }
}
