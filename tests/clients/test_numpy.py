"""numpy: arrays filled from a cache, and an array of records larger than the cache need be."""

import sys
import threading

import numpy as np
import pytest

import specmm
from specmm.numpy import Records

CAPACITY = "4MiB"

TYPE = np.dtype([("key", "i8"), ("price", "f4"), ("tag", "S5")])  # 17 bytes: rows straddle pages
draw = np.random.default_rng(8)
TABLE = np.empty(20_000, TYPE)
TABLE["key"] = np.arange(len(TABLE))
TABLE["price"] = draw.random(len(TABLE))
TABLE["tag"] = [f"t{n % 1000}".encode() for n in range(len(TABLE))]


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
        np.array(5),
        slice(None),
        slice(100, 200),
        slice(200, 100),
        slice(19_990, 30_000),
        slice(None, None, -7),
        [5, 5, -3],
        draw.integers(0, len(TABLE), 3000),
        draw.integers(0, 100, 30).astype("u1"),
        draw.integers(-len(TABLE), 0, (4, 5, 6)),
        np.array([], "i4"),
    ],
    ids=lambda which: f"{type(which).__name__} {str(which)[:20]}".replace("\n", ""),
)
def test_records_are_taken_as_from_an_array(cache, path, which):
    with cache.open(path) as file:
        records = Records(file, TYPE)
        assert len(records) == len(TABLE)
        rows = records[which]
    expected = TABLE[which]
    assert rows.dtype == TYPE
    assert np.shape(rows) == np.shape(expected)
    assert np.array_equal(rows, expected)


def test_records_that_are_arrays(cache, path):
    with cache.open(path) as file:
        vectors = Records(file, ("u1", (17,)))
        expected = np.fromfile(path, "u1").reshape(-1, 17)
        assert vectors[5].shape == (17,)
        assert np.array_equal(vectors[[3, -1]], expected[[3, -1]])
        assert np.array_equal(vectors[10:20], expected[10:20])


def test_records_after_a_header(cache, tmp_path):
    np.save(tmp_path / "a.npy", TABLE)
    header = (tmp_path / "a.npy").stat().st_size - TABLE.nbytes
    with cache.open(tmp_path / "a.npy") as file:
        records = Records(file, TYPE, offset=header)
        assert len(records) == len(TABLE)
        assert np.array_equal(records[-50:], TABLE[-50:])
        assert np.array_equal(records[[1, 2]], TABLE[1:3])
        assert len(Records(file, TYPE, offset=1 << 40)) == 0
        assert len(Records(file, TYPE, offset=header + 1)) == len(TABLE) - 1


def test_records_are_a_sequence(cache, tmp_path):
    TABLE[:100].tofile(tmp_path / "few")
    with cache.open(tmp_path / "few") as file:
        assert [row["key"] for row in Records(file, TYPE)] == list(range(100))


@pytest.mark.parametrize(
    "which", [len(TABLE), -len(TABLE) - 1, [3, len(TABLE)], np.array([[-len(TABLE) - 1]])]
)
def test_a_record_that_is_not_there_is_named(cache, path, which):
    named = str(np.ravel(which)[-1])
    with cache.open(path) as file, pytest.raises(IndexError, match=named):
        Records(file, TYPE)[which]


@pytest.mark.parametrize("which", [1.0, "key", [True, False], np.zeros(3), None])
def test_what_is_no_number_is_refused(cache, path, which):
    with cache.open(path) as file, pytest.raises(IndexError, match="integers"):
        Records(file, TYPE)[which]


@pytest.mark.parametrize("dtype", ["O", "S0", [("a", "O")]])
def test_types_without_a_size_are_refused(cache, path, dtype):
    with cache.open(path) as file, pytest.raises(TypeError, match="fixed size"):
        Records(file, dtype)


def test_a_file_that_gets_shorter_is_an_error_not_a_signal(cache, path, monkeypatch):
    with cache.open(path, "r+b") as file:
        records = Records(file, TYPE)
        assert records[[19_000]]["key"] == 19_000
        file.truncate(10_000 * TYPE.itemsize)
        assert len(records) == 10_000
        with pytest.raises(IndexError, match="19000"):
            records[[19_000]]
        # Between the look at the size and the read.
        monkeypatch.setattr(Records, "__len__", lambda _: len(TABLE))
        with pytest.raises(specmm.BusError, match=str(19_000 * TYPE.itemsize)):
            records[[19_000]]


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


def test_a_cache_smaller_than_the_file(path):
    with specmm.PageCache("64KiB") as cache, cache.open(path) as file:
        assert path.stat().st_size > 4 * 65536
        records = Records(file, TYPE)
        which = np.random.default_rng(1).integers(0, len(TABLE), 5000)
        assert np.array_equal(records[which], TABLE[which])
        assert np.array_equal(records[:], TABLE)
        assert np.array_equal(records[::-3], TABLE[::-3])
        assert cache.stats().evictions > 0


def test_nothing_of_an_array_is_kept(cache, path):
    rows = np.empty(10, TYPE)
    with cache.open(path) as file:
        before = sys.getrefcount(rows)
        file.preadinto(rows, 0)
        file.gather(np.arange(10) * TYPE.itemsize, TYPE.itemsize, out=rows)
        assert sys.getrefcount(rows) == before
