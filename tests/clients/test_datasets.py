"""A map-style data set read by worker processes: forked, spawned, and from a fork server."""

import multiprocessing
import os

import numpy as np
import pytest

import specmm
from loader import load
from specmm.numpy import Records

# Python 3.12 warns of fork where there are threads; specmm's are none of the child's.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

TYPE = np.dtype([("features", "f4", (30,)), ("label", "u1")])
draw = np.random.default_rng(9)
TABLE = np.empty(5000, TYPE)
TABLE["features"] = draw.random((len(TABLE), 30))
TABLE["label"] = draw.integers(0, 10, len(TABLE))
BATCHES = [list(map(int, batch)) for batch in draw.permutation(len(TABLE)).reshape(-1, 50)]


class Examples:
    """What torch asks of a data set: its length, one example, and, where there is a way, many at once."""

    def __init__(self, cache: specmm.PageCache, path) -> None:
        self.cache = cache
        self.records = Records(cache.open(path), TYPE)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, n: int):
        row = self.records[n]
        return row["features"], row["label"]

    def __getitems__(self, which: list[int]):
        rows = self.records[which]
        return rows["features"], rows["label"]

    def stats(self):
        return self.cache.stats()


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    return multiprocessing.get_context(request.param)


@pytest.fixture
def path(tmp_path):
    TABLE.tofile(tmp_path / "examples")
    return tmp_path / "examples"


def test_workers_read_what_is_there(context, path):
    with specmm.PageCache("4MiB") as cache:
        examples = Examples(cache, path)
        assert np.array_equal(examples[7][0], TABLE[7]["features"])
        batches, counted = load(context, examples, BATCHES)
        for which, (features, labels) in zip(BATCHES, batches, strict=True):
            assert np.array_equal(features, TABLE[which]["features"])
            assert np.array_equal(labels, TABLE[which]["label"])
        # Each worker had a cache of its own, of the same size, and read each byte once at most.
        assert len(counted) == 2
        assert os.getpid() not in counted
        for stats in counted.values():
            assert stats.capacity_frames == cache.stats().capacity_frames
            assert 0 < stats.read_bytes <= path.stat().st_size
        # The one here goes on as before.
        assert np.array_equal(examples[4999][0], TABLE[4999]["features"])
        cache.check()


def test_an_error_comes_back_from_a_worker(context, path):
    with specmm.PageCache("4MiB") as cache:
        examples = Examples(cache, path)
        batches, _ = load(context, examples, [[1], [2, len(TABLE)], [3]])
        assert np.array_equal(batches[0][1], TABLE[[1]]["label"])
        assert isinstance(batches[1], IndexError)
        assert str(len(TABLE)) in str(batches[1])
        assert np.array_equal(batches[2][1], TABLE[[3]]["label"])


def test_workers_that_begin_in_the_middle_of_an_epoch(context, path):
    with specmm.PageCache("4MiB") as cache:
        examples = Examples(cache, path)
        for epoch in range(2):
            here = [examples.__getitems__(which) for which in BATCHES[:5]]
            there, _ = load(context, examples, BATCHES[:5], workers=1 + epoch)
            for (features, labels), (others, other_labels) in zip(here, there, strict=True):
                assert np.array_equal(features, others)
                assert np.array_equal(labels, other_labels)
