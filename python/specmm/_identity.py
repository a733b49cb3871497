"""The identity of an object of a file system: two objects share pages only if they are the same.

Nothing is compared by how it prints. Plain values are compared as they are, file systems by their arguments,
and everything else equals only itself.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import os
import pathlib
import stat
import threading
import uuid
import weakref
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fsspec.archive import AbstractArchiveFileSystem
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

# File systems' names for what changes whenever the bytes do.
_TAGS = ("ETag", "etag", "e_tag", "Content-MD5", "content_md5", "Digest", "md5Hash", "generation", "hex")
# Names for what usually changes when the bytes do.
_TIMES = ("Last-Modified", "LastModified", "last_modified", "mtime", "modified", "updated", "timeModified")
# Names for what changes when the object is read.
_LOOKS = ("atime", "time", "accessed", "last_accessed", "accessTime")

_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, uuid.UUID, decimal.Decimal),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
)
_DEEP = 20


class Same:
    """Equals only itself: a weak reference to an object, which equals nothing once the object is gone."""

    __slots__ = ("_id", "_of")

    def __init__(self, thing: object) -> None:
        self._id = id(thing)
        try:
            self._of: Any = weakref.ref(thing)
        except TypeError:
            # Keep it alive, so that nothing else gets its address.
            self._of = lambda: thing

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Same) and (mine := self._of()) is not None and mine is other._of()

    def __hash__(self) -> int:
        return self._id


def frozen(value: Any, depth: int = 0) -> Hashable:
    """A value as a key: two keys are equal if the values are, with the same types, all the way down."""
    kind = type(value)
    if depth > _DEEP:
        return Same(value)
    if kind in _PLAIN or isinstance(value, enum.Enum):
        return kind, value
    if isinstance(value, tuple | list):
        return kind, tuple(frozen(each, depth + 1) for each in value)
    if isinstance(value, dict):
        return kind, frozenset(
            (frozen(name, depth + 1), frozen(each, depth + 1)) for name, each in value.items()
        )
    if isinstance(value, set | frozenset):
        return kind, frozenset(frozen(each, depth + 1) for each in value)
    if isinstance(value, pathlib.PurePath):
        return kind, str(value)
    if isinstance(value, AbstractFileSystem):
        return identity_of(value, depth + 1)
    return Same(value)


class _Notes:
    """What this module keeps with a file system."""

    def __init__(self, fs: Any, depth: int) -> None:
        # Re-entrant: a finalizer may use the file system in the middle of its use.
        self.turn = threading.RLock()
        self.identity = _made_of(fs, depth)
        # An archive that a parent process opened, opened again.
        self.own: Any = None

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[()]]:
        # A copy of the file system creates its own.
        return dict, ()


def _notes(fs: Any, depth: int = 0) -> _Notes:
    # Some file systems have the attributes of those behind them.
    kept: dict[str, Any] = object.__getattribute__(fs, "__dict__")
    # One per process: a forked child would find the lock as it was.
    name = f"_specmm_{os.getpid()}"
    notes = kept.get(name)
    if not isinstance(notes, _Notes):
        if notes is not None:
            kept.pop(name, None)
        notes = kept.setdefault(name, _Notes(fs, depth))
    found: _Notes = notes
    return found


def identity_of(fs: Any, depth: int = 0) -> Hashable:
    """Which file system it is. One created anew on each request, as archives are, equals only itself."""
    return _notes(fs, depth).identity


def _made_of(fs: Any, depth: int) -> Hashable:
    made_of = getattr(fs, "storage_args", None), getattr(fs, "storage_options", None)
    if None in made_of or not type(fs).cachable:
        return Same(fs)
    # A file system that defines its own token knows more than its arguments.
    says = None if type(fs)._fs_token is AbstractFileSystem._fs_token else fs._fs_token
    return type(fs), frozen(made_of, depth), says


def turn(fs: Any) -> AbstractContextManager[Any]:
    """To be held while a file system that is not thread-safe is used.

    File systems with an event loop are thread-safe, and so are memory and local ones. Of all others, fsspec
    gives each thread its own.
    """
    fs = _behind(fs)
    if getattr(fs, "async_impl", False) or isinstance(fs, LocalFileSystem | MemoryFileSystem):
        return nullcontext()
    return _notes(fs).turn


def alone(fs: Any) -> AbstractContextManager[Any]:
    """To be held while the position of a shared file or archive is moved."""
    return _notes(_behind(fs)).turn


def _behind(fs: Any) -> Any:
    while isinstance(getattr(fs, "fs", None), AbstractFileSystem):
        fs = fs.fs
    return fs


# --- files on this machine


def descriptor_of(file: Any) -> int | None:
    """The descriptor of a file object that only passes on the bytes of a regular file."""
    raw = file.f if type(file) is LocalFileOpener else file
    if type(raw) in (io.BufferedReader, io.BufferedRandom):
        raw = raw.raw
    if type(raw) is not io.FileIO or raw.closed:
        return None
    return raw.fileno() if stat.S_ISREG(os.fstat(raw.fileno()).st_mode) else None


class Stamp:
    """A regular file as it was when it was opened."""

    def __init__(self, descriptor: int) -> None:
        self.found = os.fstat(descriptor)
        self.descriptor = descriptor

    @property
    def key(self) -> Hashable:
        return self.found.st_dev, self.found.st_ino

    @property
    def version(self) -> Hashable:
        return self.found.st_size, self.found.st_mtime_ns, self.found.st_ctime_ns

    def is_unchanged(self) -> bool:
        """Whether nobody wrote to it; it may have been unlinked or changed its mode."""
        now, then = os.fstat(self.descriptor), self.found
        return (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)


def archive_of(fs: Any) -> tuple[Hashable, Stamp] | None:
    """The identity of an archive in a regular file, whoever opened it: that of the file."""
    if not isinstance(fs, AbstractArchiveFileSystem):
        return None
    descriptor = descriptor_of(getattr(fs, "fo", None))
    if descriptor is None:
        return None
    stamp = Stamp(descriptor)
    options = {name: value for name, value in fs.storage_options.items() if name != "fo"}
    return (type(fs), frozen(fs.storage_args[1:]), frozen(options), stamp.key), stamp


def own_archive(fs: Any) -> Any:
    """An archive to read from in this process. A forked child shares its parent's file, and its position.

    So it opens that file again, through its descriptor: its name may be another file's by now.
    """
    if not isinstance(fs, AbstractArchiveFileSystem):
        return fs
    notes, descriptor = _notes(fs), descriptor_of(getattr(fs, "fo", None))
    known = [name for name in list(vars(fs)) if name.startswith("_specmm_")]
    if descriptor is None or len(known) == 1:
        return fs
    if notes.own is None:
        file = LocalFileSystem().open(f"/proc/self/fd/{descriptor}", "rb")
        options = {name: value for name, value in fs.storage_options.items() if name != "fo"}
        notes.own = type(fs)(file, *fs.storage_args[1:], **options)
    return notes.own


# --- what file systems report of an object


def version_of(details: dict[str, Any]) -> Hashable:
    """Differs for different versions of an object."""
    tags = _tags(details)
    return frozen(tags or {name: value for name, value in details.items() if name not in _LOOKS})


def state_of(details: dict[str, Any]) -> dict[str, str]:
    """What differs only if the bytes do; empty if nothing tells."""
    tags = _tags(details) or {name: str(details[name]) for name in _TIMES if details.get(name)}
    if details.get("size") is not None:
        tags["size"] = str(details["size"])
    return tags


def differ(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether two states are of different versions, as far as both tell."""
    return any(one[name] != other[name] for name in one.keys() & other.keys())


def _tags(details: dict[str, Any]) -> dict[str, str]:
    return {tag: str(details[tag]) for tag in _TAGS if details.get(tag)}


def is_poor(details: dict[str, Any]) -> bool:
    """Whether a file's own details say no more than that it exists, so that its file system must be asked."""
    return set(details) <= {"name", "size", "type"}


def options_of(file: Any) -> Hashable:
    """What a file was opened with: its own record, and what its class made of it."""
    own = {
        name: value
        for name, value in vars(file).items()
        if name not in _ORDINARY and type(value) in _PLAIN and value is not None
    }
    return frozen((file.kwargs, own))


# What every file has: it is in the key already, or changes as the file is read.
_ORDINARY = {
    *("path", "fs", "mode", "blocksize", "loc", "autocommit", "end", "start", "kwargs", "size", "cache"),
    *("buffer", "offset", "forced", "location", "_closed", "_details", "details", "trim", "url"),
}
