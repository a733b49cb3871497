//! Page frames: descriptors that are never freed, their reference counts, their locks and their bytes.
//!
//! Owns: the arena of frames and the array of descriptors (type-stable: mapped once, alive as long as the cache), who
//! may free a frame (the last reference), who may change what the page means (the holder of the page lock). Does not
//! own: which page is at which index (`cache::address_space`), which entries map it (`mm::page_table`).
//!
//! Mirrors `struct page`, `include/linux/page_ref.h`, `lock_page` of `mm/filemap.c` and the buddy lists of `mm/page_alloc.c`.
//! Because descriptors are type-stable, a lookup may touch one that was recycled meanwhile: it takes a reference unless the count
//! is zero, then rechecks the slot, which is enough to know.
//!
//! | transition | needs |
//! |---|---|
//! | read flags, generation, identity | nothing, but the answer may be stale |
//! | use the bytes | a reference, an entry inside a read section, or the copy-out protocol of `cache::copy_out` |
//! | set UPTODATE, READAHEAD, mapping, index | [`LockedPage`] |
//! | take the page out of the cache | [`LockedPage`] and the `i_pages` mutex |
//! | free the frame | the last reference |

mod batch;
mod bit_set;
mod buddy;
mod bytes;
mod compound;
pub mod flags;
mod frames;
mod lock;
mod lru;
#[allow(unsafe_code, reason = "raw memory from mmap(2)")]
mod memory;
#[allow(unsafe_code, reason = "raw memory that a caller gives")]
mod out;
mod refcount;

pub(crate) use batch::Batch;
pub use bytes::{PageBytes, WORDS};
pub use flags::PageFlags;
pub use frames::{FrameUsage, Frames, Use};
pub use lock::LockedPage;
pub(crate) use lru::List;
pub(crate) use memory::has_room;
pub use out::Out;
pub use refcount::PageHandle;

use crate::sync::{AtomicU32, AtomicU64, Hint, Ordering, guard, ord, ordered_fence};

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = if cfg!(any(specmm_loom, specmm_shuttle)) { 4 } else { 12 };
/// Bytes in a page.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

/// A page frame's descriptor. All zeros: the frame was never used.
///
/// | word | who writes | holding |
/// |---|---|---|
/// | `flags` | see [`PageFlags`] | |
/// | `refcount` | anybody who holds or takes a reference; frozen (0) by a remover | read-modify-writes only |
/// | `mapcount` | whoever sets or clears an entry | the leaf lock of that entry |
/// | `generation` | a remover or zeroer, after slot, mapping and size, before bytes | the page lock |
/// | `mapping`, `index` | add to and remove from the cache | the page lock and the `i_pages` mutex |
/// | `compound` | the allocator | the frame is free |
/// | `usage` | anybody: see [`usage`] | nothing; it steers reclaim and guards nothing |
#[derive(Debug)]
pub struct Page {
    pub(crate) flags: AtomicU32,
    refcount: AtomicU32,
    mapcount: AtomicU32,
    compound: AtomicU32,
    usage: Hint,
    generation: AtomicU64,
    mapping: AtomicU64,
    index: AtomicU64,
}

impl Page {
    /// A descriptor of a frame that was never used, as memory begins: zeros.
    #[cfg(any(specmm_loom, specmm_shuttle))]
    fn unused() -> Self {
        Self {
            flags: AtomicU32::new(0),
            refcount: AtomicU32::new(0),
            mapcount: AtomicU32::new(0),
            compound: AtomicU32::new(0),
            usage: Hint::new(0),
            generation: AtomicU64::new(0),
            mapping: AtomicU64::new(0),
            index: AtomicU64::new(0),
        }
    }
}

/// Bits of an address of user space.
const ADDRESS_BITS: u32 = 47;

/// How a page was recently used: the bits of `Page::usage`.
pub mod usage {
    /// Touched since reclaim's last scan (`PG_referenced`).
    pub const REFERENCED: u32 = 1;
    /// Touched again: on the active list, or moved there when reclaim scans it (`PG_active`).
    pub const ACTIVE: u32 = 1 << 1;
    /// Read ahead, and not touched yet.
    pub const PREFETCHED: u32 = 1 << 2;
    /// From this bit on: how many lives the frame has had, so that a page is not taken for the one before it.
    pub const LIFE_SHIFT: u32 = 8;
}

/// A frame by descriptor: no reference is implied. Cheap to copy.
#[derive(Clone, Copy)]
pub struct PageRef<'f> {
    pub(crate) frames: &'f Frames,
    page: &'f Page,
}

impl<'f> PageRef<'f> {
    /// The page frame number.
    #[inline]
    #[must_use]
    pub fn pfn(self) -> u32 {
        self.frames.pfn_of(self.page)
    }

