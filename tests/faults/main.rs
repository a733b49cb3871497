//! Faults end to end on real files and stores, through the public interface.
#![cfg(not(any(specmm_loom, specmm_shuttle)))]
#![allow(missing_docs, reason = "a test suite")]

use specmm::store::{MemoryStore, Store};
use specmm::{
    Abort, Error, Io, Locking, Madvise, Mm, MmOptions, OpenOptions, PAGE_SIZE, PageCache, Prot, VmFault,
};
use std::sync::Arc;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 % 251) as u8 ^ (i >> 12) as u8).collect()
}

fn memory_file(cache: &PageCache, len: usize) -> specmm::File {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(pattern(len)));
    cache.open_store(store, len as u64).unwrap()
}

fn event(mm: &Mm, name: &str) -> u64 {
    mm.vm_events().into_iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no event {name}")).1
}

fn assert_identities(mm: &Mm) {
    let aborts: u64 =
        mm.vm_events().iter().filter(|(n, _)| n.starts_with("spf_abort_")).map(|(_, v)| v).sum();
    assert_eq!(event(mm, "spf_abort"), aborts);
    assert_eq!(event(mm, "spf_attempt"), event(mm, "spf_commit") + event(mm, "spf_abort"));
}

#[test]
fn a_real_file_is_mapped_and_read() {
    let dir = std::env::temp_dir().join(format!("specmm-faults-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("data");
    let data = pattern(300_000);
    std::fs::write(&path, &data).unwrap();
    for io in [Io::Inline, Io::Threads] {
        for locking in Locking::ALL {
            let cache = PageCache::new(4 << 20, io).unwrap();
            let file = cache.open(&path).unwrap();
            let mm = Mm::new(&cache, MmOptions::default().locking(*locking)).unwrap();
            let at = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
            let mut all = vec![0; data.len()];
            mm.load(at, &mut all).unwrap();
            assert!(all == data, "{locking} {io:?}");
            assert_identities(&mm);
            // Beside workers, each page may still be locked when it is faulted.
            if *locking == Locking::Speculative && io == Io::Inline {
                assert!(event(&mm, "spf_commit") > 0, "{:?}", mm.vm_events());
            }
            mm.munmap(at, data.len() as u64).unwrap();
            cache.check().unwrap();
            drop(mm);
            file.close().unwrap();
            assert_eq!(cache.stats().frames_in_use, 0);
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_mapping_goes_into_the_lowest_gap_that_holds_it() {
    const PAGE: u64 = PAGE_SIZE as u64;
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let file = memory_file(&cache, 20 * PAGE_SIZE);
    for gap in 1..5 {
        for pages in 1..7 {
            let mm = Mm::new(&cache, MmOptions::default()).unwrap();
            // Each begins at the file's first page, so they do not merge.
            let map = |pages: u64| mm.mmap(&file, Some(pages * PAGE), 0, Prot::Read, true).unwrap();
            let [_, small, _, large, last] = [1, gap, 1, gap + 1, 1].map(map);
            assert_eq!(last, large + (gap + 1) * PAGE, "one after the other");
            mm.munmap(small, gap * PAGE).unwrap();
            mm.munmap(large, (gap + 1) * PAGE).unwrap();
            let expected = match pages {
                _ if pages <= gap => small,
                _ if pages == gap + 1 => large,
                _ => last + PAGE,
            };
            assert_eq!(map(pages), expected, "{pages} pages, gaps of {gap} and one more");
        }
    }
}

#[test]
fn each_step_answers_as_told() {
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let file = memory_file(&cache, 40 * PAGE_SIZE + 100);
    let mm = Mm::new(&cache, MmOptions::default().fault_around_bytes(4096)).unwrap();
    assert_eq!(mm.fault(0x1_0000, false).abort, Some(Abort::Unmapped));
    let at = mm.mmap(&file, Some(60 * 4096), 0, Prot::Read, true).unwrap();
    let first = mm.fault(at, false);
    assert_eq!(first.abort, Some(Abort::Pud));
    assert!(first.major && first.result.has(VmFault::MAJOR), "{first:?}");
    // The page was read in around the first fault, and the leaf table exists now: this fault needs no lock.
    let locks = event(&mm, "mmap_lock_read");
    let second = mm.fault(at + 4096, false);
    assert_eq!((second.abort, second.result), (None, VmFault::LOCKED));
    assert_eq!(event(&mm, "mmap_lock_read"), locks);
    assert_eq!(mm.fault(at + 39 * 4096, false).abort, Some(Abort::FileMiss));
    assert_eq!(mm.fault(at, true).abort, Some(Abort::NoSpeculate));
    let beyond = mm.fault(at + 41 * 4096, false);
    assert!(beyond.result.has(VmFault::SIGBUS), "{beyond:?}");
    assert!(matches!(beyond.error, Some(Error::Bus { index: 41, .. })));
    let private = mm.mmap(&file, Some(8192), 0, Prot::ReadWrite, false).unwrap();
    assert_eq!(mm.fault(private, true).abort, Some(Abort::AnonVma));
    assert_eq!(mm.fault(private + 4096, true).abort, None);
    assert_eq!(mm.pagemap(private, 8192).unwrap(), [7, 7]);
    let readonly = mm.mmap(&file, Some(4096), 0, Prot::Read, false).unwrap();
    assert_eq!(mm.fault(readonly, true).abort, Some(Abort::AccessError));
    assert_identities(&mm);
    mm.close().unwrap();
    cache.check().unwrap();
}

#[test]
fn a_private_copy_is_private_and_a_truncated_page_is_gone() {
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let file = memory_file(&cache, 20 * PAGE_SIZE);
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let at = mm.mmap(&file, None, 0, Prot::ReadWrite, false).unwrap();
    let shared = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
    mm.store(at + 10, b"hello").unwrap();
    let mut buf = [0; 5];
    mm.load(at + 10, &mut buf).unwrap();
    assert_eq!(&buf, b"hello");
    mm.load(shared + 10, &mut buf).unwrap();
    assert_eq!(&buf, &pattern(20)[10..15]);
    mm.store(at + 5 * 4096, b"x").unwrap();
    file.truncate(4096 + 50).unwrap();
    for base in [at, shared] {
        let error = mm.load(base + 5 * 4096, &mut buf).unwrap_err();
        assert!(matches!(error, Error::Bus { index: 5, .. }), "{error}");
    }
    file.truncate(20 * 4096).unwrap();
    let mut tail = [1; 100];
    mm.load(shared + 4096 + 50, &mut tail).unwrap();
    assert_eq!(tail, [0; 100], "a grown range reads as zeros");
    mm.madvise(at, 4096, Madvise::DontNeed).unwrap();
    mm.load(at + 10, &mut buf).unwrap();
    assert_eq!(&buf, &pattern(20)[10..15], "dontneed forgets the private copy");
    mm.close().unwrap();
    cache.check().unwrap();
}

#[test]
fn threads_fault_while_others_map_and_truncate() {
    let cache = PageCache::new(8 << 20, Io::Threads).unwrap();
    let pages = 256_u64;
    let content: Vec<u8> = (0..pages).flat_map(|page| [page as u8 | 1; PAGE_SIZE]).collect();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(content));
    let file = cache.open_store(store, pages * 4096).unwrap();
    for locking in Locking::ALL {
        file.truncate(pages * 4096).unwrap();
        let mm = Mm::new(&cache, MmOptions::default().locking(*locking)).unwrap();
        let at = mm.mmap(&file, Some(pages * 4096), 0, Prot::Read, true).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3_u64 {
                let (mm, file) = (&mm, &file);
                scope.spawn(move || {
                    let mut rng = thread + 1;
                    for _ in 0..20_000 {
                        rng = rng
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let page = (rng >> 33) % pages;
                        let mut byte = [0];
                        match mm.load(at + page * 4096 + (rng >> 20) % 4096, &mut byte) {
                            Ok(()) => {
                                assert!(byte[0] == page as u8 | 1 || byte[0] == 0, "page {page}: {byte:?}");
                            }
                            Err(Error::Bus { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        match file.pread(&mut byte, page * 4096) {
                            Ok(1) => assert!(byte[0] == page as u8 | 1 || byte[0] == 0),
                            Ok(_) => {}
                            Err(error) => panic!("{error}"),
                        }
                        if rng % 256 == 0 {
                            mm.madvise(at + page * 4096, 4096, Madvise::DontNeed).unwrap();
                        }
                    }
                });
            }
            scope.spawn(|| {
                for i in 0..500_u64 {
                    let other = mm.mmap(&file, Some(64 * 4096), 0, Prot::ReadWrite, false).unwrap();
                    let _maybe_truncated = mm.store(other + i % 64 * 4096, b"x");
                    mm.munmap(other, 64 * 4096).unwrap();
                }
            });
            scope.spawn(|| {
                for i in 0..100_u64 {
                    file.truncate(i * 37 % pages * 4096 + i).unwrap();
                    file.truncate(pages * 4096).unwrap();
                }
            });
        });
        assert_identities(&mm);
        cache.check().unwrap();
        mm.close().unwrap();
    }
    cache.check().unwrap();
}

#[test]
fn a_change_from_outside_is_followed() {
    let path = std::env::temp_dir().join(format!("specmm-outside-{}", std::process::id()));
    std::fs::write(&path, pattern(30_000)).unwrap();
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    let file = cache.open_with(&path, OpenOptions::default().ra_pages(4)).unwrap();
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let at = mm.mmap(&file, None, 0, Prot::Read, true).unwrap();
    let mut byte = [0];
    mm.load(at, &mut byte).unwrap();
    // Shorter: noticed at the next miss, in a mapping and in a read.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let error = mm.load(at + 28_000, &mut byte).unwrap_err();
    assert!(matches!(error, Error::Bus { index: 6, size: 5000, cause: None, .. }), "{error}");
    assert_eq!(file.size().unwrap(), 5000);
    assert_eq!(file.pread(&mut [0; 100], 4950).unwrap(), 50);
    // Longer: the old last page is read again.
    std::fs::write(&path, pattern(9000)).unwrap();
    assert_eq!(file.revalidate().unwrap(), 9000);
    let mut all = vec![0; 9000];
    assert_eq!(file.pread(&mut all, 0).unwrap(), 9000);
    assert!(all == pattern(9000));
    mm.close().unwrap();
    cache.check().unwrap();
    std::fs::remove_file(&path).unwrap();
}

/// Without membarrier(2) both sides of RCU's fence are full fences. The stress test is repeated that way.
#[test]
fn faults_do_not_need_membarrier() {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["threads_fault_while_others_map_and_truncate", "--exact"])
        .env("SPECMM_NO_MEMBARRIER", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && told.contains("1 passed"), "{told}");
}

/// Bytes that follow from their offset, for any number of them.
struct Sparse;

impl Store for Sparse {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        for (byte, at) in buf.iter_mut().zip(offset..) {
            *byte = (at >> 3) as u8 ^ (at >> 37) as u8;
        }
        Ok(buf.len())
    }
}

#[test]
fn files_of_16_tib_are_read_and_mapped_at_their_end() {
    let size = specmm::store::MAX_SIZE;
    let cache = PageCache::new(1 << 20, Io::Inline).unwrap();
    assert!(cache.open_store(Arc::new(Sparse), size + 1).is_err());
    let file = cache.open_store(Arc::new(Sparse), size).unwrap();
    let expect = |at: u64| (at >> 3) as u8 ^ (at >> 37) as u8;
    for at in [0, (1 << 32) - 5, (1 << 40) + 77, size - 10] {
        let mut buf = [0; 20];
        let n = file.pread(&mut buf, at).unwrap();
        assert_eq!(n as u64, (size - at).min(20));
        assert!((at..).zip(&buf[..n]).all(|(at, byte)| *byte == expect(at)), "at {at}");
    }
    let mm = Mm::new(&cache, MmOptions::default()).unwrap();
    let offset = size - 64 * 1024;
    let address = mm.mmap(&file, None, offset, Prot::Read, true).unwrap();
    let mut last = [0];
    mm.load(address + 64 * 1024 - 1, &mut last).unwrap();
    assert_eq!(last[0], expect(size - 1));
    assert!(matches!(mm.load(address + 64 * 1024, &mut last), Err(Error::Segmentation { .. })));
    mm.close().unwrap();
    file.close().unwrap();
    cache.check().unwrap();
}
