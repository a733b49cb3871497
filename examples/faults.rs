//! An address space over a cache: faults with and without the mmap lock, and a truncation under a mapping.
//!
//! ```console
//! cargo run --release --example faults
//! ```

use specmm::store::MemoryStore;
use specmm::{Error, Io, Locking, Mm, MmOptions, PAGE_SIZE, PageCache, Prot};
use std::sync::Arc;

const PAGES: u64 = 256;

fn main() -> specmm::Result<()> {
    let size = PAGES * PAGE_SIZE as u64;
    let cache = PageCache::new(4 << 20, Io::Threads)?;
    let file = cache.open_store(Arc::new(MemoryStore::new(vec![7; size as usize])), size)?;

    for locking in [Locking::MmapLock, Locking::Speculative] {
        // A fault maps only its own page, so that every page takes a fault.
        let options = MmOptions::default().locking(locking).fault_around_bytes(PAGE_SIZE as u64);
        let mm = Mm::new(&cache, options)?;
        let address = mm.mmap(&file, None, 0, Prot::Read, true)?;
        let touched = mm.touch(address, size, PAGE_SIZE as u64, false)?;
        println!("{locking:?}: {} faults, {} of them major", touched.faults, touched.major);
        for (event, count) in mm.vm_events() {
            if count > 0 && (event.starts_with("spf_") || event.starts_with("mmap_lock_")) {
                println!("    {event:<24} {count}");
            }
        }
    }

    // Where the kernel would send SIGBUS, an access returns an error.
    let mm = Mm::new(&cache, MmOptions::default())?;
    let address = mm.mmap(&file, None, 0, Prot::Read, true)?;
    let mut byte = [0];
    mm.load(address + 100_000, &mut byte)?;
    file.truncate(PAGE_SIZE as u64)?;
    match mm.load(address + 100_000, &mut byte) {
        Err(error @ Error::Bus { .. }) => println!("after the truncation: {error}"),
        other => panic!("a page past the end answered {other:?}"),
    }
    cache.close()
}
