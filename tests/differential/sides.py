"""One implementation in a differential run: what it is made of, and what of it is compared."""

from __future__ import annotations

import dataclasses
import enum
import errno
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = 4096
BASE = 0x10000  # the lowest address that mmap gives

# Of the statistics, what does not depend on how a read was served.
STATS = (
    "capacity_frames",
    "frames_in_use",
    "private_frames",
    "pinned_frames",
    "active_frames",
    "inactive_frames",
    "shadows",
    "page_tables",
    "evictions",
    "dropped",
    "invalidated",
    "refaults",
    "refaults_activated",
    "activations",
    "deactivations",
    "scanned",
    "reads",
    "readahead_pages",
)


def content(seed: int, offset: int, n: int) -> bytes:
    """Bytes that tell where they come from: none is zero, and no two neighbouring pages are alike."""
    start = (offset + 17 * seed) % 251
    return (bytes(range(1, 252)) * ((start + n) // 251 + 1))[start : start + n]


class PatternStore:
    """A store whose reads of chosen pages fail, each in the way that is asked for."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed = seed
        self.size = size
        self.filled = size  # what lies beyond was cut off once, and came back as zeros
        self.bad: dict[int, str] = {}
        self.plan: tuple[int, str, bool] | None = None  # which read fails, how, and whether all later ones do
        self.fired: Counter[str] = Counter()
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, n: int) -> bytes:
        self.reads.append((offset, n))
        self.carry_out_plan()
        data = content(self.seed, offset, max(0, min(n, self.filled - offset))).ljust(n, b"\0")
        for page in range(offset // PAGE, -(-(offset + n) // PAGE)):
            match self.bad.get(page):
                case "error":
                    raise OSError(errno.EIO, f"page {page} is bad")
                case "exception":
                    raise RuntimeError(f"page {page} is bad")
                case "short":
                    return data[:-1]
                case "long":
                    return data + b"+"
        if self.plan_fires() and self.plan is not None and self.plan[1] == "short":
            return data[:-1]
        return data

    def plan_fires(self) -> bool:
        if self.plan is None:
            return False
        at, _, for_ever = self.plan
        return len(self.reads) == at or (for_ever and len(self.reads) > at)

    def carry_out_plan(self) -> None:
        """The read that has just been asked for, if it is one that goes wrong."""
        if self.plan is None or not self.plan_fires():
            return
        self.fired[self.plan[1]] += 1
        match self.plan[1]:
            case "error":
                raise OSError(errno.EIO, f"read {len(self.reads)} was to fail")
            case "interrupted":
                raise InterruptedError(errno.EINTR, f"read {len(self.reads)} was to be interrupted")
            case "slow":
                time.sleep(0.001)

    def truncate(self, size: int) -> None:
        self.size = size
        self.filled = min(self.filled, size)


class Side:
    """A cache of one implementation with its files and address spaces, which both sides number alike."""

    def __init__(
        self, subject: Any, frames: int, folder: Path, make_store: Callable[[int, int], Any], mms: int
    ) -> None:
        self.subject = subject
        self.make_store = make_store
        folder.mkdir()
        self.path = folder / "on-disk"
        self.cache = subject.PageCache(frames * PAGE, io="inline", frame_timeout=0)
        self.files: list[Any] = []
        self.pins: list[Any] = []
        self.stores: list[Any] = []  # None for a file on disk
        self.mms = [subject.Mm(self.cache) for _ in range(mms)]

    def open_store(self, seed: int, size: int, ra_pages: int) -> None:
        store = self.make_store(seed, size)
        self.files.append(self.cache.open_store(store, size, name=f"store {seed}", ra_pages=ra_pages))
        self.stores.append(store)

    def open_path(self, mode: str, ra_pages: int) -> None:
        self.files.append(self.cache.open(self.path, mode, ra_pages=ra_pages))
        self.stores.append(None)

    def preadinto(self, file: int, n: int, offset: int) -> tuple[int, bytes]:
        buffer = bytearray(b"x" * n)
        return self.files[file].preadinto(buffer, offset), bytes(buffer)

    def gather(self, file: int, offsets: list[int], length: int, into: bool) -> bytes:
        out = bytearray(b"x" * (len(offsets) * length)) if into else None
        return bytes(self.files[file].gather(offsets, length, out=out))

    def pin(self, file: int, offset: int, n: int) -> bytes:
        self.pins.append(self.files[file].pin(offset, n))
        return bytes(self.pins[-1])

    def new_mm(self, number: int, locking: str, fault_around: int | str) -> None:
        """In the place of another, which ends."""
        self.mms[number].close()
        self.mms[number] = self.subject.Mm(self.cache, locking=locking, fault_around=fault_around)

    def close(self) -> None:
        """Everything ends, and nothing may be left in use."""
        for pin in self.pins:
            pin.release()
        for mm in self.mms:
            mm.close()
        for file in self.files:
            file.close()
        self.cache.check()
        in_use = self.cache.stats().frames_in_use
        self.cache.close()
        if in_use:
            raise Difference(f"{in_use} frames are in use after everything was closed")

    def observe(self, top: int) -> dict[str, Any]:
        """Everything that shows, of mappings up to the address `top`; looking changes nothing."""
        self.cache.check()
        seen: dict[str, Any] = {}
        stats = self.cache.stats()
        for name in STATS:
            seen[f"stats.{name}"] = getattr(stats, name)
        for number, (file, store) in enumerate(zip(self.files, self.stores, strict=True)):
            of = f"files[{number}]"
            seen[f"{of}.closed"] = file.closed
            seen[f"{of}.mode"] = file.mode
            if not file.closed:
                seen[f"{of}.readahead_state"] = plain(file.readahead_state)
                seen[f"{of}.size"] = file.size
                seen[f"{of}.residency"] = file.residency()
            if store is not None:
                seen[f"{of} reads of the store"] = store.reads[:]
        seen["pins"] = [bytes(pin) for pin in self.pins if not pin.released]
        for number, mm in enumerate(self.mms):
            of = f"mms[{number}]"
            pagemap = mm.pagemap(BASE, top - BASE)
            seen[f"{of}.pagemap"] = pagemap
            seen[f"{of} present bytes"] = b"".join(
                mm.load(BASE + page * PAGE, PAGE) for page in present_pages(pagemap)
            )
            # Last: loads of what is present must not have counted.
            seen[f"{of}.vm_events"] = mm.vm_events()
        return seen


def present_pages(pagemap: bytes) -> list[int]:
    """Where a pagemap, which may be long and empty, is not zero."""
    found: list[int] = []
    for start in range(0, len(pagemap), 4096):
        chunk = pagemap[start : start + 4096]
        if chunk.count(0) != len(chunk):
            found += (start + page for page, bits in enumerate(chunk) if bits)
    return found


class Difference(AssertionError):  # noqa: N818 - it is not specmm's error
    """The two sides do not agree."""


def differences(subject: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """What differs, each in one line; of long values only the part that does."""
    lines = []
    for key in model:
        ours, theirs = model[key], subject[key]
        if ours == theirs:
            continue
        if isinstance(ours, dict) and isinstance(theirs, dict):
            names = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
            ours, theirs = ({name: each.get(name) for name in names} for each in (ours, theirs))
        elif isinstance(ours, bytes | list) and isinstance(theirs, bytes | list):
            both = zip(ours, theirs, strict=False)
            first = next((at for at, (one, other) in enumerate(both) if one != other), None)
            first = min(len(ours), len(theirs)) if first is None else first
            key = f"{key}, from [{first}] on"
            ours, theirs = ours[first : first + 24], theirs[first : first + 24]
        lines.append(f"{key}: specmm {theirs!r}, model {ours!r}")
    return lines


def tell(call: Callable[[], Any], more: Callable[[Exception], object] | None = None) -> Any:
    """What a call answers or raises, in words that do not depend on whose classes it uses."""
    try:
        return plain(call())
    except Exception as error:
        name = type(error).__name__
        if name in ("InvariantError", "Difference"):
            raise
        if name == "BusError":
            return name, error.args, plain_os_error(error.__cause__)
        told = name, plain_os_error(error)
        return told if more is None else (*told, more(error))


def plain_os_error(error: BaseException | None) -> Any:
    """Its number and file, when the system or a store is the origin."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno, error.filename and Path(error.filename).name
    return None


def plain(value: Any) -> Any:
    """Flags as numbers, causes by name, records field by field."""
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, enum.IntFlag):
        return int(value)
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    return value
