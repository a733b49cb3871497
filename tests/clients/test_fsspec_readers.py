"""Readers side by side: threads, event loops, children of fork, requests that fail."""

import asyncio
import functools
import io
import os
import random
import threading
import time

import fsspec
import fsspec.asyn
import pytest
from fsspec.implementations.tar import TarFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from hypothesis import given
from hypothesis import strategies as st

import specmm
import specmm.fsspec
from archives import tar_of, zip_of
from specmm.fsspec import CachedFileSystem
from versions import PAGE, SIZE, Versioned, VersionedFile, content, examples

CAPACITY = "8MiB"


class Slow(AbstractBufferedFile):
    """Does something in its next fetch, and then looks whether it is still open."""

    def _fetch_range(self, start, end):
        then = self.fs.then.pop(self, None)
        if then is not None:
            then()
        if self.closed:
            raise ValueError("this file's connection is closed")
        return content(0)[start:end]

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self is other


class SlowSystem(AbstractFileSystem):
    protocol = "slow"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.then = {}
        self.opened = []

    def info(self, path, **_):
        return {"name": path, "type": "file", "size": SIZE, "ETag": "1"}

    def _open(self, path, mode="rb", **kwargs):
        self.opened.append(Slow(self, path, mode, **kwargs))
        return self.opened[-1]


