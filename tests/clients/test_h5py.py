"""h5py: HDF5 files through its driver for file objects."""

import io
import threading

import h5py
import numpy as np
import pytest

import specmm
from specmm import PAGE_SIZE as PAGE

DATA = np.random.default_rng(6).integers(0, 1000, (400, 300))
NAMES = ["one", "two", "three"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("hdf5") / "data.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = DATA
        file.create_dataset("chunked", data=DATA, chunks=(20, 20))
        file.create_dataset("packed", data=DATA, chunks=(20, 20), compression="gzip")
        file["group/names"] = NAMES
        file["group"].attrs["unit"] = "kg"
    return path


@pytest.fixture(params=["raw", "buffered"])
def stream(request, cache, path):
    with cache.open(path) as file:
        raw = file.as_raw()
        yield raw if request.param == "raw" else io.BufferedReader(raw)


def test_data_sets(stream):
    with h5py.File(stream, "r") as file:
        assert file.driver == "fileobj"
        for name in ("plain", "chunked", "packed"):
            assert np.array_equal(file[name], DATA)
            assert np.array_equal(file[name][37:210:3, 5:280], DATA[37:210:3, 5:280])
            assert np.array_equal(file[name][[3, 77, 399]], DATA[[3, 77, 399]])
        assert [name.decode() for name in file["group/names"]] == NAMES
        assert file["group"].attrs["unit"] == "kg"
        assert sorted(file) == ["chunked", "group", "packed", "plain"]


def test_what_was_read_is_not_read_again(cache, path):
    with cache.open(path) as file, h5py.File(file.as_raw(), "r") as data:
        assert np.array_equal(data["packed"], DATA)
        read = cache.stats().read_bytes
        assert 0 < read <= path.stat().st_size
        assert np.array_equal(data["packed"], DATA)
        with h5py.File(file.as_raw(), "r") as again:
            assert np.array_equal(again["packed"], DATA)
        assert cache.stats().read_bytes == read


def test_a_corner_does_not_read_the_file(path):
    with specmm.PageCache("16MiB", io="inline") as cache, cache.open(path) as file:
        file.advise("random")
        with h5py.File(file.as_raw(), "r") as data:
            assert np.array_equal(data["chunked"][:5, :5], DATA[:5, :5])
        assert cache.stats().read_bytes < path.stat().st_size / 10


def test_a_cache_smaller_than_the_file(path):
    with specmm.PageCache("64KiB") as cache, cache.open(path) as file:
        assert path.stat().st_size > 4 * 65536
        with h5py.File(file.as_raw(), "r") as data:
            for name in ("plain", "chunked", "packed"):
                assert np.array_equal(data[name], DATA)
        assert cache.stats().evictions > 0


def test_threads(cache, path):
    wrong = []

    def read(seed):
        draw = np.random.default_rng(seed)
        with h5py.File(file.as_raw(), "r") as data:
            for _ in range(20):
                x = int(draw.integers(0, 300))
                if not np.array_equal(data["packed"][x : x + 100], DATA[x : x + 100]):
                    wrong.append(x)

    with cache.open(path) as file:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_file_that_got_shorter_is_an_error_not_a_signal(cache, path, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    with cache.open(copy, "r+b") as file, h5py.File(file.as_raw(), "r") as data:
        assert np.array_equal(data["plain"][0], DATA[0])
        file.truncate(2 * PAGE)
        with pytest.raises(OSError):
            data["packed"][:]


def test_what_is_not_hdf5_is_refused(cache, tmp_path):
    (tmp_path / "text").write_text("no HDF5\n" * 1000)
    with cache.open(tmp_path / "text") as file, pytest.raises(OSError, match="signature"):
        h5py.File(file.as_raw(), "r")
