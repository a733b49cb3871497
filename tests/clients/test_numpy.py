"""numpy: arrays filled from a cache, and an array of records larger than the cache need be."""

import sys
import threading

import numpy as np
import pytest

import specmm
from records import Records

TYPE = np.dtype([("key", "i8"), ("price", "f4"), ("tag", "S5")])  # 17 bytes: rows straddle pages
draw = np.random.default_rng(8)
TABLE = np.empty(20_000, TYPE)
TABLE["key"] = np.arange(len(TABLE))
TABLE["price"] = draw.random(len(TABLE))
TABLE["tag"] = [f"t{n % 1000}".encode() for n in range(len(TABLE))]


@pytest.fixture
def cache():
    with specmm.PageCache("4MiB") as cache:
        yield cache
        cache.settle()
        cache.check()


@pytest.fixture
def path(tmp_path):
    TABLE.tofile(tmp_path / "records")
    return tmp_path / "records"


def test_bytes_become_an_array(cache, path):
    with cache.open(path) as file:
        rows = np.frombuffer(file.pread(100 * TYPE.itemsize, 50 * TYPE.itemsize), TYPE)
        assert np.array_equal(rows, TABLE[50:150])


def test_an_array_is_filled(cache, path):
    rows = np.empty((10, 30), TYPE)
    with cache.open(path) as file:
        assert file.preadinto(rows, 7 * TYPE.itemsize) == rows.nbytes
    assert np.array_equal(rows.ravel(), TABLE[7:307])


def test_numpys_own_file_format(cache, tmp_path):
    np.save(tmp_path / "a.npy", TABLE)
    np.savez_compressed(tmp_path / "a.npz", table=TABLE, numbers=np.arange(5))
    with cache.open(tmp_path / "a.npy") as file:
        assert np.array_equal(np.load(file.as_raw()), TABLE)
    with cache.open(tmp_path / "a.npz") as file, np.load(file.as_raw()) as arrays:
        assert np.array_equal(arrays["table"], TABLE)
        assert np.array_equal(arrays["numbers"], np.arange(5))


def test_fromfile_would_bypass_the_cache_and_is_refused(cache, path):
    with cache.open(path) as file, pytest.raises(OSError, match="descriptor"):
        np.fromfile(file.as_raw(), TYPE)


@pytest.mark.parametrize(
    "which",
    [
        0,
        -1,
        np.int32(77),
        slice(None),
        slice(100, 200),
        slice(200, 100),
        slice(19_990, 30_000),
        slice(None, None, -7),
        [5, 5, -3],
        draw.integers(0, len(TABLE), 3000),
        draw.integers(-len(TABLE), 0, (4, 5, 6)),
        np.array([], "i4"),
    ],
    ids=lambda which: str(which)[:20].replace("\n", ""),
)
def test_records_are_taken_as_from_an_array(cache, path, which):
    with cache.open(path) as file:
        records = Records(file, TYPE)
        assert len(records) == len(TABLE)
        rows = records[which]
    assert rows.dtype == TYPE
    assert np.shape(rows) == np.shape(TABLE[which])
    assert np.array_equal(rows, TABLE[which])


def test_a_record_past_the_end_is_named(cache, path):
    with cache.open(path) as file, pytest.raises(specmm.BusError, match=str(len(TABLE) * TYPE.itemsize)):
        Records(file, TYPE)[[3, len(TABLE)]]


def test_threads_fill_arrays_of_their_own(cache, path):
    wrong = []

    def read(seed):
        which = np.random.default_rng(seed).integers(0, len(TABLE), 2000)
        if not np.array_equal(records[which], TABLE[which]):
            wrong.append(seed)

    with cache.open(path) as file:
        records = Records(file, TYPE)
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_nothing_of_an_array_is_kept(cache, path):
    rows = np.empty(10, TYPE)
    with cache.open(path) as file:
        before = sys.getrefcount(rows)
        file.preadinto(rows, 0)
        file.gather(np.arange(10) * TYPE.itemsize, TYPE.itemsize, out=rows)
        assert sys.getrefcount(rows) == before
