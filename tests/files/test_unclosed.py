"""A file that its user never closed is a ResourceWarning, as of Python's own files, and no other file is."""

import gc
import io
import linecache
import os
import pickle
import tracemalloc
import warnings

import fsspec
import pytest

import specmm
import specmm.arrow
import specmm.fsspec
import specmm.zarr
from programs import python, run
from samples import CONTENT, Store


@pytest.fixture
def warned():
    """What was warned of since."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield seen
        gc.collect()


def zeros(offset, n):
    return bytes(n)


WAYS = {
    "open": lambda cache, path: cache.open(path),
    "default": lambda cache, path: specmm.open(path),
    "r+b": lambda cache, path: cache.open(path, "r+b"),
    "store": lambda cache, path: cache.open_store(Store(zeros), 100, name="remote"),
    "fsspec.open": lambda cache, path: specmm.fsspec.open(f"file://{path}", cache=cache),
    "own stream": lambda cache, path: cache.open(path).as_raw(close=True),
    "buffered": lambda cache, path: io.BufferedReader(cache.open(path).as_raw(close=True)),
    "text": lambda cache, path: io.TextIOWrapper(
        io.BufferedReader(cache.open(path).as_raw(close=True)), encoding="latin-1"
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("used", [False, True])
def test_a_file_that_is_let_go_is_warned_of_once(cache, path, warned, way, used):
    opened = WAYS[way](cache, path)
    if used:
        opened.pread(5, 0) if isinstance(opened, specmm.File) else opened.read(5)
    shown = repr(opened)
    assert warned == []
    del opened
    assert [each.category for each in warned] == [ResourceWarning]
    if way != "text":
        assert str(warned[0].message) == f"unclosed file {shown}"
    assert warned[0].filename == __file__
    assert linecache.getline(__file__, warned[0].lineno).strip() == "del opened"
    # It is given as its own kind, and works.
    source = warned[0].source
    if isinstance(source, specmm.File):
        assert len(source.pread(9, 0)) == 9
        source.close()
    gc.collect()
    assert len(warned) == 1


@pytest.mark.parametrize("way", WAYS)
def test_one_that_is_closed_is_not(cache, path, warned, way):
    with WAYS[way](cache, path):
        pass
    gc.collect()
    assert warned == []


def test_tracemalloc_says_where_it_was_opened(cache, path, warned):
    tracemalloc.start(5)
    try:
        file = cache.open(path)
        del file
        (only,) = warned
        lines = tracemalloc.get_object_traceback(only.source).format()
    finally:
        tracemalloc.stop()
    assert "file = cache.open(path)" in lines[-1], lines


def test_an_exception_on_its_way_goes_on(cache, path, warned):
    def fails():
        file = cache.open(path)
        raise LookupError(file.size)

    with pytest.raises(LookupError, match=str(len(CONTENT))) as raised:
        fails()
    assert warned == []
    raised.value.__traceback__ = None
    del raised
    gc.collect()
    assert len(warned) == 1


def test_a_warning_that_is_an_error_hurts_nobody(path):
    code = """
import sys, specmm
sys.unraisablehook = lambda told: print(told.exc_type.__name__, type(told.object).__name__)
file = specmm.open(sys.argv[1])
try:
    [file := None, 1 / 0]
except ZeroDivisionError:
    print("went on")
"""
    assert run(code, path) == "ResourceWarning File\nwent on\n"


def test_who_closes_the_cache_has_closed_the_file(path, warned):
    with specmm.PageCache("64KiB") as cache:
        file = cache.open(path)
    del file
    with specmm.PageCache("64KiB") as cache:
        raw = cache.open(path).as_raw(close=True)
    del raw, cache
    gc.collect()
    assert warned == []


def test_files_of_the_packages_own_are_nobodys_to_close(cache, tmp_path, path, warned):
    with cache.open(path) as file:
        pickled = pickle.dumps(file)
    pickle.loads(pickled).pread(1, 0)
    filesystem = fsspec.filesystem("specmm", target_protocol="file", cache=cache)
    assert filesystem.cat_file(str(path), 0, 5) == CONTENT[:5]
    with filesystem.open(str(path)) as opened:
        assert opened.read(5) == CONTENT[:5]
    with fsspec.open(f"specmm::file://{path}", specmm={"cache": cache}) as opened:
        assert opened.read(5) == CONTENT[:5]
    store = specmm.zarr.CachedStore(tmp_path, cache=cache)
    store.get_sync(path.name, prototype=specmm.zarr.default_buffer_prototype())
    del filesystem, opened, store
    gc.collect()
    assert warned == []


LEFT = """
import io, os, sys, warnings
import specmm
first = specmm.open(sys.argv[1])
second = specmm.PageCache("64KiB").open(sys.argv[1])
stream = io.BufferedReader(specmm.open(sys.argv[1]).as_raw(close=True))
pinned = specmm.PageCache("64KiB").open(sys.argv[1])
pin = pinned.pin(0, 5)
class Cycle: pass
cycle = Cycle()
cycle.me, cycle.file = cycle, specmm.open(sys.argv[1])
"""


def test_at_exit_there_is_no_warning(path):
    assert run(LEFT, path) == ""
    done = python("-X", "dev", "-c", LEFT, path)
    assert (done.returncode, done.stderr) == (0, "")


def test_in_a_child_there_is_no_warning(path):
    code = (
        LEFT
        + """
warnings.simplefilter("always")
pid = os.fork()
if not pid:
    first.pread(1, 0)
    own = specmm.open(sys.argv[1])
    del first, second, stream, own
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("the parent", file=sys.stderr)
del second
"""
    )
    done = python("-c", code, path)
    assert done.stderr.startswith("the parent\n"), done.stderr
    assert done.stderr.count("unclosed file") == 1
    assert os.fspath(path) in done.stderr
