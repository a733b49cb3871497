"""How much memory one way of reading holds as a file is read from its start, in a process of its own.

The plan comes as JSON on stdin, as that of `read_child` does; the points go as JSON to stdout.
"""

import gc
import itertools
from typing import Any

from specmm.cli.read_child import resident, serve
from specmm.cli.read_rivals import RIVALS

BOUNDS = 8
"""How much is read, in multiples of the limit: enough to see who keeps to it."""

_POINTS = 200


def trace(plan: dict[str, Any]) -> list[list[int]]:
    """Bytes read so far, with the bytes resident beyond what was resident before the file was opened."""
    size = plan["size"]
    reads = min(plan["file_size"], BOUNDS * plan["bound"]) // size
    gc.collect()
    gc.disable()
    before = resident()
    rival = RIVALS[plan["rival"]](plan["path"], size, plan["bound"], "sequential")
    ends = [reads * point // _POINTS for point in range(_POINTS + 1)]
    points = [[0, max(resident() - before, 0)]]
    for first, end in itertools.pairwise(ends):
        if first < end:
            rival.many(range(first * size, end * size, size))
            points.append([end * size, max(resident() - before, 0)])
    rival.close()
    return points


if __name__ == "__main__":
    serve(trace)
