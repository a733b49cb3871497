"""The page cache: a fixed number of frames, the files that share them, and the self-audit."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .address_space import AddressSpace
from .arguments import (
    MAX_BYTES,
    MAX_RA_PAGES,
    at_most,
    byte_count,
    choice,
    natural,
    pages_ahead,
    seconds,
)
from .errors import ClosedError, expect
from .file import File
from .outcomes import CacheStats
from .page import PAGE_SIZE, Frames, Page
from .page_table import LEAF
from .store import LocalFile, Store, UserStore
from .vmscan import Vmscan

if TYPE_CHECKING:
    from .mm import Mm

MAX_FRAMES = 1 << 30

OPEN_FLAGS = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "w+b": os.O_RDWR | os.O_CREAT,
    "x+b": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}


class PageCache:
    """Pages of any number of files, never more than `capacity` bytes in all. All I/O is inline."""

    def __init__(self, capacity: int | str, *, io: str = "inline", frame_timeout: float = 0.0) -> None:
        size = byte_count("capacity", capacity)
        seconds("frame_timeout", frame_timeout)
        choice("io", io, ("inline", "threads"))
        frames = size // PAGE_SIZE
        if frames == 0:
            raise ValueError(f"capacity of {size} bytes is less than a page")
        at_most("capacity", size, MAX_FRAMES * PAGE_SIZE + PAGE_SIZE - 1)
        self.frames = Frames(frames)
        self.counters: Counter[str] = Counter()
        self.vmscan = Vmscan(self.frames, self.counters)
        self.inodes: dict[tuple[int, int], AddressSpace] = {}
        self.files: list[File] = []
        self.mms: list[Mm] = []
        self.closed = False

    # --- files

    def open(self, path: str | os.PathLike[str], mode: str = "rb", *, ra_pages: int = 32) -> File:
        """Opens a file by its path. All opens of one file share its pages."""
        ra_pages = pages_ahead("ra_pages", ra_pages)
        self.check_open()
        mode = choice("mode", mode if mode.endswith("b") else mode + "b", tuple(OPEN_FLAGS))
        at_most("ra_pages", ra_pages, MAX_RA_PAGES)
        if Path(path).is_dir():
            raise IsADirectoryError(21, "Is a directory", os.fspath(path))
        descriptor = os.open(path, OPEN_FLAGS[mode] | os.O_CLOEXEC, 0o666)
        name, status = os.fspath(path), os.fstat(descriptor)
        inode = (status.st_dev, status.st_ino)
        mapping = self.inodes.get(inode)
        if mapping is None or not mapping.in_use:
            mapping = self.add_space(LocalFile(os.dup(descriptor), name), status.st_size)
            self.inodes[inode] = mapping
        else:
            # A new open checks what others did to the file.
            mapping.revalidate()
        file = self.add_file(File(self, mapping, LocalFile(descriptor, name), name, mode, ra_pages))
        if mode == "w+b":
            file.truncate(0)
        return file

    def open_store(self, store: UserStore, size: int, *, name: str = "", ra_pages: int = 32) -> File:
        """Opens an object that provides bytes. Each call makes a separate file."""
        size, ra_pages = natural("size", size), pages_ahead("ra_pages", ra_pages)
        self.check_open()
        at_most("size", size, MAX_BYTES)
        at_most("ra_pages", ra_pages, MAX_RA_PAGES)
        user = Store(store, name)
        mapping = self.add_space(user, size)
        return self.add_file(File(self, mapping, user, name, "r+b", ra_pages))

    def add_file(self, file: File) -> File:
        """A new open file."""
        self.files = [each for each in self.files if not each.closed]
        self.files.append(file)
        return file

    def add_space(self, store: Store, size: int) -> AddressSpace:
        """A new file in the cache, empty."""
        self.vmscan.spaces = [space for space in self.spaces if space.in_use]
        self.vmscan.spaces.append(AddressSpace(self.vmscan, self.counters, store, size))
        return self.spaces[-1]

    @property
    def spaces(self) -> list[AddressSpace]:
        """All files that have users."""
        return self.vmscan.spaces

    # --- the cache as a whole

    def stats(self) -> CacheStats:
        """Counters so far."""
        return CacheStats(
            capacity_frames=self.frames.capacity,
            frames_in_use=self.frames.in_use,
            private_frames=self.frames.private,
            pinned_frames=len(self.frames.pinned),
            active_frames=len(self.frames.active),
            inactive_frames=len(self.frames.inactive),
            shadows=self.vmscan.shadows,
            page_tables=sum(mm.page_table.count for mm in self.mms),
            evictions=self.counters["evictions"],
            dropped=self.counters["dropped"],
            invalidated=self.counters["invalidated"],
            refaults=self.counters["refaults"],
            refaults_activated=self.counters["refaults_activated"],
            activations=self.counters["activations"],
            deactivations=self.counters["deactivations"],
            scanned=self.counters["scanned"],
            hits=self.counters["hits"],
            misses=self.counters["misses"],
            readahead_pages=self.counters["readahead_pages"],
            reads=self.counters["reads"],
            read_bytes=self.counters["read_bytes"],
            read_errors=self.counters["read_errors"],
            reads_abandoned=0,
        )

    def reclaim(self, pages: int) -> int:
        """Evicts up to so many of the least recently used pages; returns how many."""
        pages = natural("pages", pages)
        self.check_open()
        return self.vmscan.reclaim(pages)

    def drop_caches(self) -> int:
        """Drops every page that nobody maps; returns how many."""
        self.check_open()
        return sum(space.invalidate(0, space.max_off) for space in self.spaces)

    def settle(self) -> None:
        """No I/O is ever in flight here."""

    def close(self) -> None:
        """Closes the cache and everything that uses it."""
        if not self.closed:
            if self.frames.pinned:
                raise BufferError(f"{len(self.frames.pinned)} pages are pinned")
            for mm in list(self.mms):
                mm.close()
            for file in self.files:
                file.close()
            self.closed = True

    def check_open(self) -> None:
        """Every call except `close` and `stats` needs the cache open."""
        if self.closed:
            raise ClosedError("the cache is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the self-audit

    def check(self) -> None:
        """What must hold between any two calls."""
        cached = [page for space in self.spaces for page in space.pages.values()]
        private = [page for mm in self.mms for page in self.check_mm(mm) if page.private]
        expect(len(private) == self.frames.private, "private frames")
        left = [page for page in self.frames.pinned if page.mapping is None]
        used = len(cached) + len(private) + len(left)
        expect(used == self.frames.in_use <= self.frames.capacity, "frames in use")
        listed = self.frames.inactive + self.frames.active + self.frames.pinned
        expect(len(listed) == len(set(map(id, listed))) == used - len(private), "pages on lists")
        expect(self.vmscan.shadows <= self.frames.capacity, "more shadows than frames")
        expect(all(not (page.held or page.locked) for page in cached), "a page in use at rest")
        for space in self.spaces:
            expect(space.in_use or not space.pages, "a file without users has pages")
            expect(not space.pages.keys() & space.shadows.keys(), "a page and its shadow")
            expect(all(page.mapping is space for page in space.pages.values()), "mapping")
            expect(all(space.pages[index].index == index for index in space.pages), "index")
            expect(all(index < space.max_off for index in space.pages), "a page beyond the end")
        expect(all(page.uptodate or not page.entries for page in cached), "a page mapped before it was read")

    def check_mm(self, mm: Mm) -> list[Page]:
        """The pages it maps, each once per entry."""
        table, found = mm.page_table, []
        for leaf, entries in table.leaves.items():
            expect(bool(entries), "an empty page table")
            for number, entry in entries.items():
                start = number * PAGE_SIZE
                (vma,) = mm.vmas.covering(start, start + PAGE_SIZE)
                expect(number >> LEAF == leaf, "an entry in the wrong table")
                expect(entry.page.index == vma.index(number), "an entry shows the wrong page")
                expect((table, number) in entry.page.entries, "an entry its page does not know of")
                expect(vma.flags.write or not entry.writable, "a writable entry in a read-only mapping")
                of_file = vma.file.f_mapping.pages.get(entry.page.index) is entry.page
                expect(of_file != entry.page.private, "an entry for a page no longer in the cache")
                expect(vma.anon_vma or not entry.page.private, "a private copy without anon_vma")
                found.append(entry.page)

        events = mm.vm_events()
        aborts = sum(events[event] for event in events if event.startswith("spf_abort_"))
        expect(events["spf_abort"] == aborts, "aborts by cause")
        expect(events["spf_attempt"] == events["spf_commit"] + aborts, "speculative attempts")
        return found
