"""A file that others write to: each row of docs/changes.md, and drawn histories held against the file."""

import errno
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import specmm
from samples import ROOT

PAGE = specmm.PAGE_SIZE
PAGES = 40
SIZE = PAGES * PAGE
TABLE = ROOT / "docs" / "changes.md"
SETTLED = 0.02  # a version is young for so long


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(b"a" * SIZE)
    os.utime(path, (1, 1))
    return path


# --- each row: how to come by it, what is cached then, and what is read


def rewrite(path: Path, times: tuple[int, int] | None, size: int = SIZE) -> None:
    with path.open("r+b") as file:
        file.write(b"b" * size)
        file.truncate(size)
    os.utime(path, times)
    another_ctime(path)


def another_ctime(path: Path) -> None:
    """The system's clock may not tick between two changes."""
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:
        path.chmod(0o600)


def nothing(_path: Path) -> None:
    pass


def chmod(path: Path) -> None:
    path.chmod(0o640)
    another_ctime(path)


def rewritten_and_put_back(path: Path) -> None:
    rewrite(path, (1, 1))


def rewritten(path: Path) -> None:
    rewrite(path, (2, 2))


def rewritten_just_now(path: Path) -> None:
    rewrite(path, None)


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"b" * PAGE)


def appended_and_put_back(path: Path) -> None:
    appended(path)
    os.utime(path, (1, 1))


def cut(path: Path) -> None:
    os.truncate(path, SIZE - PAGE)


def cut_and_rewritten(path: Path) -> None:
    rewrite(path, (2, 2), SIZE - PAGE)


ROWS: dict[tuple[str, str, str], list[Callable[[Path], None]]] = {
    ("the same", "the same", "the same"): [nothing],
    ("the same", "the same", "another"): [chmod, rewritten_and_put_back],
    ("the same", "another", "any"): [rewritten, rewritten_just_now],
    ("larger", "any", "any"): [appended, appended_and_put_back],
    ("smaller", "any", "any"): [cut, cut_and_rewritten],
}


def looks_of(path: Path, change: Callable[[Path], None]) -> tuple[os.stat_result, os.stat_result]:
    before = path.stat()
    change(path)
    return before, path.stat()


def test_every_row_of_the_table_has_a_test():
    table = TABLE.read_text().split("## What a check finds")[1].split("\n## ")[0]
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|")[:3])
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    assert rows[1:] == list(ROWS)


