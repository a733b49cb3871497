"""Where the bytes of a file live, and what the store reports about them."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Change(Enum):
    """What happened to a file between two checks."""

    NONE = "nothing"
    GROWN = "it became longer: what was there is what it was"
    TOUCHED = "its ctime alone: chmod, or a write after which the time was put back"
    WRITTEN = "its bytes"


@dataclass(frozen=True)
class Look:
    """What fstat reports of a file."""

    size: int
    mtime: int
    ctime: int

    def since(self, before: Look) -> Change:
        """What happened since an earlier check."""
        if self == before:
            return Change.NONE
        if self.size > before.size:
            return Change.GROWN
        if (self.size, self.mtime) == (before.size, before.mtime):
            return Change.TOUCHED
        return Change.WRITTEN


class UserStore(Protocol):
    """What `open_store` requires of an object; `truncate(size)` is optional."""

    def read_at(self, offset: int, n: int, /) -> bytes: ...


class Store:
    """A user's object, held to its contract: the requested bytes, or an OSError that names the file."""

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
        """Truncates, or extends with zeros."""
        truncate = getattr(self.user, "truncate", None)
        if truncate is None:
            raise io.UnsupportedOperation(f"the store of {self.name!r} has no truncate")
        truncate(size)

    def look(self) -> Look | None:
        """What the store reports of itself now, if it can tell."""
        return None

    def close(self) -> None:
        """Called when nobody reads any more."""


class LocalFile(Store):
    """A file on disk, by its descriptor."""

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

    def look(self) -> Look | None:
        status = os.fstat(self.descriptor)
        return Look(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def close(self) -> None:
        os.close(self.descriptor)
