//! The work of one thread: operations drawn from its seed, each checked.

use crate::tally::Tally;
use crate::words::{self, SHORT};
use crate::world::{Data, Fixed, PAGE, World};
use specmm::{Advice, Error, Locking, Madvise, Mm, MmOptions, OpenOptions, Prot, VmFault};
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// A kind of operation: how often of a hundred it is drawn, and whether only the owner of a file may do it.
pub struct Op {
    pub name: &'static str,
    weight: u64,
    run: fn(&mut Worker<'_>) -> Result<(), Error>,
    owner: bool,
}

const fn op(name: &'static str, weight: u64, run: fn(&mut Worker<'_>) -> Result<(), Error>) -> Op {
    Op { name, weight, run, owner: false }
}

const fn owner(name: &'static str, weight: u64, run: fn(&mut Worker<'_>) -> Result<(), Error>) -> Op {
    Op { name, weight, run, owner: true }
}

#[allow(
    clippy::redundant_closure_for_method_calls,
    reason = "a method of a borrowing type is not general enough"
)]
pub const OPS: &[Op] = &[
    op("load a word", 200, |w| w.load_word()),
    op("load a range", 40, |w| w.load_range()),
    op("store a word", 80, |w| w.store_word()),
    op("store bytes", 20, |w| w.store_bytes()),
    op("fault", 80, |w| w.fault()),
    op("touch", 20, |w| w.touch()),
    op("zap", 30, |w| w.zap()),
    op("zap a whole mapping", 4, |w| w.zap_all()),
    op("advise a mapping", 6, |w| w.advise_mapping()),
    op("protect", 6, |w| w.protect()),
    op("map and unmap", 20, |w| w.map_and_unmap()),
    op("stray load", 30, |w| w.stray_load()),
    op("pread within a page", 80, |w| w.pread_short()),
    op("pread over pages", 20, |w| w.pread_long()),
    op("cached read", 60, |w| w.read_cached()),
    op("advise a file", 6, |w| w.advise_file()),
    op("evict a range", 20, |w| w.evict()),
    op("drop caches", 4, |w| w.drop_caches()),
    op("reclaim", 20, |w| w.reclaim()),
    op("pin", 40, |w| w.pin()),
    op("follow changes", 4, |w| w.revalidate()),
    op("filemap fault", 40, |w| w.filemap_fault()),
    op("look at everything", 4, |w| w.look()),
    op("open again", 4, |w| w.open_again()),
    op("a short-lived space", 4, |w| w.other_space()),
    owner("shrink", 8, |w| w.shrink()),
    owner("grow", 4, |w| w.grow()),
    owner("restore", 12, |w| w.restore()),
];

pub struct Worker<'w> {
    world: &'w World,
    thread: usize,
    rng: u64,
    tally: Tally,
    /// If this thread cuts a file, that file is whole up to here.
    whole: u64,
}

/// Works until `deadline`.
pub fn run(world: &World, thread: usize, seed: u64, deadline: Instant) -> Tally {
    let whole = world.files.get(thread).map_or(0, |data| data.size);
    let mut worker = Worker { world, thread, rng: seed, tally: Tally::default(), whole };
    let ops: Vec<&Op> = OPS.iter().filter(|op| !op.owner || thread < world.files.len()).collect();
    let weights: u64 = ops.iter().map(|op| op.weight).sum();
    while Instant::now() < deadline {
        let mut draw = worker.below(weights);
        let op = ops
            .iter()
            .find(|op| match draw.checked_sub(op.weight) {
                Some(rest) => {
                    draw = rest;
                    false
                }
                None => true,
            })
            .expect("the draw is below the sum");
        let outcome = (op.run)(&mut worker);
        worker.tally.op(op.name, outcome.is_ok());
        match outcome {
            Ok(()) => {}
            Err(Error::Bus { cause: None, .. }) => worker.tally.see("bus errors", 1),
            Err(Error::Segmentation { .. }) => worker.tally.see("segmentation errors", 1),
            Err(Error::OutOfFrames { .. }) => {
                worker.tally.see("out of frames", 1);
                worker.make_room();
            }
            Err(error) => panic!("{}: {error:?}", op.name),
        }
    }
    worker.tally
}

