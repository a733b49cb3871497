"""fsspec: a cache type that shares one bounded cache, a file system in front of any other, and Files."""

import gc
import multiprocessing
import os
import pathlib
import pickle
import random
import subprocess
import sys
import threading
import weakref
import zipfile

import fsspec
import pytest
from fsspec.caching import caches, register_cache
from fsspec.implementations.dirfs import DirFileSystem

import bucket
import specmm
import specmm.fsspec
from bucket import CONTENT, Bucket
from specmm import _remote
from specmm.fsspec import CachedFileSystem, SpecmmCache

CAPACITY = "4MiB"

PAGE = specmm.PAGE_SIZE
# Python 3.12 warns of fork where there are threads; specmm's are none of the child's.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def objects():
    """What the bucket holds, new for each test."""
    for noted in (bucket.OBJECTS, bucket.FETCHED, bucket.FAILING):
        noted.clear()
    bucket.OBJECTS["a/data"] = CONTENT
    _remote._objects.clear()
    yield bucket.OBJECTS
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def fs():
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    return Bucket()


def fetch(start: int, stop: int) -> bytes:
    """A fetcher that belongs to no file."""
    return CONTENT[start:stop]


def opened(fs, cache, path="a/data", **options):
    return fs.open(path, cache_type="specmm", cache_options={"cache": cache, **options})


# --- what fsspec expects of a cache


@pytest.mark.parametrize("blocksize", [0, 1, 5, PAGE, 5 << 20])
def test_fetch_answers_as_a_slice_of_the_file_does(cache, blocksize):
    whole = SpecmmCache(blocksize, fetch, len(CONTENT), cache=cache)
    assert whole._fetch(None, None) == CONTENT
    draw = random.Random(blocksize)
    for _ in range(100):
        part = SpecmmCache(blocksize, fetch, len(CONTENT), cache=cache)
        for _ in range(5):
            start = draw.choice([None, 0, draw.randrange(len(CONTENT) + PAGE)])
            stop = draw.choice([None, len(CONTENT), draw.randrange(len(CONTENT) + PAGE)])
            assert part._fetch(start, stop) == CONTENT[slice(start, stop)], (start, stop)


def test_nothing_is_fetched_for_nothing(cache):
    asked = []
    nothing = SpecmmCache(5, lambda start, stop: asked.append((start, stop)), 100, cache=cache)
    for start, stop in [(0, 0), (7, 7), (8, 2), (100, 101), (100, None), (1000, 2000), (None, 0)]:
        assert nothing._fetch(start, stop) == b""
    assert SpecmmCache(5, nothing.fetcher, 0, cache=cache)._fetch(0, 0) == b""
    assert SpecmmCache(5, nothing.fetcher, 0, cache=cache)._fetch(0, 100) == b""
    assert asked == []


def test_a_read_past_the_end_gives_what_there_is(cache):
    short = SpecmmCache(7, fetch, len(CONTENT), cache=cache)
    assert short._fetch(len(CONTENT) - 3, len(CONTENT) + 50) == CONTENT[-3:]
    assert short._fetch(0, 10 * len(CONTENT)) == CONTENT


def test_the_fetcher_is_never_asked_past_the_end(cache):
    asked = []

    def noting(start, stop):
        asked.append((start, stop))
        return fetch(start, stop)

    assert SpecmmCache(1 << 20, noting, len(CONTENT), cache=cache)._fetch(len(CONTENT) - 1, None)
    assert max(stop for _, stop in asked) == len(CONTENT)


