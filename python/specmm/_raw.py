"""A file in a cache as a raw stream of Python's io, for clients that want a file object."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from specmm._core import File


class RawFile(io.RawIOBase):
    """A read-only stream with a position of its own. Closing it leaves its File open.

    It has no descriptor to give away: a client that reads past the cache would not see what the cache sees.
    """

    def __init__(self, file: File) -> None:
        super().__init__()
        self._file = file
        self._position = 0

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def mode(self) -> str:
        return "rb"

    def readable(self) -> bool:
        self._checked()
        return True

    def seekable(self) -> bool:
        self._checked()
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        got = self._checked().preadinto(buffer, self._position)
        self._position += got
        return got

    def read(self, size: int | None = -1, /) -> bytes:
        # The inherited one copies twice: into a bytearray, and that into bytes.
        if size is None or size < 0:
            return self.readall()
        data = self._checked().pread(size, self._position)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        file = self._checked()
        data = file.pread(max(file.size - self._position, 0), self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        file = self._checked()
        match whence:
            case os.SEEK_SET:
                position = offset
            case os.SEEK_CUR:
                position = self._position + offset
            case os.SEEK_END:
                position = file.size + offset
            case _:
                raise ValueError(f"whence must be 0, 1 or 2: {whence}")
        if position < 0:
            raise ValueError(f"seek to {position}, before the start of the file")
        self._position = position
        return position

    def tell(self) -> int:
        self._checked()
        return self._position

    def fileno(self) -> NoReturn:
        raise io.UnsupportedOperation("fileno: a descriptor would bypass the cache")

    def write(self, _data: object, /) -> NoReturn:
        raise io.UnsupportedOperation("write: the stream is read-only")

    def truncate(self, _size: int | None = None, /) -> NoReturn:
        raise io.UnsupportedOperation("truncate: the stream is read-only; use File.truncate")

    def __repr__(self) -> str:
        return f"<specmm raw stream of {self._file!r} at {self._position}>"

    def _checked(self) -> File:
        """The file of a stream that is open."""
        if self.closed:
            raise ValueError(f"the stream of {self._file.name!r} is closed")
        return self._file
