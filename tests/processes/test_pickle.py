"""Pickles of caches and files, and the worker processes that they are sent to."""

import copy
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import specmm
from programs import run
from samples import CONTENT, PAGE, Store
from specmm import _pickling


def again(thing, protocol=pickle.HIGHEST_PROTOCOL):
    return pickle.loads(pickle.dumps(thing, protocol))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_file_is_opened_again_in_the_same_cache(cache, path, protocol):
    file = cache.open(path, ra_pages=5)
    file.pread(1, PAGE)
    same = again(file, protocol)
    assert same is not file
    assert (same.name, same.mode, same.size) == (str(path), "rb", len(CONTENT))
    assert same.readahead_state.ra_pages == 5
    assert same.residency() == file.residency() != bytes(3)
    # Neither closes the other.
    file.close()
    assert same.pread(len(CONTENT), 0) == CONTENT


@pytest.mark.parametrize("mode", ["rb", "r", "r+b", "w+b", "x+b"])
def test_modes(cache, path, mode):
    if mode == "x+b":
        path.unlink()
    with cache.open(path, mode) as file:
        file.truncate(100) if mode not in ("rb", "r") else None
        same = again(file)
        assert same.mode == ("rb" if mode in ("rb", "r") else "r+b")
        assert same.size == file.size > 0, "it is not emptied once more"


def test_advice_and_place(cache, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    file = cache.open(path.name, ra_pages=8)
    file.advise("sequential")
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    same = again(file)
    assert same.size == len(CONTENT), "it is not looked for in the new place"
    assert same.readahead_state.ra_pages == 16
    file.advise("random")
    silent = again(file)
    cache.drop_caches()
    silent.pread(1, 0)
    cache.settle()
    assert silent.residency() == b"\1\0\0"
    file.close()


def test_copies(cache, path):
    with cache.open(path) as file:
        for same in (copy.copy(file), copy.deepcopy([file])[0]):
            file.pread(1, 2 * PAGE)
            assert same.residency() == file.residency()
    assert copy.copy(cache) is copy.deepcopy(cache) is cache


def test_what_cannot_be_pickled_says_what_to_do(cache, path):
    with (
        cache.open_store(Store(lambda offset, n: bytes(n)), 10, name="remote") as file,
        pytest.raises(pickle.PicklingError, match=r"'remote'.*open_store"),
    ):
        pickle.dumps(file)
    file = cache.open(path)
    file.close()
    with pytest.raises(specmm.ClosedError, match=r"data\.bin"):
        pickle.dumps(file)
    with pytest.raises(TypeError, match="Mm"):
        pickle.dumps(specmm.mm.Mm(cache))
    with specmm.PageCache("1MiB") as ended:
        pass
    with pytest.raises(specmm.ClosedError):
        pickle.dumps(ended)


def test_what_is_gone_is_missing(cache, path):
    with cache.open(path) as file:
        data = pickle.dumps(file)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


def test_a_closed_cache_is_made_again(path):
    with specmm.PageCache("2MiB", io="inline") as cache, cache.open(path) as file, cache.open(path) as also:
        data = pickle.dumps([cache, file, also])
    made, one, other = pickle.loads(data)
    assert made is not cache
    assert made.stats().capacity_frames == 512
    assert "inline" in repr(made)
    one.pread(1, 0)
    assert other.residency(0, 1) == b"\1"
    # One for all who come, as long as it is open.
    with ThreadPoolExecutor(8) as pool:
        barrier = threading.Barrier(8)
        loaded = list(pool.map(lambda _: barrier.wait() + 1 and pickle.loads(data)[0], range(8)))
    assert all(each is made for each in loaded)
    made.close()
    assert pickle.loads(data)[0] is not made
    pickle.loads(data)[0].close()


def test_files_of_the_process_wide_cache(path):
    code = """
import pickle, sys, specmm
if sys.argv[2] == "dump":
    specmm.configure(capacity="3MiB")
    file = specmm.open(sys.argv[1], ra_pages=3)
    same = pickle.loads(pickle.dumps(file))
    same.pread(1, 0)
    assert file.residency(0, 1) == b"\\1"
    print(pickle.dumps(file).hex())
else:
    if sys.argv[2] == "configured":
        specmm.configure(capacity="5MiB")
    file = pickle.loads(bytes.fromhex(sys.argv[3]))
    here = specmm.open(sys.argv[1])
    here.pread(1, 0)
    assert file.residency(0, 1) == b"\\1"
    assert file.readahead_state.ra_pages == 3
    try:
        specmm.configure(capacity=1 << 40)
    except specmm.SpecmmError as error:
        print(error)
"""
    data = run(code, path, "dump").strip()
    assert str(3 << 20) in run(code, path, "load", data)
    assert str(5 << 20) in run(code, path, "configured", data)


def test_a_cache_from_a_pickle_holds_so_many_files_open(tmp_path):
    cache = specmm.PageCache("2MiB")
    data = []
    for number in range(_pickling.HELD + 20):
        path = tmp_path / str(number)
        path.write_bytes(bytes([number]) * 10)
        with cache.open(path) as file:
            data.append(pickle.dumps(file))
    made = pickle.dumps(cache)
    cache.close()
    for number, each in enumerate(data):
        assert pickle.loads(each).pread(1, 0) == bytes([number])
    made = pickle.loads(made)
    descriptors = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.exists()]
    assert sum(str(tmp_path) in each for each in descriptors) <= 2 * _pickling.HELD
    # The last are in the cache still, and of the first the pages are gone.
    assert made.stats().frames_in_use == _pickling.HELD
    # A file that was replaced is the new one.
    path.unlink()
    path.write_bytes(b"new")
    assert pickle.loads(data[-1]).pread(3, 0) == b"new"
    made.close()