    /// The flags now, ordered after what their setters did before.
    #[inline]
    #[must_use]
    pub fn flags(self) -> PageFlags {
        // Pairs with the Release of `LockedPage::set_uptodate`: whoever sees UPTODATE sees the bytes.
        PageFlags(self.page.flags.load(ord!("page.flags.acquire", Acquire)))
    }

    /// Whether the page belongs to the mapping with this identity, at this index.
    #[inline]
    #[must_use]
    pub fn is_at(self, mapping: u64, index: u64) -> bool {
        // Relaxed: the caller holds the page lock, or a reference taken before an unchanged slot was seen, or rechecks
        // the generation.
        self.page.mapping.load(Ordering::Relaxed) == mapping
            && self.page.index.load(Ordering::Relaxed) == index
    }

    /// Whether the page is in some file's cache.
    #[must_use]
    pub fn is_cached(self) -> bool {
        self.page.mapping.load(Ordering::Relaxed) != 0
    }

    /// The page's index in its file. Kept after removal, as in Linux.
    #[must_use]
    pub fn index(self) -> u64 {
        self.page.index.load(Ordering::Relaxed)
    }

    /// The generation, before a copy that takes no reference.
    #[inline]
    #[must_use]
    pub fn generation(self) -> u64 {
        // Pairs with the Release in `advance_generation`: a copier that starts with the new generation sees the new
        // slot, mapping and size.
        self.page.generation.load(ord!("page.generation.acquire", Acquire))
    }

    /// Whether bytes read since [`PageRef::generation`] returned `seen` are of one identity.
    #[inline]
    #[must_use]
    pub fn is_generation(self, seen: u64) -> bool {
        // Pairs with the fence in `PageBytes::write`: a copier that read one new byte sees the new generation.
        ordered_fence!("page.generation.fence", Acquire);
        guard!("page.generation.check", self.page.generation.load(Ordering::Relaxed) == seen)
    }

    /// How many page-table entries map the page.
    #[must_use]
    pub fn mapcount(self) -> u32 {
        // Pairs with the Release in `remove_mapping`: whoever finds that no entry is left finds none.
        self.page.mapcount.load(ord!("page.mapcount.acquire", Acquire))
    }

    /// An entry that maps the page was set. The caller holds its leaf lock.
    #[inline]
    pub(crate) fn add_mapping(self) {
        self.page.mapcount.fetch_add(1, Ordering::Relaxed);
    }

    /// An entry that mapped the page was cleared. The caller holds its leaf lock.
    pub(crate) fn remove_mapping(self) {
        let before = self.page.mapcount.fetch_sub(1, ord!("page.mapcount.release", Release));
        debug_assert!(before > 0, "page {} had no mapping to remove", self.pfn());
    }

    /// Clears what a free frame has not; returns the flags, and log2 of the number of frames, as they were. WAITERS is left alone:
    /// it belongs to the queue's mutex.
    fn forget(self) -> (PageFlags, u32) {
        let before = self.page.flags.fetch_and(PageFlags::WAITERS, Ordering::Relaxed);
        debug_assert!(before & PageFlags::LOCKED == 0, "freeing a locked page");
        (PageFlags(before), self.untie())
    }

    /// How the page was recently used.
    #[inline]
    pub(crate) fn usage(self) -> &'f Hint {
        &self.page.usage
    }

    /// Distinguishes pages, also from those of other caches and from recent pages in the same frame: a new cache's descriptors
    /// may have the addresses of a dropped one's.
    pub(crate) fn life(self) -> (u64, u32) {
        let place = std::ptr::from_ref(self.page).addr() as u64;
        (place ^ self.frames.number << ADDRESS_BITS, self.page.usage.get() >> usage::LIFE_SHIFT)
    }

    /// The identity of the mapping that the page is in; 0 for none. Stale unless the page is locked.
    pub(crate) fn mapping_id(self) -> u64 {
        self.page.mapping.load(Ordering::Relaxed)
    }

    /// The page's bytes.
    #[inline]
    #[must_use]
    pub fn bytes(self) -> PageBytes<'f> {
        self.frames.bytes_of(self.pfn())
    }
}

impl std::fmt::Debug for PageRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageRef")
            .field("pfn", &self.pfn())
            .field("flags", &self.flags())
            .field("refcount", &self.refcount())
            .field("mapcount", &self.mapcount())
            .field("index", &self.index())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/frames.rs"]
mod frame_models;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/lru.rs"]
mod lru_models;
#[cfg(all(test, specmm_loom))]
#[path = "../../../tests/loom/page.rs"]
pub(crate) mod models;
#[cfg(all(test, specmm_shuttle))]
#[path = "../../../tests/shuttle/page.rs"]
mod shuttle_tests;
