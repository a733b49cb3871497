"""What figures depend on: the machine, and the file system that the file is on."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import specmm


def describe() -> dict[str, Any]:
    """The machine and the versions."""
    return {
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "specmm": specmm.__version__,
    }


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    found = re.search(r"^(?:model name|Model|cpu)\s*:\s*(.+)$", info, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def file_system(path: str) -> str:
    """The type of the file system that holds a path, or "unknown"."""
    device = Path(path).stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    # id parent major:minor root mount-point options ... - type source options. Some file systems give their
    # files another device number than their mount has; then the longest mount point above the file counts.
    real = os.path.realpath(path)
    best = ("", "unknown")
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        device_of_mount, point = fields.split()[2], fields.split()[4].replace("\\040", " ")
        kind = rest.split()[0]
        if device_of_mount == wanted:
            return kind
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]
