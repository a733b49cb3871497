"""zarr: stores that read through a cache, held against zarr's own suite for stores."""

import asyncio
import errno
import multiprocessing
import os
import pathlib
import pickle
import threading
import zipfile

import fsspec
import numpy as np
import pytest
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.storage import LocalStore, ZipStore
from zarr.testing.store import StoreTests

import specmm
import specmm.fsspec
from specmm.zarr import CachedStore, CachedZipStore

PAGE = specmm.PAGE_SIZE
PROTOTYPE = default_buffer_prototype()
DATA = np.random.default_rng(3).random((200, 300))


class TestSuite(StoreTests[CachedStore, cpu.Buffer]):
    """zarr's suite, on the process-wide cache. It changes files in place, behind the store's back."""

    store_cls = CachedStore
    buffer_cls = cpu.Buffer

    async def get(self, store, key):
        return self.buffer_cls.from_bytes((store.root / key).read_bytes())

    async def set(self, store, key, value):
        (store.root / key).parent.mkdir(parents=True, exist_ok=True)
        (store.root / key).write_bytes(value.to_bytes())

    @pytest.fixture
    def store_kwargs(self, tmp_path):
        return {"root": str(tmp_path)}

    def test_store_repr(self, store):
        assert str(store) == f"file://{store.root.as_posix()}"

    def test_store_supports_writes(self, store):
        assert store.supports_writes

    def test_store_supports_listing(self, store):
        assert store.supports_listing


@pytest.fixture
def folder(tmp_path):
    array = zarr.create_array(
        LocalStore(tmp_path / "array"), shape=DATA.shape, dtype=DATA.dtype, chunks=(50, 50)
    )
    array[:] = DATA
    return tmp_path / "array"


@pytest.fixture
def archive(tmp_path):
    with ZipStore(tmp_path / "array.zip", mode="w") as store:
        array = zarr.create_array(store, shape=DATA.shape, dtype=DATA.dtype, chunks=(50, 50))
        array[:] = DATA
    return tmp_path / "array.zip"


# --- a folder


def test_an_array_in_a_folder(cache, folder):
    array = zarr.open_array(CachedStore(folder, cache=cache), mode="r")
    assert np.array_equal(array[:], DATA)
    read = cache.stats().read_bytes
    assert read > 0
    assert np.array_equal(array[:], DATA)
    assert np.array_equal(array[60:70, 10:280], DATA[60:70, 10:280])
    assert cache.stats().read_bytes == read, "all of it was in the cache"


def test_a_cache_smaller_than_the_array_holds_its_bound(folder):
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with specmm.PageCache(32 * PAGE) as cache:
        assert size > 64 * PAGE
        array = zarr.open_array(CachedStore(folder, cache=cache), mode="r")
        for _ in range(2):
            assert np.array_equal(array[:], DATA)
            assert 0 < cache.stats().frames_in_use <= 32
        cache.settle()
        cache.check()


def test_what_is_written_is_read(cache, folder):
    array = zarr.open_array(CachedStore(folder, cache=cache), mode="r+")
    assert np.array_equal(array[:], DATA)
    for n in range(5):
        array[10:60, 10:60] = n
        expected = DATA.copy()
        expected[10:60, 10:60] = n
        assert np.array_equal(array[:], expected)
        assert np.array_equal(zarr.open_array(LocalStore(folder), mode="r")[:], expected)


def test_what_another_program_writes_is_read(cache, tmp_path):
    store = CachedStore(tmp_path, read_only=True, cache=cache)
    path = tmp_path / "value"
    path.write_bytes(b"a" * 10_000)
    assert store.get_sync("value").to_bytes() == b"a" * 10_000
    replacement = tmp_path / "new"
    replacement.write_bytes(b"b" * 10_000)
    replacement.rename(path)
    assert store.get_sync("value").to_bytes() == b"b" * 10_000
    path.write_bytes(b"c" * 20_000)
    assert store.get_sync("value").to_bytes() == b"c" * 20_000
    path.write_bytes(b"d" * 20_000)
    os.utime(path, ns=(1, 1))
    assert store.get_sync("value").to_bytes() == b"d" * 20_000
    path.unlink()
    assert store.get_sync("value") is None
    path.mkdir()
    assert store.get_sync("value") is None
    assert store.get_sync("value/none") is None


