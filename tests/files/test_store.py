"""User-supplied stores, and files as raw streams of Python's io."""

import gc
import io
import os
import weakref
import zipfile

import pytest

from samples import LONG

CAPACITY = "4MiB"
CONTENT = LONG


class Bytes:
    """A store over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.calls: list[tuple[int, int]] = []

    def read_at(self, offset: int, n: int) -> bytes:
        self.calls.append((offset, n))
        return self.data[offset : offset + n]


class Resizable(Bytes):
    def truncate(self, size: int) -> None:
        self.data = self.data[:size].ljust(size, b"\0")


# --- stores


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_store_returns_any_bytes(cache, kind):
    class Store:
        def read_at(self, offset, n):
            return kind(CONTENT[offset : offset + n])

    with cache.open_store(Store(), len(CONTENT), name="a store") as file:
        assert file.name == "a store"
        assert file.pread(len(CONTENT), 0) == CONTENT


def test_a_store_is_never_asked_past_its_end(cache):
    store = Bytes(CONTENT)
    with cache.open_store(store, len(CONTENT)) as file:
        assert file.pread(1 << 30, 1) == CONTENT[1:]
    assert max(offset + n for offset, n in store.calls) == len(CONTENT)


def test_a_store_may_have_truncate(cache):
    with cache.open_store(Resizable(CONTENT), len(CONTENT)) as file:
        file.truncate(100)
        file.truncate(200)
        assert file.pread(1000, 0) == CONTENT[:100] + bytes(100)


def test_closing_lets_go_of_a_store(cache):
    store = Bytes(CONTENT)
    alive = weakref.ref(store)
    file = cache.open_store(store, len(CONTENT))
    file.pread(10, 0)
    file.close()
    cache.settle()
    del store, file
    gc.collect()
    assert alive() is None


# --- a raw stream


def test_raw_stream_serves_python_io(cache, path):
    with cache.open(path) as file:
        raw = file.as_raw()
        assert isinstance(raw, io.RawIOBase)
        assert raw.readable()
        assert raw.seekable()
        assert not raw.writable()
        assert raw.name == str(path)
        assert raw.read(10) == CONTENT[:10]
        assert raw.tell() == 10
        assert raw.seek(-3, os.SEEK_END) == len(CONTENT) - 3
        assert raw.readall() == CONTENT[-3:]
        assert raw.read(5) == b""
        assert raw.seek(1 << 30) == 1 << 30
        assert raw.readall() == b""
        assert raw.seek(5) == 5
        assert raw.seek(2, os.SEEK_CUR) == 7
        assert raw.readall() == CONTENT[7:]
        assert io.BufferedReader(raw.__class__(file)).read() == CONTENT


def test_raw_stream_fills_its_buffer(cache, path):
    buffer = bytearray(len(CONTENT) + 10)
    with cache.open(path) as file:
        assert file.as_raw().readinto(buffer) == len(CONTENT)
    assert buffer[:-10] == CONTENT


def test_raw_stream_reads_an_archive(cache, tmp_path):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", CONTENT)
    with cache.open(path) as file, zipfile.ZipFile(file.as_raw()) as archive:
        assert archive.read("member") == CONTENT


def test_raw_stream_keeps_its_file_alive(cache, path):
    raw = cache.open(path).as_raw(close=True)
    gc.collect()
    assert raw.read(4) == CONTENT[:4]
    raw.close()


def test_closing_a_raw_stream_leaves_the_file_open(cache, path):
    with cache.open(path) as file:
        file.as_raw().close()
        assert file.pread(4, 0) == CONTENT[:4]
