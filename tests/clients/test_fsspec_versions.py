"""Which object is read behind specmm, in which version: drawn options, look-alikes, replacements, faults."""

import asyncio
import copy
import functools
import gc
import io
import os
import pathlib
import pickle
import random
import tarfile
import threading
import time
import zipfile
from typing import ClassVar

import fsspec
import fsspec.asyn
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.implementations.tar import TarFileSystem
from fsspec.implementations.zip import ZipFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

import specmm
import specmm.fsspec
import web
from specmm._identity import Same, frozen, identity_of
from specmm.fsspec import CachedFileSystem

CAPACITY = "8MiB"
PAGE = specmm.PAGE_SIZE
SIZE = 30 * PAGE + 5


def content(seed, size=SIZE):
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def server():
    with web.serving() as server:
        yield server


@pytest.fixture(scope="module")
def shared():
    """A cache for all examples, so that what is shared by mistake is found."""
    with specmm.PageCache(CAPACITY) as cache:
        yield cache
        cache.settle()
        cache.check()


def examples(share):
    return settings(max_examples=int(settings().max_examples * share) or 1)


def outcome(call, *arguments):
    try:
        return call(*arguments)
    except Exception as error:
        return type(error)


def tar_of(data, name="data"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mtime = len(data), 0
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zip_of(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("data"), data)
    return out.getvalue()


# --- options


class Versioned(AbstractFileSystem):
    """Objects in several versions, of files as remote file systems make them, or whole ones."""

    protocol = "versioned"
    objects: ClassVar[dict] = {}

    def __init__(self, kind="buffered", tells=True, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.tells = kind, tells

    def info(self, path, **options):
        version = options.pop("version_id", None) if self.tells else None
        if options:
            raise TypeError(f"info has no options {options}")
        data = self.objects[path, version]
        return {"name": path, "type": "file", "size": len(data), "ETag": f"{path} {version}"}

    def cat_file(self, path, start=None, end=None, version_id=None):
        return self.objects[path, version_id][start:end]

    def _open(self, path, mode="rb", version_id=None, nonsense=None, **options):
        if nonsense is not None:
            raise TypeError("nonsense")
        data = self.objects[path, version_id]
        if self.kind == "buffered":
            kept = {name: value for name, value in options.items() if name in ("cache_type", "cache_options")}
            return VersionedFile(self, path, mode, version=version_id, size=len(data), **kept)
        return io.BytesIO(data) if self.kind == "bytes" else io.BufferedReader(io.BytesIO(data))


class VersionedFile(AbstractBufferedFile):
    """Knows its version, which is none of the options that are kept."""

    def __init__(self, fs, path, mode, version=None, **kwargs):
        self.version = version
        super().__init__(fs, path, mode, **kwargs)

    def _fetch_range(self, start, end):
        return self.fs.objects[self.path, self.version][start:end]


@pytest.mark.parametrize("kind", ["buffered", "bytes", "raw"])
@pytest.mark.parametrize("tells", [True, False])
def test_options_reach_the_file_system_and_tell_objects_apart(shared, kind, tells):
    @examples(0.3)
    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([None, "1", "2", 1])), max_size=8),
        st.data(),
    )
    def check(asked, data):
        fs = Versioned(kind=kind, tells=tells)
        for seed, path in enumerate("ab"):
            for version in (None, "1", "2", 1):
                # Of one size, so that nothing else tells them apart.
                Versioned.objects[path, version] = content(f"{seed} {version!r}", 3 * PAGE)
        cached = CachedFileSystem(fs=fs, cache=shared)
        for path, version in asked:
            start = data.draw(st.integers(0, 3 * PAGE))
            options = {} if version is None else {"version_id": version}
            want = fs.cat_file(path, start, 3 * PAGE, **options)
            assert cached.cat_file(path, start, 3 * PAGE, **options) == want
            assert cached.cat_ranges([path], [start], [3 * PAGE], **options) == [want]
            with cached.open(path, **options) as file, fs.open(path, **options) as plain:
                file.seek(start)
                assert file.read() == want
                assert plain.read()[start:] == want
            if kind == "buffered":
                typed = fs.open(path, cache_type="specmm", cache_options={"cache": shared}, **options)
                with typed:
                    typed.seek(start)
                    assert typed.read() == want

    check()


