"""One pass over a fault, below handle_mm_fault (memory.c, and filemap_map_pages of filemap.c)."""

from __future__ import annotations

from dataclasses import dataclass

from .filemap import Filemap, filemap_fault, filemap_fault_speculative
from .outcomes import Abort, VmFault
from .page import Page
from .page_table import LEAF, Entry
from .vma import Vma

NOTHING = VmFault(0)


@dataclass
class Pass:
    """Result of one pass."""

    result: VmFault = NOTHING
    abort: Abort | None = None
    missed: bool = False  # filemap_fault did not find the page
    published: int = 0  # entries of file pages that a read, or a first private write, needed
    error: OSError | None = None  # why SIGBUS


@dataclass
class Fault:
    """struct vm_fault: what the fault does, and how."""

    vma: Vma
    number: int  # the virtual page
    write: bool
    speculative: bool
    tried: bool  # FAULT_FLAG_TRIED
    fault_around_pages: int

    def handle_pte_fault(self) -> Pass:
        """What to do depends on the entry."""
        entry = self.vma.page_table.get(self.number)
        if entry is None:
            return self.do_cow_fault() if self.write else self.do_read_fault()
        if self.write and not entry.writable:
            return self.do_wp_page(entry)
        entry.accessed = True
        return Pass()  # there is nothing to do: the entry allows the access

    def do_read_fault(self) -> Pass:
        """Maps cached pages around the address; if that did not map the address itself, asks the file."""
        around = self.do_fault_around()
        if self.vma.page_table.get(self.number) is not None:
            return Pass(VmFault.NOPAGE, published=around)
        found = self.do_fault()
        if found.page is not None:
            self.vma.page_table.set(self.number, found.page, writable=False)
            around += 1
        return Pass(found.result, found.abort, found.missed, around, found.error)

    def do_cow_fault(self) -> Pass:
        """The first write to a page of a private mapping: a frame, then the page, then the copy."""
        copy = self.prepare_copy()
        if isinstance(copy, Pass):
            return copy
        found = self.do_fault()
        if found.page is None:
            self.vma.page_table.frames.give_back(copy)
            return Pass(found.result, found.abort, found.missed, 0, found.error)
        copy.data[:] = found.page.data
        self.vma.page_table.set(self.number, copy, writable=True)
        return Pass(found.result, missed=found.missed, published=1)

    def do_wp_page(self, entry: Entry) -> Pass:
        """A write to a read-only entry: a private copy belongs to the writer, a file's page does not."""
        if entry.page.private:
            entry.writable = entry.accessed = True
            return Pass()
        copy = self.prepare_copy()
        if isinstance(copy, Pass):
            return copy
        if self.vma.page_table.get(self.number) is not entry:
            # The page was evicted to make room for its own copy: the access faults again.
            self.vma.page_table.frames.give_back(copy)
            return Pass()
        copy.data[:] = entry.page.data
        self.vma.page_table.clear(self.number)
        self.vma.page_table.set(self.number, copy, writable=True)
        return Pass()

    def prepare_copy(self) -> Page | Pass:
        """anon_vma_prepare, which needs the mmap lock, and a frame."""
        if not self.vma.anon_vma:
            if self.speculative:
                return Pass(VmFault.RETRY, Abort.ANON_VMA)
            self.vma.anon_vma = True
        index, vmscan = self.vma.index(self.number), self.vma.file.f_mapping.vmscan
        if self.speculative:
            copy = vmscan.frames.take(index, private=True)
            return Pass(VmFault.RETRY, Abort.NO_FRAME) if copy is None else copy
        copy = vmscan.alloc_page(index, private=True)
        if copy is not None:
            return copy
        # Without the mmap lock it waits for a frame, unless there are too many copies already.
        full = vmscan.frames.private >= vmscan.frames.capacity // 2
        return Pass(VmFault.OOM) if full or not vmscan.wait_for_frame() else Pass(VmFault.RETRY)

    def do_fault(self) -> Filemap:
        """__do_fault: vm_ops->fault. There is a page only with LOCKED."""
        ra, index = self.vma.file.f_ra, self.vma.index(self.number)
        if self.speculative:
            return filemap_fault_speculative(ra, index)
        flags = self.vma.flags
        found = filemap_fault(ra, index, rand=flags.rand_read, seq=flags.seq_read, tried=self.tried)
        if not found.result & VmFault.LOCKED:
            found.page = None
        return found

    def do_fault_around(self) -> int:
        """do_fault_around and filemap_map_pages: maps what needs no waiting; returns how many entries."""
        if self.fault_around_pages == 1:
            return 0

        # The window begins at an aligned address, or with the mapping, and has its full length from there on,
        # as far as the leaf table and the mapping go.
        aligned = self.number // self.fault_around_pages * self.fault_around_pages
        first = max(aligned, self.vma.first_page)
        end_of_leaf = ((self.number >> LEAF) + 1) << LEAF
        end = min(first + self.fault_around_pages, end_of_leaf, self.vma.end_page)

        mapping = self.vma.file.f_mapping
        published = 0
        for number in range(first, end):
            page = mapping.pages.get(self.vma.index(number))
            if page is None or page.readahead or not page.uptodate or page.index >= mapping.max_off:
                continue
            if self.vma.page_table.get(number) is None:
                self.vma.page_table.set(number, page, writable=False, accessed=number == self.number)
                published += 1
        return published
