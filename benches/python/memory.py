"""The peak of memory of each rival on random reads of a file larger than its bound, each in a process."""

import random
import subprocess
import sys
from pathlib import Path

from rivals import RIVALS, SIZE

READS = 40_000


def measure(rival, path, bound):
    """Bytes that the peak lay above what the process held before the rival was made."""
    done = subprocess.run(
        [sys.executable, __file__, rival, path, str(bound)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return None
    return int(done.stdout)


def _resident(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(name)


def _main(rival, path, bound):
    pages = Path(path).stat().st_size // SIZE
    draw = random.Random(1)
    where = [draw.randrange(pages) * SIZE for _ in range(READS)]
    # Its libraries are not what it caches: a first one loads them.
    first = RIVALS[rival](path, int(bound), "random")
    first.read(0)
    first.close()
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    reader = RIVALS[rival](path, int(bound), "random")
    for offset in where:
        reader.read(offset)
    print(max(_resident("VmHWM") - before, 0))


if __name__ == "__main__":
    _main(*sys.argv[1:])
