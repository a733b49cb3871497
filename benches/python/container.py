"""What a memory cgroup charges for reading a file, by way of reading, and what happens under a limit.

    python benches/python/container.py [--megabytes 256] [--json]

Each time a process in a new group reads the whole file twice, after the file was dropped from the kernel's
page cache. Figures are what reading adds to what the interpreter had. It needs a memory controller (of either
version) that it may make groups under, which mostly means root.
"""

import argparse
import json
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import specmm
from cgroup import CANNOT_JOIN, Group, UnavailableError

MIB = 1 << 20
SIZE = 4096

# What it exits with when there is no controller.
UNAVAILABLE = 3


# --- in the group


Read = Callable[[int], object]


def by_mmap(path: str, _bound: int) -> Read:
    with Path(path).open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return lambda offset: data[offset : offset + SIZE]


def by_pread(path: str, _bound: int) -> Read:
    fd = os.open(path, os.O_RDONLY)
    return lambda offset: os.pread(fd, SIZE, offset)


def by_specmm(path: str, bound: int) -> Read:
    file = specmm.PageCache(bound).open(path)
    return lambda offset: file.pread(SIZE, offset)


def by_specmm_alone(path: str, bound: int) -> Read:
    """The same, and every 8 MiB what the kernel has cached of the file is dropped."""
    fd = os.open(path, os.O_RDONLY)
    pread = by_specmm(path, bound)

    def read(offset: int) -> object:
        if offset % (8 * MIB) == 0:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return pread(offset)

    return read


WAYS = {
    "mmap": by_mmap,
    "os.pread": by_pread,
    "specmm": by_specmm,
    "specmm, kernel's copy dropped": by_specmm_alone,
}


def child(way: str, path: str, bound: str) -> None:
    """Says when it begins and when it has read everything twice, and waits for its parent to look."""
    read = WAYS[way](path, int(bound))
    size = Path(path).stat().st_size
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(2):
        for offset in range(0, size, SIZE):
            read(offset)
    print("done", flush=True)
    sys.stdin.readline()


# --- outside


@contextmanager
def reader(group: Group, way: str, path: Path, bound: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, __file__, "--child", way, str(path), str(bound)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    process = subprocess.Popen(group.command(command), stdin=pipe, stdout=pipe, text=True, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def drop(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def charges(way: str, path: Path, bound: int) -> dict[str, int]:
    """What reading the whole file adds to the group's charge."""
    drop(path)
    with Group() as group, reader(group, way, path, bound) as process:
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline() != "ready\n":
            if process.wait() == CANNOT_JOIN:
                raise UnavailableError(f"a process may not join {group.path}")
            raise RuntimeError(f"the reader ended with code {process.returncode}")
        before = group.charged()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        return {name: value - before[name] for name, value in group.charged().items()}


def outcome(way: str, path: Path, bound: int, limit: int) -> str:
    """How reading ends in a group that may hold less than the file."""
    drop(path)
    with Group() as group:
        group.limit(limit)
        with reader(group, way, path, bound) as process:
            out, _ = process.communicate("\n\n")
            if process.returncode == 0:
                return "reads everything" if out == "ready\ndone\n" else f"printed {out!r}"
            return "killed" if process.returncode == -9 else f"exit code {process.returncode}"


def measure(size: int) -> dict[str, object]:
    bound, limit = size // 8, size // 4
    with tempfile.TemporaryDirectory(prefix="specmm-container-") as folder:
        path = Path(folder, "data")
        with path.open("wb") as out:
            for _ in range(size // MIB):
                out.write(os.urandom(MIB))
        return {
            "version": Group().version,
            "size": size,
            "bound": bound,
            "limit": limit,
            "charges": {way: charges(way, path, bound) for way in WAYS},
            "under_limit": {
                **{way: outcome(way, path, bound, limit) for way in WAYS},
                "specmm, capacity over the limit": outcome("specmm", path, 2 * limit, limit),
            },
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--megabytes", type=int, default=256, help="of the file, made in the temporary folder"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    try:
        found = measure(options.megabytes * MIB)
    except UnavailableError as error:
        print(f"container.py: {error}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    size, bound, limit = (f"{found[name] // MIB} MiB" for name in ("size", "bound", "limit"))
    print(f"cgroup v{found['version']}; a file of {size}, a capacity of {bound}; then a limit of {limit}\n")
    print(
        f"| read through | charged | anonymous | file pages | of these mapped | working set | under {limit} |"
    )
    print("|---|--:|--:|--:|--:|--:|---|")
    for way, charge in found["charges"].items():
        columns = " | ".join(f"{round(value / MIB)} MiB" for value in charge.values())
        print(f"| {way} | {columns} | {found['under_limit'][way]} |")
    way = "specmm, capacity over the limit"
    print(f"| {way} | | | | | | {found['under_limit'][way]} |")


if __name__ == "__main__":
    main()
