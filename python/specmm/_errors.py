"""specmm's own exceptions. Failed I/O raises OSError; a bad argument raises ValueError or TypeError."""


class SpecmmError(Exception):
    """The base class of specmm's own exceptions."""


class BusError(SpecmmError):
    """An access past the end of the file, or to a page that cannot be read (see `__cause__`).

    With mmap, Linux would send SIGBUS.
    """

    index: int
    """Index of the page in its file."""
    offset: int
    """Offset of the access in the file, in bytes."""
    size: int
    """Size of the file at that moment, in bytes."""

    def __init__(self, index: int, offset: int, size: int) -> None:
        super().__init__(index, offset, size)
        self.index = index
        self.offset = offset
        self.size = size

    def __str__(self) -> str:
        where = f"offset {self.offset} (page {self.index})"
        if self.__cause__ is not None:
            return f"{where} cannot be read: {self.__cause__}"
        if self.offset < self.size:
            return f"a read at {where} goes past the end of the file, which has {self.size} bytes"
        return f"{where} is past the end of the file, which has {self.size} bytes"


class SegmentationError(SpecmmError):
    """An access that no mapping allows. With mmap, Linux would send SIGSEGV."""


class OutOfFramesError(SpecmmError, MemoryError):
    """Every frame of the cache is in use, and none can be reclaimed."""


class ClosedError(SpecmmError, ValueError):
    """The cache, file or address space is closed."""


class InvariantError(SpecmmError):
    """The self-check found an inconsistency: a bug in specmm."""