def test_counters_tell_hits_from_misses():
    # Inline: there are no workers, whose reads may or may not be done when the next read comes.
    with specmm.PageCache("4MiB", io="inline") as cache:
        counted = SpecmmCache(0, fetch, len(CONTENT), cache=cache)
        assert (counted.hit_count, counted.miss_count, counted.total_requested_bytes) == (0, 0, 0)
        counted._fetch(0, 10)
        assert (counted.hit_count, counted.miss_count) == (0, 1)
        first = counted.total_requested_bytes
        assert 0 < first <= len(CONTENT)
        for _ in range(3):
            counted._fetch(2, 10)
        assert (counted.hit_count, counted.miss_count, counted.total_requested_bytes) == (3, 1, first)
        counted._fetch(0, None)
        assert counted.miss_count == 2
        assert counted.total_requested_bytes == len(CONTENT), "a byte was fetched twice"
        assert "3 hits, 2 misses" in counted._log_stats()
        counted._reset_stats()
        assert (counted.hit_count, counted.miss_count, counted.total_requested_bytes) == (0, 0, 0)


def test_blocks_are_those_of_fsspec(cache):
    assert SpecmmCache(1000, fetch, 2500, cache=cache).nblocks == 3
    assert SpecmmCache(1000, fetch, 0, cache=cache).nblocks == 0
    assert "block size  :   1000" in repr(SpecmmCache(1000, fetch, 2500, cache=cache))


