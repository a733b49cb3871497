"""A file of records as numpy reads it, without mapping it.

    import specmm, specmm.numpy

    trades = specmm.numpy.Records(specmm.open("trades.bin"), [("key", "i8"), ("price", "f4")])
    trades[5], trades[100:200], trades[[7, 70_000, 7]]

Also a map-style data set, as torch's DataLoader takes it.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, SupportsIndex

try:
    import numpy as np
except ImportError as error:
    raise ImportError("specmm.numpy needs numpy: pip install 'specmm[numpy]'") from error

from specmm._core import File

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["Records"]


class Records:
    """The records of a file: one by number, many by slice or by an array of numbers.

    file: stays the caller's to close. dtype: of one record, which may be an array itself, such as
    `("f4", (128,))`. offset: of the first record, in bytes. Bytes after the last whole record do not count.

    What is indexed is read, into a fresh array each time. Any number of threads may do so at a time.
    """

    def __init__(self, file: File, dtype: npt.DTypeLike, *, offset: int = 0) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype.hasobject or self.dtype.itemsize == 0:
            raise TypeError(f"dtype must have a fixed size and hold no objects: {self.dtype}")
        if offset < 0:
            raise ValueError(f"offset must not be negative: {offset}")
        self.file = file
        self.offset = offset

    def __len__(self) -> int:
        """Number of records, as of the file's size now."""
        return max(self.file.size - self.offset, 0) // self.dtype.itemsize

    def __getitem__(self, which: SupportsIndex | slice | npt.ArrayLike) -> Any:
        """Records by number, negative ones from the end, as an array would give them; always a copy.

        IndexError for a number that is out of range, BusError when the file gets shorter meanwhile.
        """
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step != 1:
                return self._gather(np.arange(start, stop, step))
            rows = self._empty(max(stop - start, 0))
            if rows.nbytes:
                got = self.file.preadinto(rows, self.offset + start * self.dtype.itemsize)
                rows = rows[: got // self.dtype.itemsize]
            return rows
        if isinstance(which, SupportsIndex) and not isinstance(which, np.ndarray):
            return self._gather(np.array([operator.index(which)]))[0]
        numbers = np.asarray(which)
        if numbers.size == 0:
            numbers = numbers.astype("i8")
        if numbers.dtype.kind not in "iu":
            raise IndexError(f"records are indexed by integers and slices, not by {numbers.dtype}")
        return self._gather(numbers)

    def __getitems__(self, which: Sequence[int]) -> Any:
        """Many records in one call, for a DataLoader."""
        return self[which]

    def _gather(self, numbers: npt.NDArray[Any]) -> Any:
        length = len(self)
        # Copied, as what is given may be of a type too narrow for offsets.
        places: Any = numbers.astype("i8")
        wrong = (places < -length) | (places >= length)
        if wrong.any():
            raise IndexError(f"record {places[wrong][0]} is out of range: there are {length}")
        places[places < 0] += length
        places *= self.dtype.itemsize
        places += self.offset
        rows = self._empty(places.size)
        self.file.gather(places.ravel(), self.dtype.itemsize, out=rows)
        return rows.reshape(places.shape + self.dtype.shape)

    # Any, here and there: before 3.12 Python has no way to say that an array is a buffer.
    def _empty(self, n: int) -> Any:
        return np.empty(n, self.dtype)

    def __repr__(self) -> str:
        return f"<specmm.numpy.Records of {self.dtype} in {self.file!r}>"
