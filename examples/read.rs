//! Reads a file from several threads through a cache of 16 MiB, and reports the result.
//!
//! ```console
//! cargo run --release --example read -- FILE
//! ```

use specmm::{Advice, Io, PAGE_SIZE, PageCache};
use std::path::PathBuf;
use std::time::Instant;

const THREADS: u64 = 4;
const READS: u64 = 2_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without an argument it reads its own source, again and again.
    let path = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(file!()), PathBuf::from);

    // The bound is hard: however many files there are, and however large, the cache holds no more than this.
    let cache = PageCache::new(16 << 20, Io::Threads)?;
    let file = cache.open(&path)?;
    let pages = file.size()?.div_ceil(PAGE_SIZE as u64);
    if pages == 0 {
        return Err(format!("{} is empty", path.display()).into());
    }
    // Scattered reads gain nothing from the pages behind them.
    file.advise(Advice::Random, 0, None)?;

    let began = Instant::now();
    std::thread::scope(|scope| -> specmm::Result<()> {
        let readers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let file = &file;
                scope.spawn(move || {
                    let mut page = vec![0; PAGE_SIZE];
                    let mut draw = thread + 1;
                    for _ in 0..READS {
                        // A small generator is enough to scatter reads.
                        draw ^= draw << 13;
                        draw ^= draw >> 7;
                        draw ^= draw << 17;
                        file.pread(&mut page, draw % pages * PAGE_SIZE as u64)?;
                    }
                    Ok(())
                })
            })
            .collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader does not panic"))
    })?;

    let stats = cache.stats();
    println!("{} reads from {THREADS} threads in {:.1?}", THREADS * READS, began.elapsed());
    println!("{} pages were in the cache, {} were not", stats.hits, stats.misses);
    println!("{} of {} frames are in use", stats.frames_in_use, stats.capacity_frames);
    Ok(cache.close()?)
}