def test_a_block_is_the_largest_readahead_window(cache):
    frames = cache.stats().capacity_frames
    for blocksize, ra_pages in [(0, 1), (PAGE - 1, 1), (8 * PAGE, 8), (1 << 30, frames // 8)]:
        file, _ = SpecmmCache(blocksize, fetch, len(CONTENT), cache=cache)._open()
        assert file.readahead_state.ra_pages == ra_pages
    file, _ = SpecmmCache(PAGE, fetch, len(CONTENT), cache=cache, ra_pages=3)._open()
    assert file.readahead_state.ra_pages == 3


def test_a_cache_is_pickled_without_its_pages(cache):
    before = SpecmmCache(PAGE, fetch, len(CONTENT), cache=cache)
    before._fetch(0, 10)
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is SpecmmCache
    assert (after.blocksize, after.size, after.miss_count) == (PAGE, len(CONTENT), 1)
    assert after._fetch(5, 20) == CONTENT[5:20]
    assert before._fetch(5, 20) == CONTENT[5:20]


def test_the_type_is_registered():
    assert caches["specmm"] is SpecmmCache
    with pytest.raises(ValueError, match="specmm"):
        register_cache(SpecmmCache)


def test_a_size_must_be_known(cache):
    with pytest.raises(ValueError, match="size"):
        SpecmmCache(5, fetch, None, cache=cache)


def test_an_option_that_is_none_is_named(fs):
    with pytest.raises(TypeError, match="maxblocks"):
        fs.open("a/data", cache_type="specmm", cache_options={"maxblocks": 3})


# --- a file whose cache is specmm's


def test_a_file_reads_as_any_other(fs, cache):
    draw = random.Random(3)
    with opened(fs, cache) as file:
        for _ in range(300):
            place = draw.randrange(len(CONTENT))
            n = draw.choice([1, 10, PAGE, 3 * PAGE])
            file.seek(place)
            assert file.read(n) == CONTENT[place : place + n]
        file.seek(0)
        assert file.read() == CONTENT
        assert file.read(1) == b""
        file.seek(-10, 2)
        buffer = bytearray(100)
        assert file.readinto(buffer) == 10
        assert buffer[:10] == CONTENT[-10:]


def test_lines(fs, cache, objects):
    lines = [f"line {n}\n".encode() for n in range(5000)]
    objects["lines"] = b"".join(lines)
    with opened(fs, cache, "lines") as file:
        assert list(file) == lines


def test_two_files_of_one_object_share_pages(fs, cache):
    with opened(fs, cache) as first, opened(fs, cache) as second:
        assert first.read() == second.read() == CONTENT
        assert second.cache.hit_count == 1
        assert second.cache.total_requested_bytes == 0
    assert bucket.fetched("a/data") == len(CONTENT)
    assert cache.stats().frames_in_use == -(-len(CONTENT) // PAGE)


def test_pages_outlive_the_file(fs, cache):
    for _ in range(3):
        with opened(fs, cache) as file:
            assert file.read() == CONTENT
    assert bucket.fetched("a/data") == len(CONTENT)


def test_threads_with_file_systems_of_their_own_share_pages(cache):
    # fsspec makes one file system for each thread.
    def read():
        with opened(fsspec.filesystem("bucket"), cache) as file:
            answers.append(file.read())

    fsspec.register_implementation("bucket", Bucket, clobber=True)
    answers: list[bytes] = []
    for _ in range(3):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert answers == [CONTENT] * 3
    assert bucket.fetched("a/data") == len(CONTENT)


def test_threads_at_once(fs, cache, objects):
    objects.update({f"t/{n}": CONTENT[n * 100 :] for n in range(4)})
    wrong = []

    def read(seed):
        draw = random.Random(seed)
        for _ in range(100):
            n = draw.randrange(4)
            with opened(fs, cache, f"t/{n}") as file:
                place = draw.randrange(len(CONTENT) - 400)
                file.seek(place)
                if file.read(5000) != objects[f"t/{n}"][place : place + 5000]:
                    wrong.append((n, place))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("poor", [False, True])
def test_a_changed_object_is_read_anew(cache, objects, poor):
    fs = Bucket(poor=poor)
    with opened(fs, cache) as before:
        assert before.read() == CONTENT
        objects["a/data"] = bytes(reversed(CONTENT))  # of the same size
        with opened(fs, cache) as after:
            assert after.read() == bytes(reversed(CONTENT))
        before.seek(0)
        assert before.read() == CONTENT, "what is open stays as it was"
    # Of the old version nothing is left.
    gc.collect()
    cache.settle()
    assert cache.stats().frames_in_use <= -(-len(CONTENT) // PAGE)


def test_what_differs_shares_nothing(cache, objects):
    objects["b/data"] = CONTENT[::-1]
    one, two = Bucket(), Bucket(poor=True)
    with opened(one, cache) as first, opened(one, cache, "b/data") as second, opened(two, cache) as third:
        assert first.read() == third.read() == CONTENT
        assert second.read() == CONTENT[::-1]
    assert bucket.fetched("a/data") == 2 * len(CONTENT), "file systems made of other options are others"


def test_memory_is_bounded(fs, objects):
    objects.update({f"big/{n}": bytes([n]) * (64 * PAGE) for n in range(20)})
    with specmm.PageCache(100 * PAGE) as cache:
        for n in [*range(20), *range(20)]:
            with opened(fs, cache, f"big/{n}") as file:
                assert file.read() == objects[f"big/{n}"]
            assert cache.stats().frames_in_use <= 100
        assert cache.stats().evictions > 0
        cache.settle()
        cache.check()


def test_an_object_larger_than_the_cache(fs, objects):
    objects["huge"] = random.Random(5).randbytes(500 * PAGE + 1)
    with specmm.PageCache(32 * PAGE) as cache:
        with opened(fs, cache, "huge") as file:
            assert file.read() == objects["huge"]
        cached = CachedFileSystem(fs=fs, cache=cache)
        assert cached.cat_file("huge", 5, -5) == objects["huge"][5:-5]
        draw = random.Random(6)
        with cached.open("huge") as file:
            for _ in range(300):
                place = draw.randrange(500 * PAGE)
                file.seek(place)
                assert file.read(3000) == objects["huge"][place : place + 3000]
        cache.settle()
        cache.check()


def test_the_number_of_objects_is_bounded(fs, cache, objects, monkeypatch):
    monkeypatch.setattr(_remote, "OBJECTS", 2)
    objects.update({f"many/{n}": CONTENT for n in range(5)})
    for n in (0, 1, 0, 2, 0):
        with opened(fs, cache, f"many/{n}") as file:
            file.read()
    assert bucket.fetched("many/0") == len(CONTENT), "it was used all the time"
    with opened(fs, cache, "many/1") as file:
        file.read()
    assert bucket.fetched("many/1") == 2 * len(CONTENT), "it was the longest unused"
    gc.collect()
    cache.settle()
    assert cache.stats().frames_in_use == 2 * -(-len(CONTENT) // PAGE)


def test_a_file_that_is_dropped_is_collected(fs, cache):
    file = opened(fs, cache)
    file.read()
    alive = weakref.ref(file.cache)
    del file
    gc.collect()
    assert alive() is None


def test_a_file_outlives_the_one_that_opened_the_object(fs, cache):
    first, second = opened(fs, cache), opened(fs, cache)
    first.read(10)
    second.read(10)
    first.close()
    second.seek(0)
    assert second.read() == CONTENT
    second.close()


def test_a_finalizer_may_close_and_read_files_anywhere(fs, cache, objects, monkeypatch):
    objects["other"] = b"other"
    closed = opened(fs, cache)
    closed.read(10)

    class Collecting(dict):
        def setdefault(self, key, default):
            # As the garbage collector does, which runs on any allocation.
            if not closed.closed:
                closed.close()
                with opened(fs, cache, "other") as other:
                    answers.append(other.read())
            return super().setdefault(key, default)

    answers: list[bytes] = []
    monkeypatch.setattr(_remote, "_objects", Collecting(_remote._objects))
    thread = threading.Thread(target=lambda: answers.append(opened(fs, cache).read()), daemon=True)
    thread.start()
    thread.join(60)
    assert answers == [b"other", CONTENT]


def test_readahead_asks_a_file_that_is_open(fs, cache):
    first, second = opened(fs, cache), opened(fs, cache)
    first.read(10)
    second.read(10)
    _, remote = second.cache._opened
    kept = second.cache
    second.close()
    kept.close()  # which older versions of fsspec leave to the garbage collector
    requested = first.cache.total_requested_bytes
    assert remote.read_at(5, 10) == CONTENT[5:15]
    assert first.cache.total_requested_bytes == requested + 10
    first.close()
    with pytest.raises(OSError, match="nobody has the object open"):
        remote.read_at(5, 10)
    assert kept.hit_count == 1


def test_what_the_file_system_raises_is_raised(fs, cache):
    bucket.FAILING["a/data"] = PermissionError("credentials have expired")
    with opened(fs, cache) as file:
        with pytest.raises(PermissionError, match="credentials"):
            file.read(10)
        del bucket.FAILING["a/data"]
        assert file.read(10) == CONTENT[:10], "a failure is not kept"


def test_a_short_answer_is_an_error(cache):
    short = SpecmmCache(PAGE, lambda start, stop: b"x", len(CONTENT), cache=cache)
    with pytest.raises(OSError, match="exactly"):
        short._fetch(0, 10)


def test_a_file_is_pickled(fs, cache):
    with opened(fs, cache) as file:
        file.seek(1000)
        with pickle.loads(pickle.dumps(file)) as copy:
            assert copy.cache.name == "specmm"
            assert copy.tell() == 1000
            assert copy.read() == CONTENT[1000:]


def test_a_pickled_file_finds_its_cache_type_in_a_process_that_has_not_imported_it(fs, cache):
    with opened(fs, cache) as file:
        pickled = pickle.dumps(file)
    code = (
        "import pickle, sys, bucket\n"
        "assert 'specmm' not in sys.modules\n"
        "bucket.OBJECTS['a/data'] = bucket.CONTENT\n"
        f"file = pickle.loads({pickled!r})\n"
        "assert file.read() == bucket.CONTENT\n"
        "print(type(file.cache).__name__)"
    )
    here = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["SpecmmCache"]


# --- a file system in front of another


def test_a_chain_of_urls(objects):
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    with fsspec.open("specmm::bucket://a/data") as file:
        assert file.read() == CONTENT
    with fsspec.open("specmm::bucket://a/data") as file:
        assert file.read() == CONTENT
    assert bucket.fetched("a/data") == len(CONTENT)


def test_a_chain_needs_no_import(tmp_path):
    (tmp_path / "data").write_bytes(CONTENT)
    code = f"import fsspec; print(len(fsspec.open('specmm::file://{tmp_path}/data').open().read()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) == len(CONTENT)


def test_files_on_disk_may_be_behind(tmp_path):
    (tmp_path / "data").write_bytes(CONTENT)
    with fsspec.open(
        f"specmm::simplecache::file://{tmp_path}/data", simplecache={"cache_storage": str(tmp_path / "kept")}
    ) as file:
        assert file.read() == CONTENT
    assert [path.read_bytes() for path in (tmp_path / "kept").iterdir()] == [CONTENT]


def test_the_same_cache_twice_in_a_chain_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data", CONTENT)
    with fsspec.open(f"specmm::zip://data::file://{tmp_path}/a.zip") as file:
        assert file.read() == CONTENT
    twice = fsspec.open(f"specmm::zip://data::specmm::file://{tmp_path}/a.zip")
    with pytest.raises(specmm.SpecmmError, match=r"re-enter|store"), twice as file:
        file.read()


@pytest.mark.parametrize("kind", ["bucket", "memory", "local", "dir"])
def test_any_file_system_reads_through_the_cache(fs, cache, tmp_path, kind):
    (tmp_path / "data").write_bytes(CONTENT)
    fsspec.filesystem("memory").pipe_file("/data", CONTENT)
    target, path = {
        "bucket": (fs, "a/data"),
        "memory": (fsspec.filesystem("memory"), "/data"),
        "local": (fsspec.filesystem("file"), str(tmp_path / "data")),
        "dir": (DirFileSystem("a", fs), "data"),
    }[kind]
    cached = CachedFileSystem(fs=target, cache=cache)
    for _ in range(2):
        with cached.open(path) as file:
            assert file.read(PAGE) == CONTENT[:PAGE]
        assert cached.cat(path) == CONTENT
        assert cached.cat_file(path, 5, -5) == CONTENT[5:-5]
        assert cached.cat_ranges([path, path], [0, 7], [3, 70]) == [CONTENT[:3], CONTENT[7:70]]
        assert cached.tail(path, 9) == CONTENT[-9:]
        assert cached.read_block(path, 10, 30) == CONTENT[10:40]
    assert cached.info(path) == target.info(path)
    assert cached.exists(path)
    assert not cached.exists(path + "none")
    assert cache.stats().read_bytes == len(CONTENT), "a byte was fetched twice"


def test_text(fs, cache, objects):
    objects["text"] = "ä\nö\n".encode()
    with CachedFileSystem(fs=fs, cache=cache).open("text", "r", encoding="utf-8") as file:
        assert file.read() == "ä\nö\n"


def test_what_is_written_is_read(cache):
    cached = CachedFileSystem(target_protocol="memory", cache=cache)
    for n in range(3):
        with cached.open("/out", "wb") as file:
            file.write(bytes([n]) * 1000)
        assert cached.cat("/out") == bytes([n]) * 1000
    assert cached.glob("/o*") == ["/out"]
    cached.rm("/out")
    assert not cached.exists("/out")


def test_caches_of_one_size_are_not_taken_for_each_other(fs):
    with specmm.PageCache("1MiB") as one, specmm.PageCache("1MiB") as two:
        CachedFileSystem(fs=fs, cache=one).cat("a/data")
        assert two.stats().frames_in_use == 0
        CachedFileSystem(fs=fs, cache=two).cat("a/data")
        assert one.stats().frames_in_use == two.stats().frames_in_use > 0


def test_a_file_system_is_pickled(fs, cache):
    cached = CachedFileSystem(fs=fs, cache=cache)
    copy = pickle.loads(pickle.dumps(cached))
    assert copy == cached
    assert hash(copy) == hash(cached)
    assert copy != CachedFileSystem(target_protocol="memory")
    assert copy.cat("a/data") == CONTENT
    assert cache.stats().read_bytes == len(CONTENT), "in this process its cache is the same"
    with cached.open("a/data") as file, pickle.loads(pickle.dumps(file)) as again:
        assert again.read(100) == CONTENT[:100]


def test_one_target_exactly(fs):
    with pytest.raises(ValueError, match="one of fs and target_protocol"):
        CachedFileSystem()
    with pytest.raises(ValueError, match="one of fs and target_protocol"):
        CachedFileSystem(fs=fs, target_protocol="memory")


@forks
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_file_system_in_other_processes(cache, tmp_path, start):
    (tmp_path / "data").write_bytes(CONTENT)
    cached = CachedFileSystem(target_protocol="file", cache=cache)
    assert cached.cat_file(str(tmp_path / "data"), 0, 10) == CONTENT[:10]
    before = cache.stats().reads
    with multiprocessing.get_context(start).Pool(1) as workers:
        parts = workers.starmap(
            cached.cat_file,
            [(str(tmp_path / "data"), place, place + 5000) for place in range(0, 160_000, 5000)],
        )
    assert b"".join(parts) == CONTENT[:160_000]
    assert cache.stats().reads == before


@forks
def test_an_open_file_in_a_child_of_fork(fs, cache):
    with opened(fs, cache) as file:
        assert file.read(10) == CONTENT[:10]

        def child(answers):
            rest = file.read()
            with opened(fs, cache) as again:
                answers.put((rest == CONTENT[10:], again.read() == CONTENT, file.cache.total_requested_bytes))

        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        process = context.Process(target=child, args=(answers,))
        process.start()
        assert answers.get(timeout=60)[:2] == (True, True)
        process.join(60)
        assert process.exitcode == 0
        assert file.read() == CONTENT[10:]


# --- an object as a File


def test_an_object_is_opened_as_a_file(fs, cache):
    with specmm.fsspec.open("bucket://a/data", cache=cache) as file:
        assert isinstance(file, specmm.File)
        assert (file.size, file.name) == (len(CONTENT), "a/data")
        threads = [threading.Thread(target=file.pread, args=(PAGE, n * PAGE)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert file.pread(len(CONTENT), 0) == CONTENT
    assert bucket.fetched("a/data") == len(CONTENT)


def test_a_file_of_a_file_system_that_is_given(fs, cache):
    cached = CachedFileSystem(fs=fs, cache=cache)
    with specmm.fsspec.open("a/data", fs=cached, cache=cache) as file:
        assert file.pread(100, 50) == CONTENT[50:150]


def test_closing_a_file_closes_nobody_elses(fs, cache):
    one = specmm.fsspec.open("a/data", fs=fs, cache=cache)
    two = specmm.fsspec.open("a/data", fs=fs, cache=cache)
    one.close()
    assert two.pread(10, 0) == CONTENT[:10]
    two.close()


def test_what_cannot_be_opened_is_named(fs, cache, tmp_path):
    with pytest.raises(FileNotFoundError, match="a/none"):
        specmm.fsspec.open("a/none", fs=fs, cache=cache)
    with pytest.raises(ValueError, match="mode must be 'rb': 'wb'"):
        specmm.fsspec.open("a/data", "wb", fs=fs, cache=cache)
    with pytest.raises(IsADirectoryError):
        specmm.fsspec.open(f"file://{tmp_path}", cache=cache)


def test_an_error_of_the_file_system_is_the_cause(fs, cache):
    bucket.FAILING["a/data"] = TimeoutError("the bucket is slow today")
    file = specmm.fsspec.open("a/data", fs=fs, cache=cache)
    with file, pytest.raises(OSError, match="slow today") as failed:
        file.pread(10, 0)
    assert isinstance(failed.value.__cause__, TimeoutError)