@pytest.mark.parametrize(
    ("row", "change"),
    [(row, change) for row, changes in ROWS.items() for change in changes],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_look_finds(cache, data, row, change):
    with cache.open(data, ra_pages=0) as file, specmm.mm.Mm(cache) as mm:
        address = mm.mmap(file)
        assert mm.load(address, 3) == b"aaa"
        assert file.pread(10 * PAGE, 0) == b"a" * 10 * PAGE
        before, after = looks_of(data, change)

        # What happened is what the row says.
        size = (after.st_size > before.st_size) - (after.st_size < before.st_size)
        assert ("the same", "larger", "smaller")[size] == row[0]
        for what, name in ((row[1], "st_mtime_ns"), (row[2], "st_ctime_ns")):
            if what != "any":
                assert (getattr(before, name) == getattr(after, name)) == (what == "the same")

        # A hit does not look; a miss does.
        assert file.pread(3, PAGE) == b"aaa"
        stays = change in (nothing, *ROWS["larger", "any", "any"])
        assert file.pread(3, 20 * PAGE) == data.read_bytes()[20 * PAGE :][:3]
        assert (cache.stats().invalidated > 0) == (not stays)
        assert file.residency()[:10] == bytes([stays] * 10)
        assert file.size == after.st_size

        # And all that is read from now on is what the file is.
        assert file.pread(2 * SIZE, 0) == data.read_bytes()
        assert file.gather([0, after.st_size - 8], 8) == data.read_bytes()[:8] + data.read_bytes()[-8:]
        assert file.as_raw().read() == data.read_bytes()
        with file.pin(PAGE, 8) as pin:
            assert bytes(pin) == data.read_bytes()[PAGE : PAGE + 8]
        if row[0] == "smaller":
            with pytest.raises(specmm.BusError):
                mm.load(address + SIZE - 1, 1)


def test_a_rewrite_that_lengthens_is_taken_for_growth(cache, data):
    with cache.open(data, ra_pages=0) as file:
        assert file.pread(PAGE, 0) == b"a" * PAGE
        rewrite(data, (2, 2), SIZE + PAGE)
        assert file.revalidate() == SIZE + PAGE
        assert (file.pread(1, 0), file.pread(1, PAGE)) == (b"a", b"b")
        assert file.revalidate(drop=True) == SIZE + PAGE
        assert file.pread(2 * SIZE, 0) == b"b" * (SIZE + PAGE)
        with pytest.raises(TypeError, match="drop"):
            file.revalidate(drop=1)


def test_what_was_in_the_last_page_goes_when_the_file_grows(cache, data):
    os.truncate(data, 3 * PAGE + 100)
    with cache.open(data, ra_pages=0) as file:
        assert file.pread(PAGE, 3 * PAGE) == b"a" * 100
        with data.open("ab") as log:
            log.write(b"b" * 200)
        assert file.pread(PAGE, 3 * PAGE) == b"a" * 100 + b"b" * 200
        assert file.residency()[3] == 1


# --- a read at the known end looks first: the same bytes as a plain file object gives


def test_a_read_at_the_end_sees_what_was_appended(cache, tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    path = tmp_path / "log"
    path.write_bytes(b"")
    with cache.open(path) as file, path.open("rb", buffering=0) as plain, path.open("ab", buffering=0) as log:
        raw = file.as_raw()
        for _ in range(300):
            if draw.random() < 0.6:
                log.write(draw.randbytes(draw.choice([1, 10, PAGE - 1, PAGE, 3 * PAGE + 7])))
            size = path.stat().st_size
            n, offset = draw.choice([1, 100, PAGE, 10 * PAGE]), max(0, size - draw.choice([0, 1, 50, PAGE]))
            match draw.choice(["pread", "gather", "pin", "read", "seek", "readinto"]):
                case "pread":
                    assert file.pread(n, offset) == os.pread(plain.fileno(), n, offset)
                case "gather" if size:
                    length = min(n, size - min(offset, size - 1))
                    offset = min(offset, size - 1)
                    assert bytes(file.gather([offset, 0], length)) == (
                        os.pread(plain.fileno(), length, offset) + os.pread(plain.fileno(), length, 0)
                    )
                case "pin" if offset < size:
                    with file.pin(offset, 1) as pin:
                        assert bytes(pin) == os.pread(plain.fileno(), 1, offset)
                case "read":
                    assert raw.read() == plain.read()
                case "seek":
                    back = min(size, draw.choice([0, 1, 100]))
                    assert raw.seek(-back, os.SEEK_END) == plain.seek(-back, os.SEEK_END)
                case "readinto":
                    ours, theirs = bytearray(n), bytearray(n)
                    assert raw.readinto(ours) == plain.readinto(theirs)
                    assert ours == theirs


# --- drawn histories: whatever is read is all of one version that existed during the call


class Versions:
    """A file of which every byte tells its version, who changes it, and what it was when."""

    def __init__(self, path: Path, draw: random.Random) -> None:
        self.path, self.draw = path, draw
        self.number = 1
        self.size = self.least = SIZE
        self.look: Callable[[], object] = lambda: None  # for whoever reads
        self.file = path.open("w+b", buffering=0)
        self.file.write(bytes([1]) * SIZE)
        os.utime(path, (1, 1))
        # Each version, from when to when it may have been there.
        self.was: list[tuple[int, float, float]] = [(1, 0.0, math.inf)]
        self.slow: list[tuple[float, float]] = []
        self.changes = 0
        self.stop = threading.Event()

    def change(self, how: str) -> None:
        before = self.path.stat()
        began = time.monotonic()
        if how in ("rewrite", "restore", "cut and lengthen"):
            self.number = self.number % 250 + 1
            self.was.append((self.number, began, math.inf))
        match how:
            case "rewrite" | "restore":
                self.write(0, self.size)
                if how == "restore":
                    os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
            case "append":
                # With a rewrite that nobody has looked at it would be taken for growth.
                self.look()
                size, self.size = self.size, self.size + self.draw.choice([1, PAGE, 5000])
                self.write(size, self.size - size)
                # A rewrite before the next look would be taken for growth.
                self.look()
            case "cut and lengthen":
                # To no more than at the last look, for the same reason.
                self.least = max(25 * PAGE, self.least - self.draw.choice([1, 100, PAGE]))
                self.size = self.least
                os.ftruncate(self.file.fileno(), 0)
                self.write(0, self.size)
            case "chmod":
                self.path.chmod(0o600 + self.draw.choice([0, 0o40]))
        ended = time.monotonic()
        if ended - began > SETTLED / 2 and how != "append":
            # The system let us wait in the middle of a write. What was read meanwhile is read again.
            os.utime(self.path, ns=(before.st_atime_ns, self.number))
            self.look()
            ended = time.monotonic()
            self.slow.append((began, ended))
        if how in ("rewrite", "restore", "cut and lengthen"):
            number, since, _ = self.was[-2]
            self.was[-2] = (number, since, ended)

    def write(self, offset: int, n: int) -> None:
        assert os.pwrite(self.file.fileno(), bytes([self.number]) * n, offset) == n

    def run(self, hows: list[str], pause: tuple[float, float]) -> None:
        while not self.stop.is_set():
            self.change(self.draw.choice(hows))
            self.changes += 1
            time.sleep(self.draw.uniform(*pause))

    def between(self, began: float, ended: float) -> set[int] | None:
        """The versions of that time; None if nothing is promised of it."""
        if any(since <= ended and until >= began for since, until in self.slow):
            return None
        return {number for number, since, until in self.was if since <= ended and until >= began}


def reads_of(file: specmm.File, draw: random.Random) -> bytes:
    """Bytes of several pages, by one call."""
    match draw.choice(["pread", "preadinto", "gather", "stream", "long"]):
        case "pread":
            return file.pread(draw.randrange(2 * PAGE, 20 * PAGE), draw.randrange(0, 10 * PAGE))
        case "long":
            return file.pread(1 << 40, 0)
        case "preadinto":
            buffer = bytearray(30 * PAGE)
            return bytes(buffer[: file.preadinto(buffer, draw.randrange(0, PAGE))])
        case "gather":
            offsets = [draw.randrange(0, 30 * PAGE) for _ in range(draw.randrange(2, 40))]
            return bytes(file.gather(offsets, draw.choice([8, 100, PAGE])))
        case _:
            stream = file.as_raw()
            stream.seek(draw.randrange(0, 5 * PAGE))
            return stream.read()


class Followed(NamedTuple):
    """How often what happened."""

    changes: int
    reads: int
    stale: int


def follow(
    tmp_path: Path, seed: int, hows: list[str], pause: tuple[float, float], seconds: float, changes: int
) -> Followed:
    """Two readers and a writer, for at least so many seconds and changes. What a call returns is of one
    version, which existed during the call."""
    print("seed", seed)
    versions = Versions(tmp_path / "versions", random.Random(seed))
    wrong: list[str] = []
    # From when to when, of which versions, how many bytes. Judged at the end, when it is known what was slow.
    reads: list[tuple[float, float, set[int], int]] = []
    stale = [0, 0]
    # In a small cache most reads miss.
    cache = specmm.PageCache(random.Random(seed).choice([200, 40, 16]) * PAGE)
    files = [cache.open(versions.path, ra_pages=pages) for pages in (32, 0)]
    versions.look = files[0].revalidate

    def read(number: int) -> None:
        draw = random.Random(seed + number)
        while not versions.stop.is_set() and not wrong:
            try:
                # A hit may be of what was last found: looked at now, it is of now.
                began = time.monotonic()
                files[number].revalidate()
                data = reads_of(files[number], draw)
            except specmm.BusError:
                continue  # cut short at that moment
            except OSError as error:
                if (error.errno, error.filename) != (errno.ESTALE, str(versions.path)):
                    wrong.append(repr(error))
                stale[number] += 1
                continue
            reads.append((began, time.monotonic(), set(data), len(data)))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    threads.append(threading.Thread(target=versions.run, args=(hows, pause)))
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    while (
        time.monotonic() < deadline or versions.changes <= changes or not (reads or any(stale))
    ) and not wrong:
        assert time.monotonic() < deadline + 120, "the writer and the readers hardly run"
        time.sleep(0.01)
    versions.stop.set()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    versions.file.close()
    cache.check()
    cache.close()
    for began, ended, found, length in reads:
        existed = versions.between(began, ended)
        if existed is not None and (len(found) > 1 or not found <= existed):
            wrong.append(f"{found} in {length} bytes, while there were {existed}")
    assert wrong == []
    return Followed(versions.changes, len(reads), sum(stale))


def long(seconds: float) -> float:
    return seconds * {"deep": 20, "ci": 2}.get(os.environ.get("SPECMM_HYPOTHESIS", "dev"), 1)


EVERYTHING = ["rewrite", "restore", "cut and lengthen", "chmod", "append"]


# The writer lets each version grow old, or now and then.
@pytest.mark.parametrize("pause", [(2 * SETTLED, 5 * SETTLED), (0.0, 2 * SETTLED)], ids=["rests", "hardly"])
def test_every_answer_is_of_one_version(tmp_path, pause):
    followed = follow(tmp_path, random.randrange(1 << 32), EVERYTHING, pause, long(3), changes=5)
    assert followed.changes > 5
    assert followed.reads > 0


def test_a_file_that_is_rewritten_all_the_time_is_stale(tmp_path):
    followed = follow(tmp_path, random.randrange(1 << 32), ["rewrite"], (0.0, 0.0), long(2), changes=50)
    assert followed.changes > 50
    assert followed.stale > 0


@pytest.mark.parametrize("hows", [["append"], ["chmod"], ["append", "chmod"]], ids="-".join)
def test_nobody_is_stale_beside_appends_and_chmod(tmp_path, hows):
    followed = follow(tmp_path, random.randrange(1 << 32), hows, (0.0, 0.0001), long(1.5), changes=100)
    assert followed.changes > 100
    assert followed.reads > 0
    assert followed.stale == 0


@pytest.fixture
def chmod_loop(data) -> Iterator[None]:
    """Another process changes nothing but the ctime, as fast as it can."""
    loop = "import os, sys\nwhile True: os.chmod(sys.argv[1], 0o600); os.chmod(sys.argv[1], 0o640)"
    process = in_a_process(loop, str(data))
    yield
    process.kill()
    process.wait()


def in_a_process(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


@pytest.mark.usefixtures("chmod_loop")
def test_a_reader_beside_a_loop_of_chmod_gets_its_bytes(cache, data):
    with cache.open(data) as file:
        mode = data.stat().st_mode
        while data.stat().st_mode == mode:
            time.sleep(0.001)
        for number in range(60):
            offset = number * 977 % SIZE
            assert file.pread(SIZE, offset) == b"a" * (SIZE - offset)
            assert bytes(file.gather([0, SIZE - 100], 100)) == b"a" * 200
            with file.pin(number % PAGES * PAGE, 8) as pin:
                assert bytes(pin) == b"a" * 8
        mm = specmm.mm.Mm(cache)
        address = mm.mmap(file)
        for number in range(5):
            try:
                assert mm.load(address + number * PAGE, 8) == b"a" * 8
            except specmm.BusError as error:
                # A fault cannot read twice, and no look came between two calls of chmod.
                assert isinstance(error.__cause__, OSError)
                assert error.__cause__.errno == errno.ESTALE
        mm.close()
