#!/usr/bin/env python3
"""Prints docs/counters.md from the core's tables.

.venv-dev/bin/python tools/counters.py > docs/counters.md
"""

from collections.abc import Iterator

from specmm import _core

_HEAD = """\
# Counters

Written by `tools/counters.py` from the tables of the core: `rust/core/cache/stats.rs`,
`rust/core/mm/events.rs` and `rust/core/cache/vm_fault.rs`.

## Of a cache

`PageCache.stats()` returns them as a `CacheStats`. Counters only rise; gauges of what the cache holds now
("memory", and `reads_abandoned`) rise and fall. `specmm stat` prints those that moved."""

_EVENTS = """
## Of an address space

`Mm.vm_events()` returns a dictionary with every name in it. No count ever falls. While no fault is running,
`spf_attempt` is `spf_commit` plus `spf_abort`, and `spf_abort` is the sum of its causes.
"""

_CAUSES = """
## Why speculation gave up

One event for each `Abort`, which `FaultOutcome.abort` names; the locked path then serves the fault.
"""


def page() -> str:
    """The page."""
    events = _core.event_glosses()
    causes = {name: gloss for name, gloss in events.items() if name.startswith("spf_abort_")}
    parts = [_HEAD]
    for group, glosses in _core.counter_glosses().items():
        parts += [f"\n### {group.capitalize()}\n", *_table("counter", glosses)]
    parts += [_EVENTS, *_table("event", {name: events[name] for name in events if name not in causes})]
    return "\n".join([*parts, _CAUSES, *_table("event", causes)]) + "\n"


def _table(heading: str, glosses: dict[str, str]) -> Iterator[str]:
    yield f"| {heading} | what it counts |"
    yield "|---|---|"
    for name, gloss in glosses.items():
        yield f"| `{name}` | {gloss} |"


if __name__ == "__main__":
    print(page(), end="")
