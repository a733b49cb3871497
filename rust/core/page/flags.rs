//! The bits of a page's flags word.

/// A page's flags, read at one moment.
///
/// | bit | meaning | set | cleared |
/// |---|---|---|---|
/// | `LOCKED` | somebody owns the page | trylock, hand-off | unlock |
/// | `WAITERS` | the wait queue may not be empty | a waiter, under the queue's mutex | a waker, under the queue's mutex |
/// | `UPTODATE` | the bytes are the file's | a completed read, under the page lock | when the frame is freed |
/// | `READAHEAD` | reaching this page starts the next window | the reader of a window, before publication | the one who starts it |
/// | `PRIVATE` | a private copy, in no file's cache | the allocator | when the frame is freed |
///
/// All changes are read-modify-writes: two threads may change different bits at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PageFlags(pub(crate) u32);

impl PageFlags {
    /// Somebody owns the page.
    pub const LOCKED: u32 = 1;
    /// Somebody may be queued for the page.
    pub const WAITERS: u32 = 1 << 1;
    /// The bytes are the file's.
    pub const UPTODATE: u32 = 1 << 2;
    /// Reaching this page starts the next readahead window.
    pub const READAHEAD: u32 = 1 << 3;
    /// A private copy.
    pub const PRIVATE: u32 = 1 << 4;

    /// Whether any of `bits` is set.
    #[inline]
    #[must_use]
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

impl std::fmt::Debug for PageFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (Self::LOCKED, "LOCKED"),
            (Self::WAITERS, "WAITERS"),
            (Self::UPTODATE, "UPTODATE"),
            (Self::READAHEAD, "READAHEAD"),
            (Self::PRIVATE, "PRIVATE"),
        ];
        f.debug_list().entries(names.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| name)).finish()
    }
}
