//! A custom store: a file whose bytes lie in parts, as an object store would keep them, read through a cache.
//!
//! ```console
//! cargo run --release --example store
//! ```

use specmm::store::Store;
use specmm::{Io, PageCache, StoreOptions};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PART: usize = 100_000;

/// Parts of equal length, except for the last; each read of one is a request.
struct Parts {
    parts: Vec<Vec<u8>>,
    requests: AtomicU64,
}

impl Store for Parts {
    /// Several threads may be here at once.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset as usize + done;
            let Some(rest) = self.parts.get(at / PART).and_then(|part| part.get(at % PART..)) else {
                break;
            };
            if rest.is_empty() {
                break;
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            let n = rest.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
        }
        // Short only at the end of the store.
        Ok(done)
    }
}

fn main() -> specmm::Result<()> {
    let parts: Vec<Vec<u8>> =
        (0..10).map(|number| vec![number; if number == 9 { 12_345 } else { PART }]).collect();
    let size: usize = parts.iter().map(Vec::len).sum();
    let store = Arc::new(Parts { parts, requests: AtomicU64::new(0) });

    let cache = PageCache::new(4 << 20, Io::Threads)?;
    let file =
        cache.open_store_with(store.clone(), size as u64, StoreOptions::default().name("ten parts"))?;

    // Small reads in order: readahead turns them into a few large requests.
    let mut record = [0; 100];
    let mut sum = 0_u64;
    for offset in (0..size as u64).step_by(record.len()) {
        let n = file.pread(&mut record, offset)?;
        sum += record[..n].iter().map(|&byte| u64::from(byte)).sum::<u64>();
    }
    let reads = size.div_ceil(record.len());
    println!("{reads} reads of a sum of {sum} took {} requests", store.requests.load(Ordering::Relaxed));

    // Again: everything is cached.
    cache.settle();
    let before = store.requests.load(Ordering::Relaxed);
    assert_eq!(file.pread(&mut record, PART as u64 - 50)?, 100);
    assert_eq!((record[49], record[50]), (0, 1), "one read across two parts");
    assert_eq!(store.requests.load(Ordering::Relaxed), before, "a hit asks nobody");
    println!("the second time none");
    cache.close()
}
