"""Puts specmm under a peer from outside: what the peer opens to read comes through the process-wide cache.

Each adapter replaces one way to a file by what specmm's pages tell users to write in its place, and touches
nothing else: neither the peer's tests nor what it writes. It is applied before the peer's modules are
imported, to keep a name that one of them takes for itself from being the plain one.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import stat
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import specmm
from specmm._raw import RawFile

if TYPE_CHECKING:
    from collections.abc import Callable

# Small, so that the suites' larger files do not fit.
CAPACITY = "2MiB"

_plain_open = io.open


class _Stream(RawFile):
    """`File.as_raw()` of a File that nobody else has: they are closed together."""

    def __init__(self, path: Any) -> None:
        self._own = specmm.open(path)
        super().__init__(self._own)

    def close(self) -> None:
        super().close()
        self._own.close()


def _is_other(path: Any) -> bool:
    """Whether a path names something else than a regular file, or Python's own code, which importers read.

    What is not there is not other: then specmm's error is the one to be seen.
    """
    try:
        found = Path(os.fsdecode(path))
        return not stat.S_ISREG(found.stat().st_mode) or found.suffix in (".py", ".pyc")
    except (OSError, ValueError, TypeError):
        return False


class _Open:
    """`open`: regular files to read, in any kind of stream, by `as_raw()`; everything else is Python's own.

    Not a function, which would become a method of a class that keeps it.
    """

    def __init__(self, stream: Callable[[Any], Any] = _Stream) -> None:
        self._stream = stream

    def __call__(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        ours = (
            isinstance(file, str | bytes | os.PathLike)
            and mode in ("r", "rt", "tr", "rb", "br")
            and isinstance(buffering, int)
            and closefd
            and opener is None
        )
        if not ours or _is_other(file):
            return _plain_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        binary = "b" in mode
        if (binary and (encoding, errors, newline) != (None,) * 3) or (not binary and buffering == 0):
            # What Python refuses before it opens anything.
            return _plain_open(file, mode, buffering, encoding, errors, newline)
        raw = self._stream(file)
        if buffering == 0:
            return raw
        try:
            stream: Any = io.BufferedReader(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
            if not binary:
                stream = io.TextIOWrapper(stream, encoding, errors, newline, buffering == 1)
                stream.mode = mode
        except BaseException:
            raw.close()
            raise
        return stream


def files(stream: Callable[[Any], Any] = _Stream) -> None:
    """`open` of builtins and io, and whoever took it from there already."""
    import tarfile

    builtins.open = io.open = tarfile.bltn_open = _Open(stream)  # type: ignore[attr-defined]


def files_of(fs: Any) -> None:
    """The same by files of a file system of fsspec's, which itself goes on with Python's own."""
    import fsspec.implementations.local

    fsspec.implementations.local.open = _plain_open
    files(lambda path: fs.open(os.fsdecode(path), "rb"))


def files_by_local() -> None:
    """`open` by fsspec's own file system for this machine."""
    from fsspec.implementations.local import LocalFileSystem

    files_of(LocalFileSystem())


def files_by_fsspec() -> None:
    """`open` by the same with `specmm.fsspec.CachedFileSystem` in front."""
    from fsspec.implementations.local import LocalFileSystem

    from specmm.fsspec import CachedFileSystem

    files_of(CachedFileSystem(fs=LocalFileSystem()))


def fsspec() -> None:
    """`fsspec.filesystem(...)`: the same, with `specmm.fsspec.CachedFileSystem` in front."""
    import fsspec

    from specmm.fsspec import CachedFileSystem

    plain = fsspec.filesystem

    def filesystem(protocol: str, **options: Any) -> Any:
        return CachedFileSystem(fs=plain(protocol, **options))

    fsspec.filesystem = filesystem


def h5py(stream: Callable[[Any], Any] = _Stream) -> None:
    """`h5py.File(path)` to read: `h5py.File(file.as_raw())`."""
    import h5py

    plain: Callable[..., None] = h5py.File.__init__

    @functools.wraps(plain)
    def init(
        self: Any, name: Any, mode: str = "r", driver: Any = None, libver: Any = None, **options: Any
    ) -> None:
        by_path = isinstance(name, str | bytes | os.PathLike) and driver is None
        # HDF5's own way to read beside a writer needs a file that it opens itself.
        if by_path and mode == "r" and not options.get("swmr") and Path(os.fsdecode(name)).is_file():
            name = stream(name)
        plain(self, name, mode, driver, libver, **options)

    h5py.File.__init__ = init


def h5py_by_objects() -> None:
    """`h5py.File(path)` to read: `h5py.File(open(path, "rb"))`."""
    h5py(lambda path: _plain_open(path, "rb", buffering=0))


def zarr() -> None:
    """`LocalStore`'s ways to read become those of `specmm.zarr.CachedStore`, which is one itself."""
    from zarr.storage import LocalStore

    from specmm.zarr import CachedStore

    for name, method in vars(CachedStore).items():
        if isinstance(method, FunctionType) and name not in ("__init__", "with_read_only"):
            setattr(LocalStore, name, method)
    LocalStore._cache = None


ADAPTERS = {
    "files": files,
    "files_by_fsspec": files_by_fsspec,
    "files_by_local": files_by_local,
    "fsspec": fsspec,
    "h5py": h5py,
    "h5py_by_objects": h5py_by_objects,
    "zarr": zarr,
}


def apply(names: list[str]) -> None:
    specmm.configure(capacity=CAPACITY)
    for name in names:
        ADAPTERS[name]()
