"""pyarrow and pandas: parquet, Arrow files and CSV through a cache."""

import contextlib
import functools
import io
import random
import time

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest

import specmm
import specmm.fsspec
from specmm.arrow import ArrowFile

CAPACITY = "32MiB"

ROWS = 60_000
PAGE = specmm.PAGE_SIZE


@pytest.fixture(scope="module")
def table() -> pa.Table:
    draw = np.random.default_rng(1)
    return pa.table(
        {
            "number": np.arange(ROWS),
            "price": draw.random(ROWS),
            "name": [f"name {n % 97}" for n in range(ROWS)],
            "hole": pa.array([None if n % 3 else n for n in range(ROWS)]),
        }
    )


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    pa.parquet.write_table(table, folder / "parquet", row_group_size=5_000)
    pa.feather.write_feather(table, folder / "feather", compression="uncompressed", chunksize=5_000)
    pa.feather.write_feather(table, folder / "lz4", compression="lz4")
    table.to_pandas().to_csv(folder / "csv", index=False)
    return folder


pinning = functools.partial(ArrowFile, max_pins=64)
raw = pytest.mark.parametrize(
    "stream", [specmm.File.as_raw, ArrowFile, pinning], ids=["as_raw", "ArrowFile", "pinning"]
)


def until_unpinned(cache):
    """Arrow's threads let go of buffers when they come round to it."""
    end = time.monotonic() + 60
    while cache.stats().pinned_frames and time.monotonic() < end:
        time.sleep(0.01)
    assert cache.stats().pinned_frames == 0


@contextlib.contextmanager
def opened(cache, path, **options):
    """A file that is closed when nothing of it is pinned any more."""
    with cache.open(path, **options) as file:
        yield file
        until_unpinned(cache)


# --- pyarrow


@raw
def test_parquet(cache, table, folder, stream):
    with opened(cache, folder / "parquet") as file:
        assert pa.parquet.read_table(stream(file)).equals(table)
        part = pa.parquet.read_table(stream(file), columns=["price"], filters=[("number", ">=", ROWS - 10)])
        assert part.column("price").equals(table.column("price").slice(ROWS - 10))


@raw
def test_a_cache_smaller_than_the_file(table, folder, stream):
    with specmm.PageCache("256KiB", io="inline") as cache, opened(cache, folder / "parquet") as file:
        assert (folder / "parquet").stat().st_size > 2 * 262144
        assert pa.parquet.read_table(stream(file)).equals(table)
        assert cache.stats().evictions > 0


@raw
def test_parquet_by_row_groups(cache, table, folder, stream):
    with opened(cache, folder / "parquet") as file, pa.parquet.ParquetFile(stream(file)) as parquet:
        order = list(range(parquet.num_row_groups))
        random.Random(2).shuffle(order)
        for group in order:
            assert parquet.read_row_group(group).equals(table.slice(group * 5_000, 5_000))
        assert pa.Table.from_batches(parquet.iter_batches(777)).equals(table)


@raw
def test_a_column_reads_less_than_the_table(folder, stream):
    read = {}
    for columns in (["number"], None):
        with specmm.PageCache("32MiB") as cache, opened(cache, folder / "parquet", ra_pages=0) as file:
            pa.parquet.read_table(stream(file), columns=columns)
            read[columns is None] = cache.stats().read_bytes
    assert read[False] < read[True] / 2


@raw
@pytest.mark.parametrize("kind", ["feather", "lz4"])
def test_arrow_files(cache, table, folder, stream, kind):
    with opened(cache, folder / kind) as file:
        assert pa.feather.read_table(stream(file)).equals(table)
        with pa.ipc.open_file(stream(file)) as reader:
            batches = [reader.get_batch(n) for n in reversed(range(reader.num_record_batches))]
        assert pa.Table.from_batches(reversed(batches)).equals(table)
        # What is pinned cannot be closed.
        del batches, reader


@raw
def test_an_input_stream(cache, folder, stream):
    content = (folder / "feather").read_bytes()
    with opened(cache, folder / "feather") as file, pa.input_stream(stream(file)) as source:
        assert source.read(100) == content[:100]
        assert source.read() == content[100:]
    with opened(cache, folder / "feather") as file, pa.PythonFile(stream(file), mode="r") as source:
        assert source.size() == len(content)
        assert source.read_at(50, 30) == content[30:80]
        source.seek(0)
        assert source.read_buffer(5000).to_pybytes() == content[:5000]


