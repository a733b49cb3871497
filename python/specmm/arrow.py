"""Files for pyarrow.

    import pyarrow.parquet, specmm.arrow

    pyarrow.parquet.read_table(specmm.arrow.ArrowFile(file), columns=["price"])

Everything in pyarrow that takes a file object takes an `ArrowFile`, or `File.as_raw()`. An `ArrowFile`
returns buffers, in Arrow's own memory or in pages of the cache; `as_raw()` returns `bytes`.
"""

from __future__ import annotations

import operator
import weakref
from typing import TYPE_CHECKING, Any, SupportsIndex

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError("specmm.arrow needs pyarrow: pip install 'specmm[arrow]'") from error

from specmm._core import PAGE_SIZE
from specmm._raw import RawFile

if TYPE_CHECKING:
    from specmm._core import File, Pinned

__all__ = ["ArrowFile"]


class ArrowFile(RawFile):
    """A read-only stream whose reads are Arrow buffers. Closing it leaves its File open.

    max_pins: while fewer pins of this stream are alive, a read that lies in one page returns the page itself,
    pinned as long as Arrow holds the buffer. Meanwhile the File and its cache cannot be closed (BufferError),
    and each pin keeps a frame of the cache. All other reads copy.

    views: reads that returned a pin. copies, copied_bytes: reads that returned a copy, in Arrow's memory pool
    (`pyarrow.total_allocated_bytes`).
    """

    def __init__(self, file: File, *, max_pins: int = 0) -> None:
        super().__init__(file)
        if max_pins < 0:
            raise ValueError(f"max_pins must not be negative: {max_pins}")
        self.max_pins = max_pins
        self.views = 0
        self.copies = 0
        self.copied_bytes = 0
        self._pins: weakref.WeakSet[Pinned] = weakref.WeakSet()

    @property
    def pins(self) -> int:
        """Number of live pins."""
        return len(self._pins)

    def read_buffer(self, nbytes: SupportsIndex | None = None) -> Any:
        """Reads into a `pyarrow.Buffer`; fewer bytes only at the end of the file. None: the rest."""
        wanted = -1 if nbytes is None else operator.index(nbytes)
        file = self._checked()
        rest = max(file.size - self._position, 0)
        if wanted < 0 or wanted > rest:
            rest = max(file._look() - self._position, 0)
        n = rest if wanted < 0 else min(wanted, rest)
        if 0 < n <= PAGE_SIZE - self._position % PAGE_SIZE and len(self._pins) < self.max_pins:
            buffer = self._view(file, n)
        else:
            buffer = self._copy(file, n)
        self._position += len(buffer)
        return buffer

    def _view(self, file: File, n: int) -> Any:
        pinned = file.pin(self._position, n)
        self._pins.add(pinned)
        self.views += 1
        # The buffer keeps the pin, which ends when Arrow drops the buffer.
        return pa.py_buffer(pinned)

    def _copy(self, file: File, n: int) -> Any:
        buffer = pa.allocate_buffer(n, resizable=True)
        got = file.preadinto(buffer, self._place())
        # Somebody made the file shorter meanwhile.
        if got < n:
            buffer.resize(got)
        self.copies += 1
        self.copied_bytes += got
        return buffer