def test_an_option_that_the_file_system_does_not_have_is_its_error(server, shared):
    server.holds["/x"] = b"x"
    Versioned.objects["a", None] = b"x"
    for fs, path in [(fsspec.filesystem("http"), server.url + "/x"), (Versioned(), "a")]:
        cached = CachedFileSystem(fs=fs, cache=shared)
        for name in ("cat_file", "open"):
            with pytest.raises(TypeError, match="nonsense"):
                getattr(cached, name)(path, nonsense=1)
            # fsspec's HTTP takes it for a file that is not there.
            with pytest.raises((TypeError, FileNotFoundError)):
                getattr(fs, name)(path, nonsense=1)


def test_headers_tell_objects_apart(server, shared):
    server.holds["/versions"] = content(0)
    for version in "123":
        server.options["/versions", version] = content(version)
    cached, url = CachedFileSystem(target_protocol="http", cache=shared), server.url + "/versions"
    for version in "1213":
        headers = {"X-Version": version}
        assert cached.cat_file(url, 5, 5000, headers=headers) == content(version)[5:5000]
        with cached.open(url, headers=headers) as file:
            assert file.read() == content(version)
    assert cached.cat_file(url) == content(0)
    http = fsspec.filesystem("http")
    for version in "12":
        options = {
            "headers": {"X-Version": version},
            "cache_type": "specmm",
            "cache_options": {"cache": shared},
        }
        with http.open(url, **options) as file:
            file.seek(1)
            assert file.read(10_000) == content(version)[1:10_001]


@pytest.mark.parametrize("size", [1, 100, PAGE + 1, SIZE])
def test_a_size_that_is_given_is_the_size(server, shared, size):
    server.holds["/sized"] = content(3)
    Versioned.objects["sized", None] = content(3)
    for fs, path in ((fsspec.filesystem("http"), server.url + "/sized"), (Changing(), "sized")):
        with (
            CachedFileSystem(fs=fs, cache=shared).open(path, size=size) as file,
            fs.open(path, size=size) as plain,
        ):
            assert file.size == plain.size
            assert file.read() == content(3)[: plain.size]
        assert CachedFileSystem(fs=fs, cache=shared).cat_file(path) == content(3)


def test_unknown_options_are_refused(tmp_path, shared):
    (tmp_path / "x").write_bytes(b"x")
    url = f"file://{tmp_path}/x"
    with pytest.raises(TypeError, match="nonsense"):
        CachedFileSystem(target_protocol="memory", nonsense=1)
    with pytest.raises(TypeError, match="anon"):
        fsspec.open(f"specmm::{url}", anon=True)
    with pytest.raises(TypeError, match="maxblocks"):
        CachedFileSystem(target_protocol="file").open(f"{tmp_path}/x", cache_options={"maxblocks": 1})
    for name, value in [("compression", "gzip"), ("encoding", "utf8"), ("errors", "strict"), ("newline", "")]:
        with pytest.raises(TypeError, match=name):
            specmm.fsspec.open(url, cache=shared, **{name: value})
    with pytest.raises(TypeError, match="auto_mkdir"):
        specmm.fsspec.open(f"{tmp_path}/x", fs=fsspec.filesystem("file"), auto_mkdir=True)
    with pytest.raises(TypeError, match="a file system of fsspec"):
        CachedFileSystem(fs="memory")


def test_asynchronous_ones_are_refused():
    for options in ({"asynchronous": True}, {"target_options": {"asynchronous": True}}):
        with pytest.raises(ValueError, match="asynchronous"):
            CachedFileSystem(target_protocol="http", **options)
    assert CachedFileSystem(target_protocol="memory", asynchronous=False).fs.protocol == "memory"


# --- what looks alike


class Alike:
    """Prints like any other."""

    def __repr__(self):
        return "<something>"


class Blob(io.BytesIO):
    """Prints like any other, too."""

    def __repr__(self):
        return "<File-like object S3FileSystem, bucket/x.tar>"


def values():
    plain = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(-1, 1), st.text(max_size=2))
    plain |= st.binary(max_size=2) | st.sampled_from([pathlib.PurePosixPath("1"), "1", 1, 1.0, True, b"1"])
    return st.recursive(
        plain,
        lambda each: st.lists(each, max_size=2) | st.dictionaries(st.text(max_size=1), each, max_size=2),
        max_leaves=5,
    )


@given(values(), values())
def test_values_are_alike_only_if_they_are_of_one_type(one, other):
    def same(one, other):
        if type(one) is not type(other):
            return False
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
        if isinstance(one, list):
            return len(one) == len(other) and all(map(same, one, other))
        return one == other

    assert (frozen(one) == frozen(other)) == same(one, other)
    hash(frozen(one))


