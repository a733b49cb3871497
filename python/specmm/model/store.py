"""Where the bytes of a file live."""

import errno
import io
import os
from typing import Protocol


class UserStore(Protocol):
    """What `open_store` asks of an object; `truncate(size)` is optional."""

    def read_at(self, offset: int, n: int, /) -> bytes: ...


class Store:
    """A user's object, held to its promise: the bytes asked for, or an OSError that names the file."""

    def __init__(self, user: UserStore, name: str) -> None:
        self.user = user
        self.name = name

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes that lie before the end of the file."""
        try:
            data = self.user.read_at(offset, n)
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), self.name) from error
        except Exception as error:
            raise OSError(errno.EIO, f"the store raised {error!r}", self.name) from error
        if len(data) != n:
            raise OSError(errno.EIO, f"{len(data)} bytes instead of {n} at {offset}", self.name)
        return data

    def truncate(self, size: int) -> None:
        """Cuts or extends with zeros."""
        truncate = getattr(self.user, "truncate", None)
        if truncate is None:
            raise io.UnsupportedOperation(f"the store of {self.name!r} has no truncate")
        truncate(size)

    def size(self) -> int | None:
        """The size now, if the store can tell."""
        return None

    def version(self) -> object:
        """Something that changes when somebody writes to the store, if the store can tell."""
        return None

    def close(self) -> None:
        """Nobody reads any more."""


class LocalFile(Store):
    """A file by its descriptor."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name

    def read(self, offset: int, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = os.pread(self.descriptor, n - len(data), offset + len(data))
            if not more:
                raise OSError(errno.EIO, f"{len(data)} bytes instead of {n} at {offset}", self.name)
            data += more
        return data

    def truncate(self, size: int) -> None:
        try:
            os.ftruncate(self.descriptor, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from error

    def size(self) -> int | None:
        return os.fstat(self.descriptor).st_size

    def version(self) -> object:
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def close(self) -> None:
        os.close(self.descriptor)
