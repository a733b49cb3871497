"""A memory cgroup of one's own, of either version: what is charged to it, and a limit."""

import os
import time
from pathlib import Path

# What a command ends with that could not join its group.
CANNOT_JOIN = 97


class UnavailableError(Exception):
    """There is no memory controller that a group can be made under; the message says why."""


class Group:
    """A new group below this process's own. It is removed when the block ends, by when it must be empty."""

    _made = 0

    def __init__(self) -> None:
        self.version, parent = _parent()
        Group._made += 1
        self.path = parent / f"specmm-{os.getpid()}-{Group._made}"

    def __enter__(self) -> "Group":
        try:
            self.path.mkdir()
        except OSError as error:
            raise UnavailableError(f"no group can be made in {self.path.parent}: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        # The kernel lets a process go a moment after it was waited for.
        for _attempt in range(100):
            try:
                self.path.rmdir()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.path.rmdir()

    def command(self, arguments: list[str]) -> list[str]:
        """A command that joins the group before it begins, so that all its memory is charged there."""
        join = f'echo $$ > "$0" || exit {CANNOT_JOIN}; exec "$@"'
        return ["sh", "-c", join, str(self.path / "cgroup.procs"), *arguments]

    def limit(self, size: int) -> None:
        """The most that may be charged, without swap."""
        names = (
            ("memory.max",) if self.version == 2 else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        )
        for name in names:
            if name == names[0] or (self.path / name).exists():
                (self.path / name).write_text(str(size))
        if (self.path / "memory.swap.max").exists():
            (self.path / "memory.swap.max").write_text("0")

    def charged(self) -> dict[str, int]:
        """Bytes charged in all, of them anonymous, pages of files, of these mapped, and the working set."""
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        names = ("anon", "file", "file_mapped") if self.version == 2 else ("rss", "cache", "mapped_file")
        anonymous, file, mapped = (int(stat[name]) for name in names)
        usage = (self.path / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")).read_text()
        return {
            "charged": int(usage),
            "anonymous": anonymous,
            "file": file,
            "mapped": mapped,
            # As the kubelet computes it.
            "working_set": max(int(usage) - int(stat["inactive_file"]), 0),
        }


def _parent() -> tuple[int, Path]:
    """The version, and the group to make others in."""
    own = dict(_own())
    reasons = []
    for version, point, root in _mounts():
        if version not in own:
            continue
        # A container may see a part of the hierarchy only.
        group = point / os.path.relpath(own[version], root)
        if version == 1:
            if os.access(group, os.W_OK):
                return 1, group
            reasons.append(f"{group} cannot be written to")
            continue
        for each in (group, *group.parents):
            control = each / "cgroup.subtree_control"
            if each == point.parent or not control.exists():
                break
            if "memory" in control.read_text().split() and os.access(each, os.W_OK):
                return 2, each
        reasons.append(f"no group from {group} upwards hands on the memory controller and can be written to")
    raise UnavailableError("; ".join(reasons) or "no memory controller is mounted")


def _own() -> list[tuple[int, str]]:
    """This process's group in each hierarchy that may have the memory controller."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            found.append((2, path))
        elif "memory" in controllers.split(","):
            found.append((1, path))
    return found


def _mounts() -> list[tuple[int, Path, str]]:
    """Version, mount point and root of each such hierarchy, version 1 first: only one has the controller."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _source, options = rest.split()[:3]
        root, point = fields.split()[3:5]
        if kind == "cgroup" and "memory" in options.split(","):
            found.append((1, Path(point), root))
        elif kind == "cgroup2":
            found.append((2, Path(point), root))
    return sorted(found)