def test_other_things_are_alike_only_if_they_are_the_same():
    one, other = Alike(), Alike()
    assert frozen([one]) == frozen([one])
    assert frozen([one]) != frozen([other])
    kept = Same(one)
    place = id(one)
    del one
    gc.collect()
    for _ in range(100):
        again = Alike()
        assert kept != Same(again)
        if id(again) == place:
            break
    assert len({kept, kept}) == 1
    deep: list = []
    deep.append(deep)
    assert frozen(deep) != frozen([[]])


class Holding(AbstractFileSystem):
    """Objects that belong to what the file system was made with."""

    protocol = "holding"

    def __init__(self, of=None, **kwargs):
        super().__init__(**kwargs)
        self.of = of

    def info(self, path, **_):
        return {"name": path, "type": "file", "size": SIZE, "ETag": "always the same"}

    def _open(self, path, mode="rb", **kwargs):
        return HoldingFile(self, path, mode)


class HoldingFile(AbstractBufferedFile):
    def _fetch_range(self, start, end):
        return self.fs.of.data[start:end]


@pytest.mark.parametrize("kind", ["argument", "tar", "zip", "memory", "tar in dir", "tar in tar"])
def test_look_alikes_share_no_page(shared, kind):
    @examples(0.2)
    @given(st.lists(st.integers(0, 3), min_size=2, max_size=5), st.integers(0, SIZE - 1))
    def check(seeds, place):
        for seed in seeds:
            data = content(seed)
            if kind == "argument":
                of = Alike()
                of.data = data
                fs, path = Holding(of=of, skip_instance_cache=True), "x"
            elif kind == "memory":
                fs, path = MemoryFileSystem(global_store=False, skip_instance_cache=True), "/x"
                fs.pipe_file(path, data)
            elif kind == "zip":
                fs, path = ZipFileSystem(Blob(zip_of(data))), "data"
            else:
                fs, path = TarFileSystem(Blob(tar_of(data))), "data"
                if "dir" in kind:
                    fs = DirFileSystem("in", TarFileSystem(Blob(tar_of(data, "in/data"))))
                elif kind == "tar in tar":
                    fs = TarFileSystem(TarFileSystem(Blob(tar_of(tar_of(data)))).open("data"))
            cached = CachedFileSystem(fs=fs, cache=shared)
            assert cached.cat_file(path, place, place + 100) == data[place : place + 100]
            assert cached.cat_file(path) == data

    check()


def test_an_archive_that_was_replaced_is_read_anew(tmp_path, shared):
    for kind, made in (("tar", tar_of), ("zip", zip_of)):
        path = tmp_path / "archive"
        for seed in (1, 2, 1, 3):
            (tmp_path / "new").write_bytes(made(content(seed)))
            os.utime(tmp_path / "new", (0, 0))
            (tmp_path / "new").replace(path)
            cached = CachedFileSystem(
                target_protocol=kind, target_options={"fo": f"file://{path}"}, cache=shared
            )
            assert cached.cat_file("data") == content(seed)
            reads = shared.stats().read_bytes
            again = CachedFileSystem(
                target_protocol=kind, target_options={"fo": f"file://{path}"}, cache=shared
            )
            assert again.cat_file("data") == content(seed)
            assert shared.stats().read_bytes == reads, "another open of one archive shares its pages"


def test_an_archive_behind_a_server_that_was_replaced_is_read_anew(server, shared):
    for seed in (1, 2, 1):
        server.holds["/archive.tar"] = tar_of(content(seed))
        target = {"fo": server.url + "/archive.tar"}
        cached = CachedFileSystem(target_protocol="tar", target_options=target, cache=shared)
        assert cached.cat_file("data") == content(seed)


def test_a_copy_of_a_file_system_has_nothing_of_the_first(shared):
    memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    memory.pipe_file("/x", b"1")
    tar = TarFileSystem(io.BytesIO(tar_of(b"2")))
    for fs, path in ((memory, "/x"), (tar, "data")):
        assert CachedFileSystem(fs=fs, cache=shared).cat_file(path) == fs.cat_file(path)
        assert identity_of(fs) == identity_of(fs)
    copied = pickle.loads(pickle.dumps(memory))
    copied.pipe_file("/x", b"3")
    assert CachedFileSystem(fs=copied, cache=shared).cat_file("/x") == b"3"
    # Also where all that a file system has is copied.
    for made in (copy.deepcopy(vars(tar)["_specmm_" + str(os.getpid())]),):
        tar.__dict__["_specmm_" + str(os.getpid())] = made
        assert CachedFileSystem(fs=tar, cache=shared).cat_file("data") == b"2"
        assert identity_of(tar) == Same(tar)


