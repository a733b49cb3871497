"""A file in a cache as a raw stream of Python's io, for clients that want a file object."""

from __future__ import annotations

import errno
import io
import operator
import os
from typing import TYPE_CHECKING, Final, NoReturn, SupportsIndex

from specmm import _core

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from specmm._core import File

_MAX_SIZE: Final = 1 << 44
"""No file is longer; a position may be."""


class RawFile(io.RawIOBase):
    """A read-only stream with its own position, which returns and raises what `io.FileIO` does.

    close: whether closing the stream closes its File as well.

    It differs from FileIO in three ways. `fileno`, SEEK_DATA and SEEK_HOLE raise io.UnsupportedOperation: a
    client that reads from the descriptor would bypass the cache. A `read` of more bytes than there are takes
    no more memory than the bytes need. A position beyond 16 TiB is accepted whatever the file system allows;
    there is nothing to read there.
    """

    def __init__(self, file: File, close: bool = False) -> None:
        super().__init__()
        self._file = file
        self._closes = close
        self._position = 0

    @property
    def name(self) -> str | bytes:
        return self._file.name

    @property
    def mode(self) -> str:
        return "rb"

    def readable(self) -> bool:
        self._checked()
        return True

    def writable(self) -> bool:
        self._checked()
        return False

    def seekable(self) -> bool:
        self._checked()
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self.closed:
            _core.check_target(buffer)
        got = self._checked().preadinto(buffer, self._place())
        self._position += got
        return got

    def read(self, size: SupportsIndex | None = -1, /) -> bytes:
        # The inherited one copies twice: into a bytearray, and that into bytes.
        n = -1 if size is None else _integer(size, 64)
        return self.readall() if n < 0 else self._read(self._checked(), n)

    def readall(self) -> bytes:
        file = self._checked()
        # One read, so that it is of one version: what is appended meanwhile is left for the next call.
        return self._read(file, max(file._look() - self._position, 0))

    def seek(self, offset: SupportsIndex, whence: SupportsIndex = os.SEEK_SET, /) -> int:
        whence = _integer(whence, 32)
        file = self._checked()
        position = _integer(offset, 64)
        match whence:
            case os.SEEK_SET:
                pass
            case os.SEEK_CUR:
                position += self._position
            case os.SEEK_END:
                position += file._look()
            case os.SEEK_DATA | os.SEEK_HOLE:
                raise io.UnsupportedOperation(f"whence {whence}: SEEK_DATA and SEEK_HOLE are not supported")
            case _:
                raise OSError(errno.EINVAL, f"whence must be 0, 1 or 2: {whence}", self.name)
        if position < 0:
            raise OSError(errno.EINVAL, f"seek to {position}, before the start of the file", self.name)
        if position >> 63:
            raise OSError(errno.EOVERFLOW, f"seek to {position}, beyond 2**63 - 1", self.name)
        self._position = position
        return position

    def tell(self) -> int:
        self._checked()
        return self._position

    def fileno(self) -> NoReturn:
        self._checked()
        raise io.UnsupportedOperation("fileno: a descriptor would bypass the cache")

    def write(self, data: ReadableBuffer, /) -> NoReturn:
        memoryview(data).release()
        self._checked()
        raise io.UnsupportedOperation("write: the stream is read-only")

    def truncate(self, _size: SupportsIndex | None = None, /) -> NoReturn:
        self._checked()
        raise io.UnsupportedOperation("truncate: the stream is read-only; use File.truncate")

    def close(self) -> None:
        if self._closes and not self.closed:
            # With a page pinned it fails, and both stay open.
            self._file.close()
        super().close()

    def __del__(self) -> None:
        # One that could not be made has neither.
        if getattr(self, "_closes", False) and not self.closed:
            _core.warn_unclosed(self._file, self)
        # It closes.
        super().__del__()

    def _dealloc_warn(self, source: object) -> None:
        # A stream over this one, which was never closed, calls it as it does FileIO's.
        if self._closes and not self.closed:
            _core.warn_unclosed(self._file, source)

    def __repr__(self) -> str:
        return f"<specmm raw stream of {self._file!r} at {self._position}>"

    def _checked(self) -> File:
        """The file; ValueError if the stream is closed."""
        if self.closed:
            raise ValueError(f"the stream of {self._file.name!r} is closed")
        return self._file

    def _place(self) -> int:
        return min(self._position, _MAX_SIZE)

    def _read(self, file: File, n: int) -> bytes:
        data = file.pread(n, self._place())
        self._position += len(data)
        return data


def _integer(value: SupportsIndex, bits: int) -> int:
    """Any kind of integer as an int; OverflowError if it does not fit, as in C."""
    number = operator.index(value)
    if not -1 << bits - 1 <= number < 1 << bits - 1:
        raise OverflowError(f"{number} does not fit into {bits} bits")
    return number