def test_a_file_that_changes_between_the_look_and_the_read_is_looked_at_again(cache, tmp_path, monkeypatch):
    path = tmp_path / "value"
    path.write_bytes(b"a" * 10_000)
    store = CachedStore(tmp_path, cache=cache)
    looked = []

    def look(path, found=CachedStore._file):
        file = found(store, path)
        looked.append(path)
        if len(looked) < 3:
            path.write_bytes(bytes([len(looked)]) * (10_000 + len(looked)))
        return file

    monkeypatch.setattr(store, "_file", look)
    assert store.get_sync("value").to_bytes() == b"\x02" * 10_002
    assert len(looked) == 3


def test_a_file_that_never_stays_is_an_error(cache, tmp_path, monkeypatch):
    path = tmp_path / "value"
    path.write_bytes(b"a")
    store = CachedStore(tmp_path, cache=cache)
    sizes = iter(range(2, 1000))

    def look(path, found=CachedStore._file):
        file = found(store, path)
        path.write_bytes(b"a" * next(sizes))
        return file

    monkeypatch.setattr(store, "_file", look)
    with pytest.raises(OSError, match="changed 20 times") as failed:
        store.get_sync("value")
    assert failed.value.errno == errno.ESTALE


def test_no_file_stays_open(cache, folder):
    before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    array = zarr.open_array(CachedStore(folder, cache=cache), mode="r")
    assert np.array_equal(array[:], DATA)
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) <= before + 10, "24 chunks"


def test_parts_of_a_value(cache, tmp_path):
    content = np.random.default_rng(4).bytes(100_000)
    (tmp_path / "value").write_bytes(content)
    store = CachedStore(tmp_path, cache=cache)
    asked = {
        None: content,
        RangeByteRequest(5, 70_000): content[5:70_000],
        RangeByteRequest(99_990, 200_000): content[99_990:],
        RangeByteRequest(200_000, 300_000): b"",
        RangeByteRequest(np.uint8(200), np.uint8(100)): b"",
        OffsetByteRequest(99_000): content[99_000:],
        OffsetByteRequest(200_000): b"",
        SuffixByteRequest(10): content[-10:],
        SuffixByteRequest(200_000): content,
    }
    for byte_range, expected in asked.items():
        assert store.get_sync("value", byte_range=byte_range).to_bytes() == expected
    answers = asyncio.run(store.get_partial_values(PROTOTYPE, [("value", part) for part in asked]))
    assert [answer.to_bytes() for answer in answers] == list(asked.values())
    assert asyncio.run(store.get_partial_values(PROTOTYPE, [("none", None)])) == [None]


def test_a_store_is_pickled_with_its_cache(cache, folder):
    store = CachedStore(folder, read_only=True, cache=cache)
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert np.array_equal(zarr.open_array(copy, mode="r")[:], DATA)
    assert cache.stats().reads > 0, "in this process it is the same"


def test_a_store_in_other_processes(cache, folder):
    chunks = CachedStore(folder, read_only=True, cache=cache)
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        values = workers.map(chunks.get_sync, ["c/0/0", "c/3/5", "c/9/9"])
    assert [value and value.to_bytes() for value in values] == [
        (folder / "c/0/0").read_bytes(),
        (folder / "c/3/5").read_bytes(),
        None,
    ]
    assert cache.stats().reads == 0


def test_a_read_only_twin_has_the_same_cache(cache, folder):
    twin = CachedStore(folder, cache=cache).with_read_only(True)
    assert twin.read_only
    assert twin.get_sync("zarr.json") is not None
    assert cache.stats().reads == 1