def test_file_systems_made_alike_are_one():
    assert identity_of(Holding(of=3, skip_instance_cache=True)) == identity_of(Holding(of=3))
    assert identity_of(Holding(of=3)) != identity_of(Holding(of="3"))
    assert identity_of(Holding(of=True)) != identity_of(Holding(of=1))


# --- what is replaced while it is open


class Replaceable:
    """An object that is put in place again and again."""

    def __init__(self, kind, root, server):
        self.kind, self.root, self.server, self.times = kind, root, server, 0

    def put(self, data):
        self.times += 1
        path = self.root / "data"
        match self.kind:
            case "memory":
                fsspec.filesystem("memory").pipe_file("/replaced", data)
            case "memory in place":
                memory = fsspec.filesystem("memory")
                if not memory.exists("/in-place"):
                    memory.pipe_file("/in-place", b"")
                with memory.open("/in-place", "r+b") as file:
                    file.truncate(0)
                    file.write(data)
            case "local" | "tar" | "zip":
                data = {"tar": tar_of, "zip": zip_of}.get(self.kind, bytes)(data)
                (self.root / "new").write_bytes(data)
                (self.root / "new").replace(path)
            case "local in place":
                path.write_bytes(data)
                # So that the clock's tick does not hide it.
                os.utime(path, ns=(0, self.times * 10**9))
            case "http":
                self.server.holds["/replaced"] = data
            case "bucket" | "cache type":
                Versioned.objects["replaced", None] = data
        self.data = data

    def system(self):
        match self.kind:
            case "memory":
                return fsspec.filesystem("memory"), "/replaced"
            case "memory in place":
                return fsspec.filesystem("memory"), "/in-place"
            case "tar" | "zip":
                return fsspec.filesystem(self.kind, fo=str(self.root / "data")), "data"
            case "http":
                return fsspec.filesystem("http"), self.server.url + "/replaced"
            case "bucket" | "cache type":
                return Changing(), "replaced"
        return fsspec.filesystem("file"), str(self.root / "data")


class Changing(Versioned):
    protocol = "changing"

    def info(self, path, **_):
        data = self.objects[path, None]
        return {"name": path, "type": "file", "size": len(data), "mtime": hash(data)}


KINDS = ("memory", "memory in place", "local", "local in place", "tar", "zip", "http", "bucket", "cache type")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_replaced_is_one_version_or_an_error(tmp_path, server, shared, kind):
    @examples(0.2 if kind == "http" else 0.5)
    @given(st.data())
    def check(data):
        thing = Replaceable(kind, tmp_path, server)
        sizes = st.sampled_from([SIZE, SIZE, SIZE - 5000, PAGE])
        seeds = st.integers(0, 1000)
        now = content(data.draw(seeds), data.draw(sizes))
        thing.put(now)
        files: list = []
        for action in [
            "open",
            *data.draw(st.lists(st.sampled_from(["open", "read", "put", "close"]), max_size=8)),
            "read",
        ]:
            if action == "put":
                now = content(data.draw(seeds), data.draw(sizes))
                thing.put(now)
            elif action == "open":
                fs, path = thing.system()
                if kind == "cache type":
                    file = fs.open(path)
                    file.cache = specmm.fsspec.SpecmmCache(
                        5 * PAGE, file._fetch_range, file.size, cache=shared
                    )
                else:
                    file = CachedFileSystem(fs=fs, cache=shared).open(path, block_size=5 * PAGE)
                files.append((file, now, []))
            elif files:
                file, opened, versions = files[data.draw(st.integers(0, len(files) - 1))]
                if action == "close":
                    file.close()
                elif not file.closed:
                    place = data.draw(st.integers(0, file.size))
                    file.seek(place)
                    if kind == "cache type" and not versions:
                        # A file that knows nothing of itself is that which its first read finds.
                        versions.append(now)
                    try:
                        got = file.read(data.draw(st.integers(1, 2 * PAGE)))
                    except OSError as error:
                        assert "replaced" in str(error) or isinstance(error, FileNotFoundError), error
                        continue
                    if got:
                        may_be = versions or [opened]
                        versions[:] = [one for one in may_be if got == one[place : place + len(got)]]
                        assert versions, "one version, that which was opened"
        fs, path = thing.system()
        assert CachedFileSystem(fs=fs, cache=shared).cat_file(path) == now
        for file, *_ in files:
            file.close()

    check()