def elsewhere(call):
    """Done in another thread, and waited for."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("wrapped", [False, True])
def test_closing_readers_in_any_order_fails_no_other(wrapped):
    @examples(0.3)
    @given(st.integers(2, 4), st.integers(5, 20), st.data())
    def check(readers, page, data):
        fs = SlowSystem(skip_instance_cache=True)
        with specmm.PageCache("1MiB") as cache:
            cached = CachedFileSystem(fs=fs, cache=cache)
            options = {"cache_type": "specmm", "cache_options": {"cache": cache}}
            opened = [cached.open("x") if wrapped else fs.open("x", **options) for _ in range(readers)]
            files = dict(zip(opened, fs.opened, strict=True))
            for file in files:
                file.read(1)
            waiting, *closing = data.draw(st.permutations(opened))

            def fail():
                # Meanwhile the others read, of what is cached, and will be asked for what failed here.
                for file in closing:
                    elsewhere(lambda file=file: (file.seek(0), file.read(1)))
                raise ConnectionError("once")

            fs.then[files[waiting]] = fail
            for file in closing:
                fs.then[files[file]] = lambda file=file: elsewhere(file.close)
            waiting.seek(page * PAGE)
            assert waiting.read(100) == content(0)[page * PAGE :][:100]
            for file in files:
                file.close()

    check()


def test_readers_of_one_page_of_which_one_is_closed(shared):
    fs = SlowSystem(skip_instance_cache=True)
    options = {"cache_type": "specmm", "cache_options": {"cache": shared}}
    one, two = fs.open("y", **options), fs.open("y", **options)
    one.read(1)
    asked, go = threading.Event(), threading.Event()
    fs.then[two] = lambda: (asked.set(), go.wait(60))
    leaving = threading.Thread(target=two.cache._fetch, args=(9 * PAGE, 10 * PAGE))
    leaving.start()
    assert asked.wait(60)
    got: list = []
    staying = threading.Thread(target=lambda: (one.seek(9 * PAGE), got.append(one.read(100))))
    staying.start()
    two.close()
    go.set()
    leaving.join(60)
    staying.join(60)
    assert got == [content(0)[9 * PAGE :][:100]]
    one.close()


def test_a_read_from_within_the_loop_that_fetches_raises_at_once(server, shared, tmp_path):
    server.holds["/loop"] = content(0)
    server.holds["/loop.tar"] = tar_of(content(0))
    url = server.url + "/loop"
    http = fsspec.filesystem("http")
    cached = CachedFileSystem(fs=http, cache=shared)
    (tmp_path / "x").write_bytes(b"local")

    async def reading(call):
        return call()

    def inside(call):
        done = asyncio.run_coroutine_threadsafe(reading(call), fsspec.asyn.get_loop())
        return done.result(60)

    typed = http.open(url, cache_type="specmm", cache_options={"cache": shared})
    archive = CachedFileSystem(fs=TarFileSystem(http.open(url + ".tar")), cache=shared)
    own = specmm.fsspec.open(url, cache=shared)
    with cached.open(url) as file, typed, archive.open("data") as member, own:
        assert own.pread(PAGE, 0) == content(0)[:PAGE]
        assert inside(lambda: own.pread(5, 3)) == content(0)[3:8], "a hit waits for nothing"
        for call in (
            lambda: own.pread(5, len(content(0)) - 5),
            lambda: own.preadinto(bytearray(5), len(content(0)) - 5),
            lambda: own.gather([len(content(0)) - 5], 5),
            lambda: own.pin(len(content(0)) - 5, 5),
            lambda: own.advise("willneed"),
            lambda: file.read(5),
            lambda: file.readinto(bytearray(5)),
            lambda: typed.read(5),
            lambda: member.read(5),
            lambda: cached.open(url),
            lambda: cached.cat_file(url, 0, 5),
            lambda: cached.info(url),
            lambda: specmm.fsspec.open(url, cache=shared),
        ):
            with pytest.raises(NotImplementedError):
                inside(call)
        assert file.read(5) == member.read(5) == own.pread(5, 0) == content(0)[:5], "and outside it goes on"
        assert own.pread(5, len(content(0)) - 5) == content(0)[-5:]
        inside(own.close)
    # What has no loop is read there as well, and in another loop everything is.
    local = CachedFileSystem(target_protocol="file", cache=shared)
    assert inside(lambda: local.cat_file(str(tmp_path / "x"))) == b"local"
    assert asyncio.run(reading(lambda: cached.cat_file(url))) == content(0)


def test_requests_are_bounded_by_the_faults(server):
    data = content(0, 600 * PAGE)
    server.holds["/faulty"] = data
    url = server.url + "/faulty"

    def scan(fails):
        server.gets.clear()
        server.fails = fails
        raised = 0
        with specmm.PageCache("16MiB") as cache:
            cached = CachedFileSystem(target_protocol="http", cache=cache)
            with cached.open(url, block_size=256 * PAGE) as file:
                while file.tell() < len(data):
                    at = file.tell()
                    try:
                        assert file.read(PAGE) == data[at : at + PAGE]
                    except Exception as error:
                        assert "503" in str(error)
                        raised += 1
        return len(server.gets), raised

    whole, _ = scan(lambda number: False)

    @examples(0.1)
    @given(st.sets(st.integers(1, 30), max_size=6))
    def check(faults):
        asked, raised = scan(lambda number: number in faults)
        assert raised <= len(faults)
        # A window that failed is asked for again by halves; with workers windows are more, and smaller.
        assert asked <= 2 * whole + 12 * len(faults) + 10, (asked, whole, faults)

    try:
        check()
    finally:
        server.fails = lambda number: False


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_fork_reads_what_was_open(tmp_path, shared):
    (tmp_path / "x").write_bytes(content(5))
    with CachedFileSystem(target_protocol="file", cache=shared).open(str(tmp_path / "x")) as file:
        file.read(10)
        reading = os.fork()
        if reading == 0:
            os._exit(0 if file.read() == content(5)[10:] else 1)
        for _ in range(200):
            file.seek(0)
            assert file.read() == content(5)
        assert os.waitpid(reading, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("given", ["path", "file"])
def test_children_of_fork_have_places_of_their_own_in_an_archive(tmp_path, kind, given):
    data = content(6, 1000 * PAGE)
    archive = tmp_path / "archive"
    archive.write_bytes({"tar": tar_of, "zip": zip_of}[kind](data))

    def read(fs, file, seed):
        draw, wrong = random.Random(seed), 0
        for _ in range(100):
            place = draw.randrange(len(data))
            wrong += fs.cat_file("data", place, place + 9000) != data[place : place + 9000]
            file.seek(place)
            wrong += file.read(9000) != data[place : place + 9000]
        return wrong

    with archive.open("rb") as opened, specmm.PageCache("1MiB") as cache:
        fs = fsspec.filesystem(kind, fo=opened if given == "file" else f"file://{archive}")
        cached = CachedFileSystem(fs=fs, cache=cache)
        with cached.open("data") as file:
            file.read(10)
            # Its name is another's by now.
            archive.rename(tmp_path / "moved")
            children = []
            for seed in range(3):
                children.append(os.fork())
                if children[-1] == 0:
                    wrong = 255
                    try:
                        wrong = min(read(cached, file, seed), 254)
                    finally:
                        os._exit(wrong)
            assert read(cached, file, 3) == 0
            assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]


def test_a_file_system_for_one_thread_is_used_by_one_at_a_time(shared):
    class Single(Versioned):
        protocol = "single"
        inside = threading.Lock()

        def alone(self, call):
            assert self.inside.acquire(blocking=False), "two threads at once"
            try:
                time.sleep(0.0001)  # somebody else's turn
                return call()
            finally:
                self.inside.release()

        def info(self, path, **_):
            return self.alone(functools.partial(super().info, path))

        def _open(self, path, mode="rb", **_):
            file = VersionedFile(self, path, mode, size=SIZE)
            file._fetch_range = lambda start, end: self.alone(lambda: self.objects[path, None][start:end])
            return file

    Versioned.objects.update({(name, None): content(name) for name in "abcd"})
    cached = CachedFileSystem(fs=Single(), cache=shared)
    wrong: list = []

    def read(seed):
        draw = random.Random(seed)
        for _ in range(20):
            name, place = draw.choice("abcd"), draw.randrange(SIZE)
            try:
                if cached.cat_file(name, place, place + 9000) != content(name)[place : place + 9000]:
                    wrong.append((name, place))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_that_read_one_archive_get_their_own_bytes(shared):
    whole = content(9, 200 * PAGE)

    class Yielding(io.BytesIO):
        def seek(self, *arguments):
            place = super().seek(*arguments)
            time.sleep(0.0001)  # somebody else's turn
            return place

    cached = CachedFileSystem(fs=TarFileSystem(Yielding(tar_of(whole))), cache=shared)
    wrong: list = []

    def read(seed):
        draw = random.Random(seed)
        with cached.open("data", block_size=4 * PAGE) as file:
            for _ in range(100):
                place = draw.randrange(200 * PAGE)
                file.seek(place)
                if file.read(3 * PAGE) != whole[place : place + 3 * PAGE]:
                    wrong.append(place)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
