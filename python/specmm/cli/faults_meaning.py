"""What the figures of `specmm faults` mean, in one sentence that is true whoever wins."""

from typing import Any

from specmm.cli import figures

Run = dict[str, Any]


def sentence(result: dict[str, Any]) -> str:
    """Compares speculation with the lock at the highest rate, round by round: the rounds were interleaved."""
    runs = result["runs"]
    rate = runs[-1]["writer_rate"]
    at_rate = {run["locking"]: run for run in runs if run["writer_rate"] == rate}
    beside = "Without a writer" if rate == 0 else f"Beside a thread that maps and unmaps {_often(rate)}"
    speculative, locked = at_rate.get("speculative"), at_rate.get("mmap_lock")
    if speculative is None or locked is None:
        run = speculative or locked or runs[-1]
        return f"{beside}, {_alone(run)}"
    tails = [_Comparison(speculative, locked, name) for name in ("ns_p99", "ns_p999")]
    speed = _Comparison(speculative, locked, "faults_per_s")
    p99, p999 = (_words(tail, "shorter", "longer") for tail in tails)
    lockless = figures.share(speculative["speculative_share"])
    return (
        f"{beside}, {lockless} of the speculative faults took no lock; "
        f"against mmap_lock their p99 was {p99}, their p99.9 {p999} and faults/s "
        f"{_words(speed, 'lower', 'higher')}: {_verdict(tails, speed)}."
    )


def _often(rate: int | str) -> str:
    return "without pause" if rate == "max" else f"{rate} times a second"


def _alone(run: Run) -> str:
    share = run["speculative_share"]
    lockless = f", {figures.share(share)} of them without a lock" if share is not None else ""
    return (
        f"{run['locking']} served {figures.count(run['faults_per_s'])} faults/s{lockless}, "
        f"half of them within {figures.nanoseconds(run['ns_p50'])} and 99 in 100 within "
        f"{figures.nanoseconds(run['ns_p99'])}."
    )


class _Comparison:
    """One figure of two runs: the medians, and in how many rounds the first was smaller."""

    def __init__(self, ours: Run, theirs: Run, name: str) -> None:
        self.ours: float = ours[name]
        self.theirs: float = theirs[name]
        self.is_time = name.startswith("ns_")
        pairs = [(a[name], b[name]) for a, b in zip(ours["rounds"], theirs["rounds"], strict=True)]
        self.rounds = len(pairs)
        self.smaller = sum(a < b for a, b in pairs)
        self.larger = sum(a > b for a, b in pairs)

    @property
    def is_smaller(self) -> bool:
        """In the medians and in four rounds of five."""
        return self.ours < self.theirs and self.smaller * 5 >= self.rounds * 4

    @property
    def is_larger(self) -> bool:
        return self.ours > self.theirs and self.larger * 5 >= self.rounds * 4


def _words(one: _Comparison, smaller: str, larger: str) -> str:
    show = figures.nanoseconds if one.is_time else figures.count
    values = f"{show(one.ours)} against {show(one.theirs)}"
    if one.is_smaller:
        return f"{smaller} ({values}, in {one.smaller} of {one.rounds} rounds)"
    if one.is_larger:
        return f"{larger} ({values}, in {one.larger} of {one.rounds} rounds)"
    return f"not clearly different ({values})"


def _verdict(tails: list[_Comparison], speed: _Comparison) -> str:
    wins = any(tail.is_smaller for tail in tails) or speed.is_larger
    loses = any(tail.is_larger for tail in tails) or speed.is_smaller
    if wins and not loses:
        return "speculation kept going where the lock stalled"
    if loses and not wins:
        return "speculation did not pay here"
    if wins:
        return "it won in part only"
    return "this run shows no winner"