def test_threads(cache, folder):
    array = zarr.open_array(CachedStore(folder, cache=cache), mode="r")
    wrong = []

    def read(seed):
        draw = np.random.default_rng(seed)
        for _ in range(10):
            x, y = draw.integers(0, 150), draw.integers(0, 250)
            if not np.array_equal(array[x : x + 50, y : y + 50], DATA[x : x + 50, y : y + 50]):
                wrong.append((x, y))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- an archive


def test_an_array_in_an_archive(cache, archive):
    with CachedZipStore(archive, cache=cache) as store:
        array = zarr.open_array(store, mode="r")
        assert np.array_equal(array[:], DATA)
        read = cache.stats().read_bytes
        assert 0 < read <= archive.stat().st_size
        assert np.array_equal(array[:], DATA)
        assert cache.stats().read_bytes == read


def test_an_archive_answers_as_zarrs_own(cache, archive, tmp_path):
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive) as one, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in one.namelist():
            other.writestr(name, one.read(name))
    parts = [None, RangeByteRequest(3, 50), OffsetByteRequest(7), SuffixByteRequest(9)]
    for path in (archive, packed):
        own = asyncio.run(ZipStore.open(path, mode="r"))
        store = asyncio.run(CachedZipStore.open(path, cache=cache))
        with own, store:

            async def listed(store):
                return sorted([key async for key in store.list()])

            keys = asyncio.run(listed(own))
            assert keys == asyncio.run(listed(store))
            assert len(keys) > 20
            asked = [(key, part) for key in [*keys, "none"] for part in parts]
            answers = asyncio.run(store.get_partial_values(PROTOTYPE, asked))
            expected = asyncio.run(own.get_partial_values(PROTOTYPE, asked))
            assert [a and a.to_bytes() for a in answers] == [e and e.to_bytes() for e in expected]
            with pytest.raises(ValueError, match="read-only"):
                asyncio.run(store.set("foo", cpu.Buffer.from_bytes(b"bar")))


def test_a_damaged_member_is_named(cache, archive):
    with zipfile.ZipFile(archive) as whole:
        member = whole.getinfo("c/1/1")
    content = bytearray(archive.read_bytes())
    content[member.header_offset + 30 + len("c/1/1") + 100] ^= 1
    archive.write_bytes(content)
    with (
        CachedZipStore(archive, cache=cache) as store,
        pytest.raises(zipfile.BadZipFile, match="c/1/1"),
    ):
        asyncio.run(store.get("c/1/1", PROTOTYPE))
    content[member.header_offset] ^= 1
    archive.write_bytes(content)
    with (
        CachedZipStore(archive, cache=cache) as store,
        pytest.raises(zipfile.BadZipFile, match="no header of 'c/1/1'"),
    ):
        asyncio.run(store.get("c/1/1", PROTOTYPE))


def test_an_archive_is_pickled(cache, archive):
    with CachedZipStore(archive, cache=cache) as store:
        zarr.open_array(store, mode="r")
        with pickle.loads(pickle.dumps(store)) as copy:
            assert np.array_equal(zarr.open_array(copy, mode="r")[:], DATA)


def test_an_archive_that_nobody_read_is_closed(cache, archive):
    CachedZipStore(archive, cache=cache).close()
    assert cache.stats().reads == 0


# --- what is behind fsspec


def test_an_array_behind_fsspec(folder):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/array", recursive=True)
    with pytest.raises(ValueError, match=r"asynchronous.*storage_options"):
        zarr.open_array("specmm::memory://array", mode="r")
    array = zarr.open_array("specmm::memory://array", mode="r", storage_options={"asynchronous": False})
    assert np.array_equal(array[:], DATA)
    cache = specmm._default.default_cache()
    read = cache.stats().read_bytes
    assert np.array_equal(array[:], DATA)
    assert cache.stats().read_bytes == read
