"""A file of records, read as numpy arrays without mapping it.

    import specmm, specmm.numpy

    trades = specmm.numpy.Records(specmm.open("trades.bin"), [("key", "i8"), ("price", "f4")])
    trades[5], trades[100:200], trades[[7, 70_000, 7]]["price"]

It is also a map-style data set for torch's DataLoader.
"""

from __future__ import annotations

import operator
import reprlib
from typing import TYPE_CHECKING, Any, SupportsIndex

try:
    import numpy as np
except ImportError as error:
    raise ImportError("specmm.numpy needs numpy: pip install 'specmm[numpy]'") from error

from specmm._core import File, capacity_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["Records"]


class Records:
    """The records of a file, indexed like `numpy.memmap`; indexing reads into a new array.

    file: the caller closes it. dtype: of one record, which may itself be an array, such as `("f4", (128,))`:
    its dimensions follow that of the records. offset: of the first record, in bytes. Bytes after the last
    whole record are ignored.

    Any number of threads may read at the same time.
    """

    def __init__(self, file: File, dtype: npt.DTypeLike, *, offset: SupportsIndex = 0) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype.hasobject or self.dtype.itemsize == 0:
            raise TypeError(f"dtype must have a fixed size and hold no objects: {self.dtype}")
        self.file = file
        self.offset = operator.index(offset)
        if self.offset < 0:
            raise ValueError(f"offset must not be negative: {self.offset}")

    def __len__(self) -> int:
        """Number of records, given the file's current size."""
        return max(self.file.size - self.offset, 0) // self.dtype.itemsize

    def __getitem__(self, which: Any) -> Any:
        """Returns what numpy returns for the same index, but always a copy.

        Records are chosen by a number, a slice, a list or an array of numbers, or a mask; indices for the
        dimensions of a record may follow, in a tuple. An index that chooses no records, such as the name of a
        field, `...` or None, reads the whole file: ValueError if that is more than the cache holds.

        IndexError for what is out of range, and for True, False and anything else that is not an index;
        BusError if the file gets shorter meanwhile.
        """
        if isinstance(which, str) or (
            isinstance(which, list) and any(isinstance(each, str) for each in which)
        ):
            # numpy's own error, before anything is read.
            self._empty(0)[which]
            return self._all(f"records[{reprlib.repr(which)}]")[which]
        index = [_part(each) for each in (which if isinstance(which, tuple) else (which,))]
        shape = (len(self), *self._empty(0).shape[1:])
        dimensions = sum(_dimensions(part) for part in index)
        dots = sum(part is Ellipsis for part in index)
        if dimensions > len(shape) or dots > 1:
            what = "has too many dots" if dots > 1 else f"is for {dimensions} dimensions, of {len(shape)}"
            raise IndexError(f"the index {reprlib.repr(which)} {what}")
        place = next((at for at, part in enumerate(index) if _dimensions(part)), None)
        if place is None or (dimensions < len(shape) and any(part is Ellipsis for part in index[:place])):
            return self._all(f"records[{reprlib.repr(which)}]")[tuple(index)]
        rows, chosen = self._chosen(index[place], shape)
        return rows[(*index[:place], *chosen, *index[place + 1 :])]

    def __getitems__(self, which: Sequence[int]) -> Any:
        """Many records in one call, for a DataLoader."""
        return self[list(which)]

    def __array__(self, dtype: npt.DTypeLike | None = None, *, copy: bool | None = None) -> Any:
        """All records, for numpy's functions. ValueError if that is more than the cache holds."""
        if copy is False:
            raise ValueError("records are read into an array: copy=False cannot be")
        rows = self._all("np.asarray(records)")
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def _all(self, asked: str) -> Any:
        """All records, for a caller who may not have meant to read them all."""
        n = len(self)
        wanted, bound = n * self.dtype.itemsize, capacity_of(self.file)
        if wanted > bound:
            raise ValueError(
                f"{asked} would be an array of all {n} records, {wanted} bytes, more than the {bound} bytes "
                "of the cache: records[:] reads them all"
            )
        return self._slice(0, n)

    def _chosen(self, part: Any, shape: tuple[int, ...]) -> tuple[Any, list[Any]]:
        """The records that an index of the first dimension chooses, and an index into these for the same."""
        if isinstance(part, slice):
            start, stop, step = part.indices(shape[0])
            if step == 1:
                return self._slice(start, stop), [slice(None)]
            return self._gather(np.arange(start, stop, step), shape[0]), [slice(None)]
        if isinstance(part, int):
            if not -shape[0] <= part < shape[0]:
                raise IndexError(f"record {part} is out of range: there are {shape[0]}")
            return self._gather(np.array([part]), shape[0]), [0]
        if part.dtype != bool:
            return self._gather(part.ravel(), shape[0]), [np.arange(part.size).reshape(part.shape)]
        if part.shape != shape[: part.ndim]:
            raise IndexError(f"a mask of the shape {part.shape} is none for records of the shape {shape}")
        numbers, *others = part.nonzero()
        return self._gather(numbers, shape[0]), [np.arange(numbers.size), *others]

    def _slice(self, start: int, stop: int) -> Any:
        rows = self._empty(max(stop - start, 0))
        if rows.nbytes:
            got = self.file.preadinto(rows, self.offset + start * self.dtype.itemsize)
            rows = rows[: got // self.dtype.itemsize]
        return rows

    def _gather(self, numbers: npt.NDArray[Any], length: int) -> Any:
        places: Any = numbers.astype("i8")
        wrong = (places < -length) | (places >= length)
        if wrong.any():
            raise IndexError(f"record {places[wrong][0]} is out of range: there are {length}")
        places[places < 0] += length
        places *= self.dtype.itemsize
        places += self.offset
        rows = self._empty(places.size)
        self.file.gather(places, self.dtype.itemsize, out=rows)
        return rows

    # Any, here and there: before 3.12 Python has no way to say that an array is a buffer.
    def _empty(self, n: int) -> Any:
        return np.empty(n, self.dtype)

    def __repr__(self) -> str:
        return f"<specmm.numpy.Records of {self.dtype} in {self.file!r}>"


def _part(each: Any) -> Any:
    """One index of a tuple: None, `...`, a slice, an int, or an array of integers or of truth values."""
    if each is None or each is Ellipsis or isinstance(each, slice):
        return each
    is_truth = isinstance(each, bool | np.bool_)
    if isinstance(each, SupportsIndex) and not isinstance(each, np.ndarray) and not is_truth:
        return operator.index(each)
    try:
        array = np.asarray(each)
    except (TypeError, ValueError):
        array = np.empty(1, object)
    if array.size == 0 and not isinstance(each, np.ndarray):
        array = array.astype(np.intp)
    # For these, numpy would add a dimension.
    if array.dtype.kind not in "iub" or (array.dtype == bool and array.ndim == 0):
        raise IndexError(
            "records are indexed by integers, slices, arrays of integers, masks, names of fields, ... and "
            f"None, not by {reprlib.repr(each)}"
        )
    return array


def _dimensions(part: Any) -> int:
    """How many dimensions of the indexed array an index consumes."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype == bool else 1
