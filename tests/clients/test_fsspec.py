"""fsspec: a file system in front of any other, and Files."""

import multiprocessing
import pickle
import threading
import zipfile

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem

import bucket
import specmm
import specmm.fsspec
from bucket import CONTENT, Bucket
from programs import run
from specmm.fsspec import CachedFileSystem

CAPACITY = "4MiB"
PAGE = specmm.PAGE_SIZE

pytestmark = pytest.mark.usefixtures("objects")
# Python 3.12 warns of fork where there are threads; specmm's are none of the child's.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


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
    assert int(run(code)) == len(CONTENT)


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
