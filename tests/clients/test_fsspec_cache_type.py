"""fsspec: a cache type that shares one bounded cache."""

import gc
import multiprocessing
import pickle
import random
import threading
import weakref
from pathlib import Path

import fsspec
import pytest
from fsspec.caching import caches, register_cache

import bucket
import specmm
from bucket import CONTENT, Bucket
from programs import run
from specmm import _remote
from specmm.fsspec import CachedFileSystem, SpecmmCache

CAPACITY = "4MiB"
PAGE = specmm.PAGE_SIZE

pytestmark = pytest.mark.usefixtures("objects")
# Python 3.12 warns of fork where there are threads; specmm's are none of the child's.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


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
    here = str(Path(__file__).parent)
    assert run(f"import sys; sys.path.insert(0, {here!r})\n{code}") == "SpecmmCache\n"


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