def test_an_open_file_stays_what_it_was_where_the_plain_one_does(tmp_path, shared):
    for kind in ("memory", "local"):
        thing = Replaceable(kind, tmp_path, None)
        thing.put(content(1))
        fs, path = thing.system()
        with CachedFileSystem(fs=fs, cache=shared).open(path) as file, fs.open(path) as plain:
            assert file.read(10) == plain.read(10)
            thing.put(content(2))
            assert file.read() == plain.read() == content(1)[10:]


def test_what_is_not_written_to_goes_on(tmp_path, shared):
    path = tmp_path / "log"
    path.write_bytes(content(1))
    cached = CachedFileSystem(target_protocol="file", cache=shared)
    with cached.open(str(path), block_size=PAGE) as file, cached.open(str(path), block_size=PAGE) as other:
        file.read(10)
        path.chmod(0o600)
        path.rename(tmp_path / "moved")
        assert file.read(10_000) == content(1)[10:10_010]
        (tmp_path / "moved").unlink()
        assert file.read() == content(1)[10_010:]
        assert other.read() == content(1)


def test_a_file_that_was_appended_to_is_opened_again(tmp_path, shared):
    path = tmp_path / "log"
    path.write_bytes(content(1))
    cached = CachedFileSystem(target_protocol="file", cache=shared)
    with cached.open(str(path), block_size=PAGE) as file:
        file.read(10)
        with path.open("ab") as log:
            log.write(b"more")
        # It may have been rewritten as well.
        with pytest.raises(OSError, match="replaced while it was open"):
            file.read()
    assert cached.cat_file(str(path)) == content(1) + b"more"


# --- readers side by side


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


# --- event loops


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


# --- faults


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


# --- paths


def test_every_method_takes_its_own_prefix(tmp_path, shared):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"some bytes")
    local = fsspec.filesystem("file")
    cached = CachedFileSystem(fs=local, cache=shared)
    path = f"{tmp_path}/d/x"
    of_file = (
        *(
            "info",
            "exists",
            "isfile",
            "isdir",
            "lexists",
            "size",
            "ukey",
            "checksum",
            "created",
            "modified",
            "cat",
        ),
        *("cat_file", "read_bytes", "read_text", "head", "tail", "find", "du", "expand_path"),
        *("unstrip_protocol", "stat", "disk_usage"),
    )
    calls = {
        **dict.fromkeys(of_file, (path,)),
        **dict.fromkeys(("ls", "glob", "listdir", "tree"), (f"{tmp_path}/d",)),
        "sizes": ([path, path],),
        "cat_ranges": ([path, path], 0, 4),
        "read_block": (path, 2, 3),
    }

    def prefixed(prefix, paths):
        return [prefix + each for each in paths] if isinstance(paths, list) else prefix + paths

    for name, (paths, *more) in calls.items():
        for behind in ("", "file://"):
            want = outcome(getattr(local, name), prefixed(behind, paths), *more)
            for prefix in ("specmm::", "specmm://", "specmm::specmm::"):
                own = prefixed(prefix + behind, paths)
                assert outcome(getattr(cached, name), own, *more) == want, (name, own)
    for n, prefix in enumerate(("specmm::", "specmm://")):
        cached.pipe_file(f"{prefix}{tmp_path}/{n}", b"1")
        cached.pipe({f"{prefix}{tmp_path}/{n}": b"12"})
        cached.copy(f"{prefix}{tmp_path}/{n}", f"{prefix}{tmp_path}/copy")
        cached.mv(f"{prefix}{tmp_path}/copy", f"{prefix}{tmp_path}/moved")
        cached.get(f"{prefix}{tmp_path}/moved", f"{tmp_path}/got")
        cached.put(f"{tmp_path}/got", f"{prefix}{tmp_path}/put")
        with cached.open(f"{prefix}{tmp_path}/w", "wb") as file:
            file.write(b"123")
        cached.touch(f"{prefix}{tmp_path}/t")
        cached.mkdir(f"{prefix}{tmp_path}/m")
        cached.rmdir(f"{prefix}{tmp_path}/m")
        assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
            ["d", *map(str, range(n + 1)), *("moved", "got", "put", "w", "t")]
        )
        for each in ("moved", "got", "put", "w", "t"):
            cached.rm(f"{prefix}{tmp_path}/{each}")
    assert next(iter(cached.walk(f"specmm::{tmp_path}/d")))[2] == ["x"]


def test_transactions_are_those_of_the_file_system(shared):
    memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    cached = CachedFileSystem(fs=memory, cache=shared)
    with cached.transaction:
        with cached.open("/later", "wb") as file:
            file.write(b"1")
        assert not cached.exists("/later")
    assert cached.cat("/later") == b"1"


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
