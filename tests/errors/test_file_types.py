"""A path that names no regular file is refused by what it names, and never waited for."""

import asyncio
import errno
import fcntl
import os
import pathlib
import pickle
import pty
import socket
import subprocess
import sys

import fsspec
import pytest
from zarr.core.buffer import default_buffer_prototype

import specmm
import specmm.fsspec
import specmm.zarr
from programs import command, run
from samples import CONTENT
from specmm import _core

SAID = {
    "fifo": "fifo",
    "socket": "socket",
    "null": "character device",
    "zero": "character device",
    "terminal": "character device",
    "folder": "directory",
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A path of each kind by its name, and a link to each."""
    folder = tmp_path_factory.mktemp("odd")
    master, slave = pty.openpty()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    paths = {name: str(folder / name) for name in ("fifo", "socket", "folder")}
    paths |= {"null": "/dev/null", "zero": "/dev/zero", "terminal": os.ttyname(slave)}
    for name, path in list(paths.items()):
        link = folder / f"link to {name}"
        link.symlink_to(path)
        paths[link.name] = str(link)
    yield paths
    listener.close()
    os.close(master)
    os.close(slave)


def faults(path):
    row = {"workload": _FIRST, "threads": 1, "writer_rates": ["0"], "seconds": 0.01}
    return _core.run_faults(path, locking=_core.rows(), **row)


_FIRST = next(iter(_core.workloads()))


def replaced(path, folder):
    """The path of an open file names something else by now."""
    (folder / "file").write_bytes(b"bytes")
    link = folder / "link"
    link.symlink_to(folder / "file")
    with specmm.PageCache("64KiB") as cache, cache.open(link) as file:
        link.unlink()
        link.symlink_to(path)
        try:
            file.revalidate()
        finally:
            link.unlink()


def unpickled(path, folder):
    """So does the path of a file in a pickle."""
    link = folder / "link"
    link.write_bytes(b"bytes")
    with specmm.open(link) as file:
        data = pickle.dumps(file)
    link.unlink()
    link.symlink_to(path)
    try:
        pickle.loads(data)
    finally:
        link.unlink()


def zipped(path):
    store = specmm.zarr.CachedZipStore(path)
    return asyncio.run(store.get("key", default_buffer_prototype()))


# Those that the caller finds in the error as it was given.
NAMING = {
    "open": specmm.open,
    "open bytes": lambda path: specmm.open(os.fsencode(path)),
    "r+b": lambda path: specmm.open(path, "r+b"),
    "w+b": lambda path: specmm.open(path, "w+b"),
    "kernel_residency": _core.kernel_residency,
    "open_regular": _core.open_regular,
    "zip": zipped,
    "fsspec": lambda path: specmm.fsspec.open(f"file://{path}"),
    "chained": lambda path: fsspec.open(f"specmm::file://{path}").open(),
}


KINDS = [*SAID, *(f"link to {name}" for name in SAID)]


def judge(error, name):
    """Whether it says what is wrong."""
    folder = name.endswith("folder")
    assert error.errno == (errno.EISDIR if folder else errno.EINVAL)
    said = str(error).lower()
    assert SAID[name.removeprefix("link to ")] in said or "not a regular file" in said, error


@pytest.mark.parametrize("name", KINDS)
def test_every_way_in_refuses_it_and_names_it(odd, tmp_path, name):
    for call in NAMING.values():
        with pytest.raises(OSError, match=r"egular|irectory") as raised:
            call(odd[name])
        judge(raised.value, name)
        assert os.fsdecode(raised.value.filename) == odd[name]
    for call in (replaced, unpickled):
        with pytest.raises(OSError, match="link") as raised:
            call(odd[name], tmp_path)
        judge(raised.value, name)
    with pytest.raises(ValueError, match="not a regular file"):
        faults(odd[name])
    # To zarr it is a key that the store does not have.
    path = pathlib.Path(odd[name])
    store = specmm.zarr.CachedStore(path.parent, read_only=True)
    assert store.get_sync(path.name, prototype=default_buffer_prototype()) is None


@pytest.mark.parametrize("name", KINDS)
def test_what_exists_is_not_created(odd, name):
    with pytest.raises(FileExistsError):
        specmm.open(odd[name], "x+b")


@pytest.mark.parametrize("name", SAID)
def test_the_command_refuses_it(odd, name):
    for subcommand in ("faults", "read", "stat"):
        done = command(subcommand, odd[name])
        assert done.returncode == 2
        assert done.stderr.startswith(f"specmm {subcommand}: '{odd[name]}' cannot be read: ")
        assert SAID[name] in done.stderr.lower() and done.stderr.count("\n") == 1


# --- another file at the moment of opening

SWAP = """
import os, signal, sys, time
import specmm, specmm.zarr
from specmm import _core
from specmm.cli import arguments
from zarr.core.buffer import default_buffer_prototype
folder = sys.argv[1]
path = os.path.join(folder, "path")
names = [os.path.join(folder, name) for name in ("file", "fifo")]
with open(names[0], "wb") as file:
    file.write(bytes(5000))
os.mkfifo(names[1])

os.symlink(names[0], path)
program = os.getpid()
swapper = os.fork()
while not swapper:
    for name in names:
        os.symlink(name, path + " next")
        os.rename(path + " next", path)
    if os.getppid() != program:
        os._exit(0)

row = dict(workload=next(iter(_core.workloads())), threads=1, writer_rates=["0"], seconds=0.001, rounds=1)
store = specmm.zarr.CachedStore(folder)
cache = specmm.PageCache("1MiB")

def opened(mode, call):
    with cache.open(path, mode) as file:
        call(file)

ways = [
    lambda: opened("rb", lambda file: file.pread(1, 0)),
    lambda: opened("r+b", lambda file: file.pread(1, 0)),
    lambda: opened("w+b", lambda file: file.truncate(5000)),
    lambda: _core.kernel_residency(path),
    lambda: os.close(_core.open_regular(path)),
    lambda: _core.run_faults(path, locking=["kernel"], **row),
    lambda: arguments.file(path, empty="read"),
    lambda: store.get_sync("path", prototype=default_buffer_prototype()),
]
outcomes = [set() for _ in ways]
both = lambda: sum(seen == {"fine", "refused"} for seen in outcomes)
until = time.monotonic() + 20
while both() < 5 and time.monotonic() < until:
    for way, seen in zip(ways, outcomes):
        try:
            way()
            seen.add("fine")
        except (OSError, ValueError, arguments.UsageError) as error:
            assert "egular" in str(error) or getattr(error, "errno", None) == 116, error
            seen.add("refused")
os.kill(swapper, signal.SIGKILL)
os.waitpid(swapper, 0)
print(both(), "ways went both ways")
"""


def test_what_is_swapped_in_is_refused_as_well(tmp_path):
    """A FIFO takes the file's place and gives it back all the time; a time-out ends who waits for one."""
    ways = int(run(SWAP, tmp_path).split()[0])
    assert ways >= 5


def test_a_lease_is_waited_for(path):
    """open(2) that must not wait is refused while somebody else has to give a lease up."""
    code = """
import fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, lambda *_: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK))
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "leased\n"
        with specmm.PageCache("64KiB") as cache, cache.open(path) as file:
            assert file.pread(1, 0) == CONTENT[:1]
        holder.stdin.close()


def test_the_descriptor_of_a_file_may_wait(path):
    fd = _core.open_regular(path)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK == 0
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)