# --- worker processes


def page_and_reads(files, page):
    """What a worker finds, which process it is, and how many reads its one cache made so far."""
    cache, one, other = files
    found = one.pread(1, page * PAGE), other.gather([page * PAGE], 1)
    assert other.residency(page, 1) == b"\1"
    return found, os.getpid(), cache.stats().reads, cache.stats().capacity_frames


PAGES = 64


def check(answers):
    """Every task met the cache that earlier tasks in its process had filled: no page was read twice."""
    assert [found for found, *_ in answers] == [(bytes([page]),) * 2 for page in [*range(PAGES)] * 3]
    last = {}
    for _, process, reads, frames in answers:
        assert process != os.getpid()
        assert frames == 512
        last[process] = max(last.get(process, 0), reads)
    assert all(reads <= PAGES for reads in last.values()), last


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_pool_of_processes(data, start):
    context = multiprocessing.get_context(start)
    with specmm.PageCache("2MiB") as cache, ProcessPoolExecutor(2, mp_context=context) as pool:
        files = cache, cache.open(data, ra_pages=0), cache.open(data, "r+b", ra_pages=0)
        tasks = [pool.submit(page_and_reads, files, page) for page in [*range(PAGES)] * 3]
        check([task.result(60) for task in tasks])
        assert cache.stats().reads == 0


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_multiprocessing(data, start):
    context = multiprocessing.get_context(start)
    with specmm.PageCache("2MiB") as cache, context.Pool(2) as pool:
        files = cache, cache.open(data, ra_pages=0), cache.open(data, ra_pages=0)
        check(pool.starmap(page_and_reads, [(files, page) for page in [*range(PAGES)] * 3]))
        pool.close()
        pool.join()


def read_all(file, answer):
    answer.put((file.pread(PAGES * PAGE, 0), file.name))


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_is_given_a_file(data, start):
    context = multiprocessing.get_context(start)
    with specmm.PageCache("2MiB") as cache, cache.open(data) as file:
        answer = context.SimpleQueue()
        process = context.Process(target=read_all, args=(file, answer))
        process.start()
        assert answer.get() == (data.read_bytes(), str(data))
        process.join(60)
        assert process.exitcode == 0
