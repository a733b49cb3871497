"""What is mapped where (struct vm_area_struct; mmap.c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .page import PAGE_SHIFT
from .page_table import ADDRESS_SPACE_END, PageTable

if TYPE_CHECKING:
    from .file import File

MMAP_BASE = 0x10000


@dataclass(frozen=True)
class VmFlags:
    """vm_flags: VM_WRITE, VM_SHARED, VM_RAND_READ, VM_SEQ_READ."""

    write: bool
    shared: bool
    rand_read: bool = False
    seq_read: bool = False


@dataclass(eq=False)
class Vma:
    """One mapping: [start, end) shows `file` from page `pgoff` on."""

    start: int
    end: int
    pgoff: int
    file: File
    flags: VmFlags
    page_table: PageTable
    anon_vma: bool = False  # anon_vma_prepare was called: it may hold private copies

    @property
    def first_page(self) -> int:
        """The number of its first virtual page."""
        return self.start >> PAGE_SHIFT

    @property
    def end_page(self) -> int:
        """The number of the virtual page after its last."""
        return self.end >> PAGE_SHIFT

    def index(self, number: int) -> int:
        """linear_page_index: the page of the file that virtual page `number` shows."""
        return self.pgoff + number - self.first_page

    def can_merge(self, other: Vma) -> bool:
        """can_vma_merge_after: `other` continues where this one ends, in every respect."""
        return (
            self.end == other.start
            and self.file is other.file
            and self.flags == other.flags
            and self.index(other.first_page) == other.pgoff
        )


class VmaList:
    """The mappings of one address space, in order of address. Each holds its file, open or not."""

    def __init__(self) -> None:
        self.sorted: list[Vma] = []

    def __iter__(self) -> Iterator[Vma]:
        return iter(self.sorted)

    def add(self, vma: Vma) -> None:
        """vma_link."""
        self.sorted.append(vma)
        self.sorted.sort(key=lambda each: each.start)
        vma.file.f_mapping.i_mmap.append(vma)

    def remove(self, vma: Vma) -> None:
        """unlink_file_vma and vma_rb_erase; it has no entries any more."""
        self.sorted.remove(vma)
        vma.file.f_mapping.i_mmap.remove(vma)

    def find(self, address: int) -> Vma | None:
        """find_vma, if its start is not above the address."""
        for vma in self.sorted:
            if vma.start <= address < vma.end:
                return vma
        return None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """The mappings with a page in the range."""
        return [vma for vma in self.sorted if vma.start < end and start < vma.end]

    def covering(self, start: int, end: int) -> list[Vma]:
        """The mappings with a page in the range; ValueError if it has a hole."""
        found = self.overlapping(start, end)
        if sum(min(vma.end, end) - max(vma.start, start) for vma in found) != end - start:
            raise ValueError(f"not all of {start:#x}..{end:#x} is mapped")
        return found

    def unmapped_area(self, length: int) -> int:
        """get_unmapped_area: the lowest gap that is long enough."""
        address = MMAP_BASE
        for vma in self.sorted:
            if vma.start - address >= length:
                break
            address = vma.end
        if address + length > ADDRESS_SPACE_END:
            raise ValueError(f"no room for a mapping of {length} bytes")
        return address

    def split(self, address: int) -> None:
        """split_vma: a mapping that spans the address becomes two."""
        vma = self.find(address)
        if vma is None or vma.start == address:
            return
        upper = Vma(
            address,
            vma.end,
            vma.index(address >> PAGE_SHIFT),
            vma.file,
            vma.flags,
            vma.page_table,
            vma.anon_vma,
        )
        vma.end = address
        self.add(upper)

    def split_out(self, start: int, end: int) -> list[Vma]:
        """The mappings of the range, split so that none reaches beyond it."""
        self.split(start)
        self.split(end)
        return self.overlapping(start, end)

    def merge(self, start: int, end: int) -> None:
        """vma_merge: whatever meets inside the range or at one of its ends becomes one, if it can."""
        for vma in list(self.sorted):
            before = self.find(vma.start - 1)
            if start <= vma.start <= end and before is not None and before.can_merge(vma):
                self.remove(vma)
                before.end = vma.end
                before.anon_vma = before.anon_vma or vma.anon_vma