impl<'w> Worker<'w> {
    /// The next number of splitmix64.
    fn next(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn file(&mut self) -> (usize, &'w Data) {
        let number = self.below(self.world.files.len() as u64) as usize;
        (number, &self.world.files[number])
    }

    fn mapping(&mut self) -> (&'w Fixed, &'w Mm) {
        let number = self.below(self.world.fixed.len() as u64) as usize;
        let fixed = &self.world.fixed[number];
        (fixed, &self.world.mms[fixed.mm])
    }

    fn private_mapping(&mut self) -> (&'w Fixed, &'w Mm) {
        loop {
            let (fixed, mm) = self.mapping();
            if fixed.private {
                return (fixed, mm);
            }
        }
    }

    /// A page-aligned offset and length within `length`, at most `most` pages long.
    fn pages(&mut self, length: u64, most: u64) -> (u64, u64) {
        let pages = length / PAGE;
        let first = self.below(pages);
        let n = 1 + self.below(most.min(pages - first));
        (first * PAGE, n * PAGE)
    }

    fn check(&mut self, fixed: &Fixed, offset: u64, read: &[u8]) {
        words::check(fixed.file, offset, read, fixed.private, &mut self.tally.met);
    }

    // --- through mappings

    fn load_word(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.mapping();
        let offset = self.below(fixed.length / 8) * 8;
        let mut read = [0; 8];
        mm.load(fixed.at + offset, &mut read)?;
        self.check(fixed, offset, &read);
        Ok(())
    }

    fn load_range(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.mapping();
        let offset = self.below(fixed.length - 5000);
        let mut read = [0; 5000];
        let n = 1 + self.below(read.len() as u64) as usize;
        mm.load(fixed.at + offset, &mut read[..n])?;
        self.check(fixed, offset, &read[..n]);
        Ok(())
    }

    fn store_word(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.private_mapping();
        let index = self.below(fixed.length / 8);
        let offset = index * 8;
        if words::is_ragged(index) {
            return mm.store(fixed.at + offset, &[SHORT; 8]);
        }
        mm.store(fixed.at + offset, &words::mark(self.thread, index).to_le_bytes())
    }

    fn store_bytes(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.private_mapping();
        let index = self.below(fixed.length / 8) | 7;
        let from = self.below(8);
        let n = 1 + self.below(8 - from) as usize;
        mm.store(fixed.at + (index * 8 + from).min(fixed.length - 8), &[SHORT; 8][..n])
    }

    fn fault(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.mapping();
        let address = fixed.at + self.below(fixed.length);
        let write = fixed.private && self.one_in(3);
        match mm.fault(address, write).error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn touch(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.mapping();
        let (offset, length) = self.pages(fixed.length, 16);
        let write = fixed.private && self.one_in(3);
        mm.touch(fixed.at + offset, length, PAGE, write).map(|_| ())
    }

    fn zap(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.mapping();
        let (offset, length) = self.pages(fixed.length, 16);
        mm.madvise(fixed.at + offset, length, Madvise::DontNeed)
    }

    fn zap_all(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.mapping();
        mm.madvise(fixed.at, fixed.length, Madvise::DontNeed)
    }

    fn advise_mapping(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.mapping();
        let (offset, length) = self.pages(fixed.length, 64);
        let advice = [Madvise::Normal, Madvise::Random, Madvise::Sequential, Madvise::WillNeed];
        let advice = advice[self.below(4) as usize];
        mm.madvise(fixed.at + offset, length, advice)
    }

    fn protect(&mut self) -> Result<(), Error> {
        let (fixed, mm) = self.private_mapping();
        let (offset, length) = self.pages(fixed.length, 64);
        // Most of the time storing is allowed.
        let prot = if self.one_in(3) { Prot::Read } else { Prot::ReadWrite };
        mm.mprotect(fixed.at + offset, length, prot)
    }

    fn map_and_unmap(&mut self) -> Result<(), Error> {
        let number = self.below(self.world.mms.len() as u64) as usize;
        let mm = &self.world.mms[number];
        let (file, data) = self.file();
        let (from, length) = self.pages(data.size, 24);
        let private = self.one_in(2);
        let prot = if private { Prot::ReadWrite } else { Prot::Read };
        let at = mm.mmap(&data.file, Some(length), from, prot, !private)?;
        let fixed = Fixed { mm: number, file, at, length, private };
        let used = self.use_own(mm, &fixed, from);
        // From the middle, so that it is cut in two, then both ends: another thread may map into the hole.
        if length >= 3 * PAGE {
            mm.munmap(at + PAGE, PAGE)?;
            mm.munmap(at + 2 * PAGE, length - 2 * PAGE)?;
            mm.munmap(at, PAGE)?;
        } else {
            mm.munmap(at, length)?;
        }
        used
    }

    fn use_own(&mut self, mm: &Mm, own: &Fixed, from: u64) -> Result<(), Error> {
        for _ in 0..4 {
            let offset = self.below(own.length / 8) * 8;
            if own.private && !words::is_ragged(offset / 8) && self.one_in(2) {
                let mark = words::mark(self.thread, (from + offset) / 8);
                mm.store(own.at + offset, &mark.to_le_bytes())?;
            }
            let mut read = [0; 8];
            mm.load(own.at + offset, &mut read)?;
            self.check(own, from + offset, &read);
        }
        Ok(())
    }

    /// Where other threads are mapping and unmapping at the moment.
    fn stray_load(&mut self) -> Result<(), Error> {
        let number = self.below(self.world.mms.len() as u64) as usize;
        let beyond =
            self.world.fixed.iter().filter(|fixed| fixed.mm == number).map(|fixed| fixed.at + fixed.length);
        let address = beyond.max().expect("every space has mappings") + self.below(40 * PAGE / 8) * 8;
        let mut read = [0; 8];
        self.world.mms[number].load(address, &mut read)?;
        words::check_stray(address, read, self.world.files.len(), &mut self.tally.met);
        Ok(())
    }

    // --- through files

    fn pread(&mut self, most: usize) -> Result<(), Error> {
        let (file, data) = self.file();
        let offset = self.below(data.size);
        let mut read = vec![0; 1 + self.below(most as u64) as usize];
        let n = data.file.pread(&mut read, offset)?;
        words::check(file, offset, &read[..n], false, &mut self.tally.met);
        Ok(())
    }

    fn pread_short(&mut self) -> Result<(), Error> {
        self.pread(64)
    }

    fn pread_long(&mut self) -> Result<(), Error> {
        self.pread(20_000)
    }

    #[allow(clippy::unnecessary_wraps, reason = "as every operation")]
    fn read_cached(&mut self) -> Result<(), Error> {
        let (file, data) = self.file();
        let offset = self.below(data.size);
        let mut read = [0; 300];
        if let Some(n) = data.file.read_cached(&mut read, offset) {
            words::check(file, offset, &read[..n], false, &mut self.tally.met);
            self.tally.see("cached reads that hit", 1);
        } else {
            assert!(read == [0; 300], "a failed attempt left bytes behind");
        }
        Ok(())
    }

    fn advise_file(&mut self) -> Result<(), Error> {
        let (_, data) = self.file();
        let advice = [Advice::Normal, Advice::Random, Advice::Sequential, Advice::WillNeed];
        let advice = advice[self.below(4) as usize];
        let (offset, length) = self.pages(data.size, 16);
        data.file.advise(advice, offset, Some(length))
    }

    fn evict(&mut self) -> Result<(), Error> {
        let (_, data) = self.file();
        let (offset, length) = self.pages(data.size, 64);
        data.file.advise(Advice::DontNeed, offset, Some(length))
    }

    fn drop_caches(&mut self) -> Result<(), Error> {
        self.world.cache.drop_caches().map(|_| ())
    }

    fn reclaim(&mut self) -> Result<(), Error> {
        let pages = 1 + self.below(8) as usize;
        let went = self.world.cache.reclaim(pages)?;
        assert!(went <= pages, "{went} of {pages} pages were reclaimed");
        self.tally.see("pages reclaimed on request", went as u64);
        Ok(())
    }

    /// A page's bytes as a slice, looked at twice with other operations between. (Nested ones may pin too.)
    fn pin(&mut self) -> Result<(), Error> {
        let (file, data) = self.file();
        let offset = self.below(data.size);
        let most = (PAGE - offset % PAGE).min(data.size - offset);
        let pinned = data.file.pin(offset, 1 + self.below(most) as usize)?;
        words::check(file, offset, &pinned, false, &mut self.tally.met);
        let before = pinned.to_vec();
        for _ in 0..self.below(4) {
            match [Self::pread_long, Self::reclaim, Self::fault, Self::evict][self.below(4) as usize](self) {
                Ok(()) | Err(Error::Bus { cause: None, .. } | Error::OutOfFrames { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        assert!(*pinned == *before, "the bytes of a pin changed");
        Ok(())
    }

    fn revalidate(&mut self) -> Result<(), Error> {
        let (_, data) = self.file();
        assert!(data.file.revalidate()? <= data.size);
        Ok(())
    }

    /// Everything is in use at the moment, or there are too many private copies: a thread that meets that drops entries and
    /// pages.
    fn make_room(&mut self) {
        self.zap_all().expect("a mapping that stays");
        self.zap_all().expect("a mapping that stays");
        self.drop_caches().expect("an open cache");
    }

    fn filemap_fault(&mut self) -> Result<(), Error> {
        let (_, data) = self.file();
        let index = self.below(data.size.div_ceil(PAGE));
        let speculative = self.one_in(2);
        let locked = data.file.filemap_fault(index, speculative)?.result.has(VmFault::LOCKED);
        let name = if speculative { "filemap faults, speculative" } else { "filemap faults, classic" };
        self.tally.see(name, u64::from(locked));
        Ok(())
    }

    fn look(&mut self) -> Result<(), Error> {
        let (_, data) = self.file();
        let (fixed, mm) = self.mapping();
        let stats = self.world.cache.stats();
        assert!(
            stats.frames_in_use <= stats.capacity_frames && stats.private_frames <= stats.capacity_frames / 2
        );
        data.file.readahead_state()?;
        assert!(data.file.residency(0, None)?.len() as u64 <= data.size.div_ceil(PAGE));
        assert_eq!(mm.pagemap(fixed.at, fixed.length)?.len() as u64, fixed.length / PAGE);
        assert!(!mm.vm_events().is_empty() && data.file.size()? <= data.size);
        Ok(())
    }

    /// Another open of the same file, closed while a mapping of it may still be faulted on by this thread.
    fn open_again(&mut self) -> Result<(), Error> {
        let (file, data) = self.file();
        let again = self.world.cache.open_with(&data.path, OpenOptions::default().ra_pages(8))?;
        let (mm, number) = (&self.world.mms[0], 0);
        let at = mm.mmap(&again, Some(4 * PAGE), 0, Prot::Read, true)?;
        again.close()?;
        assert!(again.pread(&mut [0], 0).is_err(), "a closed file was read");
        let own = Fixed { mm: number, file, at, length: 4 * PAGE, private: false };
        let used = self.use_own(mm, &own, 0);
        mm.munmap(at, 4 * PAGE)?;
        used
    }

    fn other_space(&mut self) -> Result<(), Error> {
        let locking = Locking::ALL[self.below(2) as usize];
        let mm = Mm::new(&self.world.cache, MmOptions::default().locking(locking))?;
        let (file, data) = self.file();
        let at = mm.mmap(&data.file, Some(data.size), 0, Prot::ReadWrite, false)?;
        let own = Fixed { mm: usize::MAX, file, at, length: data.size / PAGE * PAGE, private: true };
        let used = self.use_own(&mm, &own, 0);
        // Half of them are dropped without being closed.
        if self.one_in(2) {
            mm.close()?;
            mm.check()?;
        }
        used
    }

    // --- by the file's owner

    fn shrink(&mut self) -> Result<(), Error> {
        let data = &self.world.files[self.thread];
        let size = self.below(data.size);
        self.whole = self.whole.min(size);
        data.file.truncate(size)
    }

    fn grow(&mut self) -> Result<(), Error> {
        let data = &self.world.files[self.thread];
        data.file.truncate(data.size)
    }

    /// Cuts off what is zeros, writes the rest again as another program would, and revalidates.
    fn restore(&mut self) -> Result<(), Error> {
        let data = &self.world.files[self.thread];
        data.file.truncate(self.whole)?;
        let other = std::fs::File::options().write(true).open(&data.path).expect("our own file");
        let rest = words::bytes(self.thread, self.whole, (data.size - self.whole) as usize);
        other.write_all_at(&rest, self.whole).expect("room for the file");
        self.whole = data.size;
        assert_eq!(data.file.revalidate()?, data.size);
        Ok(())
    }
}