@raw
def test_threads(cache, table, folder, stream):
    with opened(cache, folder / "parquet") as file:
        fragment = pa.dataset.ParquetFileFormat().make_fragment(stream(file))
        assert fragment.to_table(use_threads=True).sort_by("number").equals(table)


def test_a_file_that_got_shorter_is_an_error_not_a_signal(cache, folder, tmp_path):
    path = tmp_path / "parquet"
    path.write_bytes((folder / "parquet").read_bytes())
    with cache.open(path, "r+b") as file, pa.parquet.ParquetFile(ArrowFile(file)) as parquet:
        file.truncate(1000)
        with pytest.raises(OSError, match=r"end of (stream|file)|EOF|[Uu]nexpected|[Ee]xpected"):
            parquet.read_row_group(3)


@pytest.mark.parametrize("max_pins", [0, 1, 3, 64])
def test_buffers(cache, folder, max_pins):
    content = (folder / "feather").read_bytes()
    with cache.open(folder / "feather") as file:
        source = ArrowFile(file, max_pins=max_pins)
        draw = random.Random(5)
        held = []
        copied = 0
        for n in (0, 1, 10, PAGE, 10 * PAGE, *(draw.randrange(2 * PAGE) for _ in range(50))):
            place = draw.randrange(len(content))
            source.seek(place)
            copies = source.copies
            buffer = source.read_buffer(n)
            assert buffer.to_pybytes() == content[place : place + n]
            assert source.tell() == place + len(buffer)
            copied += len(buffer) * (source.copies - copies)
            held.append(buffer)
            assert source.pins <= max_pins
            assert cache.stats().pinned_frames <= max_pins
        assert source.views + source.copies == 55
        assert source.copied_bytes == copied
        assert (source.views > 0) == (max_pins > 0)
        assert source.copies > 0
        source.seek(-10, io.SEEK_END)
        assert source.read_buffer(100).to_pybytes() == content[-10:]
        assert source.read_buffer(100).to_pybytes() == b""
        source.seek(len(content) + 10)
        assert source.read_buffer(100).to_pybytes() == b""
        source.seek(0)
        assert source.read_buffer().to_pybytes() == content
        source.close()
        with pytest.raises(ValueError, match="closed"):
            source.read_buffer(1)
        del buffer, held
        until_unpinned(cache)


def test_what_lies_in_a_page_is_the_page_itself(cache, folder):
    with cache.open(folder / "feather") as file:
        source = pinning(file)
        before = pa.total_allocated_bytes()
        source.seek(5 * PAGE)
        whole = source.read_buffer(PAGE)
        source.seek(5 * PAGE + 128)
        part = source.read_buffer(1000)
        assert part.address == whole.address + 128
        assert whole.address % 64 == 0, "Arrow asks for this"
        assert (source.views, source.copies) == (2, 0)
        assert pa.total_allocated_bytes() == before
        assert not whole.is_mutable
        source.seek(5 * PAGE + 128)
        assert source.read_buffer(PAGE).address % 64 == 0
        assert (source.views, source.copies, source.copied_bytes) == (2, 1, PAGE)
        del whole, part


def test_a_pin_ends_with_its_buffer(cache, folder):
    with cache.open(folder / "feather") as file:
        source = ArrowFile(file, max_pins=2)
        buffers = [source.read_buffer(10) for _ in range(3)]
        assert (source.pins, source.views, source.copies) == (2, 2, 1)
        del buffers[0]
        buffers.append(source.read_buffer(10))
        assert (source.pins, source.views, source.copies) == (2, 3, 1)
        del buffers
        assert source.pins == cache.stats().pinned_frames == 0


def test_a_buffer_stays_what_it_is(cache, folder, tmp_path):
    path = tmp_path / "copy"
    content = (folder / "feather").read_bytes()
    path.write_bytes(content)
    with cache.open(path, "r+b") as file:
        source = pinning(file)
        source.seek(PAGE)
        buffer = source.read_buffer(PAGE)
        assert source.views == 1
        file.truncate(PAGE + 10)
        assert buffer.to_pybytes() == content[PAGE : 2 * PAGE]
        del buffer


