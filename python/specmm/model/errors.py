"""The exceptions, with the names and arguments of the public ones."""


class SpecmmError(Exception):
    """The base class of specmm's own exceptions."""


class BusError(SpecmmError):
    """SIGBUS: the page lies beyond the end of the file, or `__cause__` says why it cannot be read."""

    def __init__(self, index: int, offset: int, size: int) -> None:
        super().__init__(index, offset, size)
        self.index = index
        self.offset = offset
        self.size = size


class SegmentationError(SpecmmError):
    """SIGSEGV: nothing is mapped at the address, or the mapping may not be written."""


class OutOfFramesError(SpecmmError, MemoryError):
    """Every frame is in use, or private copies have used up their share."""


class ClosedError(SpecmmError, ValueError):
    """The file, the address space or the cache is closed."""


class InvariantError(SpecmmError):
    """The self-check found an inconsistency."""


class ChangedError(OSError):
    """Others changed the file while it was read."""


def expect(holds: bool, what: str) -> None:
    """Raises InvariantError unless a condition holds that must always hold."""
    if not holds:
        raise InvariantError(what)
