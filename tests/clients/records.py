"""A large array of records in a file, read through a cache: what docs/clients/numpy.md builds."""

import numpy as np

import specmm


class Records:
    """The records of one type in a file, by number, by slice and by array of numbers, as numpy's would be."""

    def __init__(self, file: specmm.File, dtype) -> None:
        self.file = file
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return self.file.size // self.dtype.itemsize

    def __getitem__(self, which):
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step == 1:
                rows = np.empty(max(stop - start, 0), self.dtype)
                self.file.preadinto(rows, start * self.dtype.itemsize)
                return rows
            which = np.arange(start, stop, step)
        numbers = np.atleast_1d(np.asarray(which, "i8"))
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        rows = np.empty(numbers.shape, self.dtype)
        self.file.gather(numbers.ravel() * self.dtype.itemsize, self.dtype.itemsize, out=rows)
        return rows if np.ndim(which) else rows[0]
