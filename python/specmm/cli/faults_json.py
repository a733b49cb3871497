"""The result of `specmm faults` as JSON."""

import os
from typing import Any

QUANTILES = ("ns_p50", "ns_p99", "ns_p999", "ns_max")


def document(
    report: dict[str, Any], machine: dict[str, Any], path: str, fstype: str, *, temporary: bool
) -> dict[str, Any]:
    """Medians of the rounds under the plain names, each with its smallest and largest under `spread`."""
    return {
        "machine": machine,
        "file": {
            "path": os.fspath(path),
            "size": report["file_size"],
            "fstype": fstype,
            "mapped": report["length"],
            "temporary": temporary,
        },
        "capacity": report["capacity"],
        "timing": {key: report[key] for key in ("sample_every", "clock_ns", "stride", "pinned", "pair")},
        "runs": [_run(report, run) for run in report["runs"]],
    }


def _run(report: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    rounds = run["rounds"]
    is_kernel = run["locking"] == "kernel"
    writer_seconds = sum(each["writer_seconds"] for each in rounds)
    return {
        "locking": run["locking"],
        "workload": report["workload"],
        "threads": report["threads"],
        "writer_rate": run["writer_rate"],
        "seconds": sum(each["seconds"] for each in rounds),
        "faults": run["faults"],
        "faults_per_s": run["faults_per_s"][0],
        # The largest of all: a median of maxima would hide what somebody waited for.
        **{name: max(run[name]) if name == "ns_max" else run[name][0] for name in QUANTILES},
        "commits": run["events"].get("spf_commit", 0),
        "speculative_share": run["speculative_share"],
        "lock_acquisitions": None if is_kernel else run["lock_acquisitions"],
        "events": run["events"],
        "timed": run["timed"],
        "writer_pairs_per_s": sum(each["pairs"] for each in rounds) / writer_seconds
        if writer_seconds
        else 0.0,
        "spread": {name: list(run[name][1:]) for name in ("faults_per_s", *QUANTILES)},
        "rounds": rounds,
        "latency_curve": [list(point) for point in run["latency_curve"]],
    }