def test_a_file_that_gets_shorter_meanwhile(cache, folder):
    content = (folder / "feather").read_bytes()

    class Longer:
        """A file as it was a moment ago."""

        size = len(content) + 5000

        def preadinto(self, buffer, offset):
            return file.preadinto(buffer, offset)

    with cache.open(folder / "feather") as file:
        source = ArrowFile(Longer())
        source.seek(len(content) - 100)
        assert source.read_buffer(5000).to_pybytes() == content[-100:]
        assert source.tell() == len(content)
        assert source.copied_bytes == 100


def test_small_batches_are_not_copied(cache, table, tmp_path):
    small = table.select(["number", "price"]).slice(0, 2000)
    pa.feather.write_feather(small, tmp_path / "small", compression="uncompressed", chunksize=50)
    with cache.open(tmp_path / "small") as file:
        source = pinning(file)
        with pa.ipc.open_file(source) as reader:
            for n in range(reader.num_record_batches):
                assert reader.get_batch(n).equals(small.slice(50 * n, 50).to_batches()[0])
        assert source.views > source.copies
        assert source.views > 20
        del reader


def test_what_is_copied_outlives_the_file(cache, table, folder):
    with cache.open(folder / "feather") as file, pa.ipc.open_file(ArrowFile(file)) as reader:
        batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
    assert pa.Table.from_batches(batches).equals(table)


def test_what_is_pinned_keeps_its_file_open(cache, folder):
    file = cache.open(folder / "feather")
    buffer = pinning(file).read_buffer(100)
    with pytest.raises(BufferError, match="1 live pins"):
        file.close()
    del buffer
    file.close()


def test_max_pins_is_a_number(cache, folder):
    with (
        cache.open(folder / "feather") as file,
        pytest.raises(ValueError, match="max_pins must not be negative: -1"),
    ):
        ArrowFile(file, max_pins=-1)


def test_copies_are_arrows_own_memory(cache, folder):
    with cache.open(folder / "feather") as file:
        before = pa.total_allocated_bytes()
        buffer = ArrowFile(file).read_buffer(10 * PAGE)
        assert pa.total_allocated_bytes() - before >= 10 * PAGE
        assert buffer.address % 64 == 0, "Arrow asks for this"
        del buffer
        assert pa.total_allocated_bytes() == before


# --- pandas


@raw
def test_pandas(cache, table, folder, stream):
    frame = table.to_pandas()
    with opened(cache, folder / "parquet") as file:
        pd.testing.assert_frame_equal(pd.read_parquet(stream(file)), frame)
    with opened(cache, folder / "feather") as file:
        pd.testing.assert_frame_equal(pd.read_feather(stream(file)), frame)
    with opened(cache, folder / "csv") as file:
        for source in (stream(file), io.BufferedReader(stream(file))):
            pd.testing.assert_frame_equal(pd.read_csv(source), frame)
        chunks = pd.read_csv(stream(file), chunksize=7_000)
        pd.testing.assert_frame_equal(pd.concat(chunks), frame)


def test_by_url(table, folder):
    memory = fsspec.filesystem("memory")
    for kind in ("parquet", "csv"):
        memory.pipe_file(f"/tables/{kind}", (folder / kind).read_bytes())
    frame = table.to_pandas()
    pd.testing.assert_frame_equal(pd.read_parquet("specmm::memory://tables/parquet"), frame)
    pd.testing.assert_frame_equal(pd.read_csv("specmm::memory://tables/csv"), frame)


def test_a_dataset_over_a_cached_file_system(cache, table):
    fs = specmm.fsspec.CachedFileSystem(target_protocol="memory", cache=cache)
    pa.dataset.write_dataset(
        table, "/set", filesystem=fs, format="parquet", max_rows_per_file=20_000, max_rows_per_group=20_000
    )
    found = pa.dataset.dataset("/set", filesystem=fs, format="parquet")
    assert len(found.files) == 3
    assert found.to_table().sort_by("number").equals(table)
    assert pa.parquet.read_table("/set", filesystem=fs).sort_by("number").equals(table)
    fetched = cache.stats().read_bytes
    assert 0 < fetched <= fs.du("/set") + 3 * PAGE, "what was read twice was fetched once"
