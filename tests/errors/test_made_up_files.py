"""Files whose size says nothing, as those of /proc and /sys: refused with that reason, never empty."""

import asyncio
import contextlib
import errno
import itertools
import os
import pathlib
import re

import pytest
from zarr.core.buffer import default_buffer_prototype

import specmm
import specmm.zarr
from programs import command

MOST = 1 << 16
"""Bytes that are compared of a file."""

REASON = re.compile(
    r"it reports (no size but has contents|\d+ bytes(,? and reading it waits| but has (more|fewer)))"
)
ROOTS = [
    "/proc/self",
    "/proc/sys",
    "/proc/fs",
    "/proc",
    "/sys/kernel",
    "/sys/devices/system",
    "/sys/fs",
    "/sys/module",
]
# What is read once is gone, or is the memory of the machine.
LEFT_OUT = (
    r"kmsg|kcore|trace|/proc/(self/task|\d)|debug|vmcore|kpage|pagemap|clear_refs|/(map_files|fd|cwd|root)/"
)


def files(root):
    """Regular files below a folder, the first so many of each."""
    found = (f"{folder}/{name}" for folder, _, names in os.walk(root) for name in names)
    regular = (path for path in found if not re.search(LEFT_OUT, path) and pathlib.Path(path).is_file())
    return itertools.islice(regular, 40)


def plainly(path):
    """What plain reads answer, or their errno; None: it waits."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            data = b""
            while len(data) < MOST and (part := file.read(MOST - len(data))):
                data += part
            return data
    except BlockingIOError:
        return None
    except OSError as error:
        return error.errno


def cached(cache, path):
    """What specmm answers: bytes, or its error."""
    try:
        with cache.open(path) as file:
            return file.pread(MOST, 0)
    except OSError as error:
        return error


@pytest.mark.parametrize("root", ROOTS)
def test_made_up_files_are_refused_or_read_right(root):
    read = refused = 0
    with specmm.PageCache("1MiB", io="inline") as cache:
        for path in files(root):
            before, got, after = plainly(path), cached(cache, path), plainly(path)
            if isinstance(got, bytes):
                # Some change all the time.
                assert got in (before, after) or (before != after and got), path
                read += 1
            elif got.errno == errno.EINVAL and REASON.search(str(got)):
                assert before != b"" or after != b"" or pathlib.Path(path).stat().st_size, path
                assert got.filename == path
                refused += 1
            else:
                short = "short read" in str(got) and isinstance(before, bytes)
                assert short or got.errno in (before, after), (path, got, before)
    print(root, read, refused)
    if root in ("/proc/self", "/proc"):
        assert refused > 5


def test_a_file_of_proc_is_refused_by_every_way_in(tmp_path):
    path = "/proc/self/status"
    with specmm.PageCache("64KiB") as cache:
        for call in (
            lambda: cache.open(path),
            lambda: cache.open(os.fsencode(path)),
            lambda: specmm.open(path),
            lambda: specmm._core.kernel_residency(path),
        ):
            with pytest.raises(OSError, match="no size but has contents") as raised:
                call()
            assert raised.value.errno == errno.EINVAL
            assert os.fsdecode(raised.value.filename) == path
        # Its link takes a file's place.
        (tmp_path / "file").write_bytes(b"bytes")
        link = tmp_path / "link"
        link.symlink_to("file")
        with cache.open(link) as file:
            link.unlink()
            link.symlink_to(path)
            with pytest.raises(OSError, match="no size but has contents"):
                file.revalidate()
            assert file.pread(9, 0) == b"bytes"
        (tmp_path / "key").symlink_to(path)
        store = specmm.zarr.CachedStore(tmp_path, cache=cache)
        with pytest.raises(OSError, match="no size but has contents"):
            asyncio.run(store.get("key", default_buffer_prototype()))


@pytest.mark.parametrize("subcommand", ["faults", "read", "stat"])
def test_the_command_says_why(subcommand):
    done = command(subcommand, "/proc/version")
    assert done.returncode == 2
    assert done.stderr.startswith(f"specmm {subcommand}: '/proc/version' cannot be read: ")
    assert "no size but has contents" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097])
@pytest.mark.parametrize("hole", [False, True])
def test_small_files_empty_ones_and_holes_are_read(cache, tmp_path, size, hole):
    path = tmp_path / "file"
    path.write_bytes(b"" if hole else b"x" * size)
    os.truncate(path, size)
    for mode in ("rb", "r+b"):
        with cache.open(path, mode) as file:
            assert file.pread(9999, 0) == path.read_bytes()


def test_a_file_that_is_written_at_that_moment_is_not_refused(tmp_path):
    """It is empty, has content, and its size tells so by then."""
    path = tmp_path / "file"
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            while os.getppid() != 1:
                path.write_bytes(b"x" * 10)
                path.write_bytes(b"")
        os._exit(0)
    try:
        with specmm.PageCache("64KiB", io="inline") as cache:
            while not path.exists():
                pass
            for _ in range(3000):
                cache.open(path).close()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
