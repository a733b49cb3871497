"""The errors, under the names and with the arguments of the public ones."""


class SpecmmError(Exception):
    """The root of specmm's own errors."""


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
    """Every frame is in use, or private copies have reached their share of them."""


class ClosedError(SpecmmError, ValueError):
    """The file, the address space or the cache is closed."""


class InvariantError(SpecmmError):
    """The self-audit found something that must never be."""


class ChangedError(OSError):
    """The file was changed by others while it was read."""


def expect(holds: bool, what: str) -> None:
    """What must hold at any time, whatever the arguments were."""
    if not holds:
        raise InvariantError(what)
