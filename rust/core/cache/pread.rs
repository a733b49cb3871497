//! Reads of a file, as users ask for them.
//!
//! Owns: the order of looks: the lock-free hit first, then the end of the file, then the read that may wait. Does not own what a
//! hit (`copy_out`) or a read (`read`) is. A hit is made inside one read section and touches no count. Mirrors pread(2).

use super::arguments::{check_offset, check_room};
use super::coherence;
use super::copy_out::{Short, read_cached};
use super::direct_read::read_twice;
use super::file::File;
use super::one_version::{self, OneVersion, Verdict};
use super::read::{buffered_read, try_read};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::page::Out;

impl File {
    /// The lock-free hit: serves the whole read from the cache, or nothing. Takes no lock, no reference, and writes
    /// nothing that another thread reads. On `None` nothing of what was read
    /// stays in the buffer: where it was written it holds zeros.
    #[inline]
    #[must_use]
    pub fn read_cached(&self, buf: &mut [u8], offset: u64) -> Option<usize> {
        self.read_cached_into(buf.into(), offset)
    }

    /// As [`File::read_cached`], into raw memory: of `Some(n)` the first `n` bytes are written.
    #[inline]
    #[must_use]
    pub fn read_cached_into(&self, out: Out<'_>, offset: u64) -> Option<usize> {
        let section = crate::rcu::read();
        read_cached(&self.current_if_any(&section)?.mapping, out, offset, Short::Serve, &section)
    }

    /// Reads into `buf` from `offset` as pread(2) does: short only at the end of the file.
    ///
    /// # Errors
    /// [`Error::Io`] if the store fails, [`Error::OutOfFrames`], [`Error::OutOfMemory`], [`Error::Closed`],
    /// [`Error::InvalidArgument`]; [`Error::TimedOut`] and [`Error::Interrupted`] of a store that may stall.
    pub fn pread(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.pread_into(buf.into(), offset)
    }

    /// As [`File::pread`], into raw memory: of `Ok(n)` the first `n` bytes are written.
    ///
    /// # Errors
    /// As [`File::pread`].
    pub fn pread_into(&self, mut out: Out<'_>, offset: u64) -> Result<usize> {
        check_offset(offset)?;
        let room = out.len();
        {
            let section = crate::rcu::read();
            let open = self.current(&section)?;
            if let Some(n) = read_cached(&open.mapping, out.part(0..room), offset, Short::Refuse, &section) {
                return Ok(n);
            }
        }
        let open = self.open_file()?;
        if coherence::look_at_the_end(&open.mapping, offset, room)? {
            if let Some(n) = self.read_cached_into(out.part(0..room), offset) {
                return Ok(n);
            }
        }
        buffered_read(&open, out, offset)
    }

    /// The size, looked at now: what somebody else changed about the file is followed, as before a read of its store.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot say, [`Error::Closed`].
    pub fn look(&self) -> Result<u64> {
        let open = self.open_file()?;
        coherence::follow_changes(&open.mapping)?;
        Ok(open.mapping.i_size())
    }

    /// Begins a call of several reads that must all be of one version of the file: [`File::pread_part`] or [`File::gather_part`] for
    /// each, then [`File::judge`], which says whether to start over. ([`File::pread`] and [`File::gather`] are such calls themselves.)
    ///
    /// ```
    /// # use specmm::{Io, Out, PageCache, Verdict, store::MemoryStore};
    /// # use std::sync::Arc;
    /// # let cache = PageCache::new(1 << 20, Io::Inline)?;
    /// # let file = cache.open_store(Arc::new(MemoryStore::new(vec![7; 100])), 100)?;
    /// let (mut head, mut tail) = ([0; 4], [0; 4]);
    /// let mut call = file.one_version()?;
    /// loop {
    ///     let read = file.pread_part(&call, Out::from(&mut head[..]), 0)?.is_some()
    ///         && file.pread_part(&call, Out::from(&mut tail[..]), 96)?.is_some();
    ///     if file.judge(&mut call, read)? == Verdict::OneVersion {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), specmm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] with ESTALE if the file is being rewritten all the time, or if the store cannot say; [`Error::Closed`].
    pub fn one_version(&self) -> Result<OneVersion> {
        one_version::one_version(&self.open_file()?.mapping)
    }

    /// The same at once; None if the file was rewritten so lately that it must be waited for.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn one_version_now(&self) -> Result<Option<OneVersion>> {
        Ok(one_version::one_version_now(&self.current(&crate::rcu::read())?.mapping))
    }

    /// What becomes of a call of several reads, after a try at all of them: see [`File::one_version`]. `came`: none of them found
    /// a change.
    ///
    /// # Errors
    /// [`Error::Io`] with ESTALE when the file was rewritten during the third try, or what it says of itself differs each time;
    /// [`Error::Closed`].
    pub fn judge(&self, call: &mut OneVersion, came: bool) -> Result<Verdict> {
        one_version::judge(&self.open_file()?.mapping, call, came)
    }

    /// As [`File::pread_into`], for a part of a call: see [`File::one_version`]. None: a change was found.
    ///
    /// # Errors
    /// As [`File::pread`].
    pub fn pread_part(&self, call: &OneVersion, mut out: Out<'_>, offset: u64) -> Result<Option<usize>> {
        check_offset(offset)?;
        let open = self.open_file()?;
        coherence::look_at_the_end(&open.mapping, offset, out.len())?;
        let room = out.len();
        match self.read_cached_into(out.part(0..room), offset) {
            Some(n) => Ok(one_version::is_current(&open.mapping, call).then_some(n)),
            None => try_read(&open, out, offset, Some(call)),
        }
    }

    /// Reads `length` bytes at each offset, in order, into `out`, one after the other: twice, and bypassing the cache. If both reads
    /// agree, and meanwhile nothing but the file's ctime moved or the file grew, all those bytes were in the file at the moment
    /// between them. Returns how many bytes the last offset had, fewer than `length` at the end of the file; None if the reads do
    /// not agree, which counts as one try of the call.
    ///
    /// # Errors
    /// As [`File::judge`], and what the store says; [`Error::InvalidArgument`] for an `out` of another size.
    pub fn read_twice(
        &self,
        call: &mut OneVersion,
        offsets: &[u64],
        length: usize,
        out: Out<'_>,
    ) -> Result<Option<usize>> {
        check_room(offsets, length, &out)?;
        read_twice(&*self.open_file()?, call, offsets, length, out)
    }
}
