"""What a file system gives behind specmm is what it gives by itself: drawn ranges, reads, directories."""

import functools
import gc
import io
import random
import threading
import zipfile

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.implementations.tar import TarFileSystem
from fsspec.implementations.zip import ZipFileSystem
from hypothesis import given
from hypothesis import strategies as st

import bucket
import specmm
import specmm.fsspec
import web
from archives import tarred, zipped
from bucket import Bucket
from specmm.fsspec import CachedFileSystem
from versions import examples

PAGE = specmm.PAGE_SIZE
# By size, as ranges are drawn about the ends.
DRAW = random.Random(10)
CONTENTS = {
    str(size): bytes(DRAW.choices(b"abc\n", k=size)) for size in (0, 1, 10, PAGE, PAGE + 1, 20 * PAGE + 77)
}
CAPACITY = SMALL = 1 << 20


@pytest.fixture(scope="module")
def server():
    with web.serving() as server:
        for name, data in CONTENTS.items():
            for manner, manners in web.MANNERS.items():
                path = f"/{manner}/{name}".replace(" ", "_").replace(",", "")
                server.holds[path], server.manners[path] = data, manners
        yield server


@pytest.fixture(scope="module")
def systems(tmp_path_factory, server):
    """Each file system, and the path of each content in it."""
    root = tmp_path_factory.mktemp("same")
    memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    members = {f"in/{name}": data for name, data in CONTENTS.items()}
    (root / "in").mkdir()
    for name, data in CONTENTS.items():
        (root / "in" / name).write_bytes(data)
        memory.pipe_file(f"/in/{name}", data)
    (root / "a.zip").write_bytes(zipped(members).getvalue())
    (root / "a.tar").write_bytes(tarred(members).getvalue())
    outer = ZipFileSystem(zipped({"inner.tar": tarred(members).getvalue()}))
    local = fsspec.filesystem("file")
    http = fsspec.filesystem("http")
    members = {name: f"in/{name}" for name in CONTENTS}
    made = {
        "memory": (memory, {name: f"/in/{name}" for name in CONTENTS}),
        "local": (local, {name: f"{root}/in/{name}" for name in CONTENTS}),
        "dir of local": (DirFileSystem(str(root), local), members),
        "dir of memory": (DirFileSystem("/in", memory), {name: name for name in CONTENTS}),
        "zip": (ZipFileSystem(f"file://{root}/a.zip"), members),
        "deflated": (
            ZipFileSystem(
                zipped(
                    {**dict.fromkeys(["x"], b"")} | {f"in/{name}": data for name, data in CONTENTS.items()},
                    zipfile.ZIP_DEFLATED,
                )
            ),
            members,
        ),
        "tar": (TarFileSystem(f"{root}/a.tar"), members),
        "tar of memory": (TarFileSystem(tarred({f"in/{n}": d for n, d in CONTENTS.items()})), members),
        "tar in zip": (TarFileSystem(outer.open("inner.tar")), members),
        "http": (http, {name: f"{server.url}/ranges/{name}" for name in CONTENTS if name != "0"}),
        "http without tags": (http, {n: f"{server.url}/no_tags/{n}" for n in CONTENTS if n != "0"}),
    }
    yield made
    outer.close()


NAMES = (
    *("memory", "local", "dir of local", "dir of memory", "zip", "deflated", "tar", "tar of memory"),
    *("tar in zip", "http", "http without tags"),
)


def outcome(call):
    """What a call gives: its value, or that it raises."""
    try:
        return call()
    except Exception as error:
        return "raises", type(error) if isinstance(error, OSError) and error.errno else "an error"


def drawn_place(size):
    near = st.sampled_from([0, 1, size // 2, size, PAGE, 2 * PAGE]).flatmap(
        lambda at: st.integers(at - 3, at + 3)
    )
    return st.one_of(st.none(), near, near.map(lambda at: -at), st.integers(-2 * size - 3, 2 * size + 3))


@st.composite
def ranges(draw):
    name = draw(st.sampled_from(sorted(CONTENTS)))
    place = drawn_place(len(CONTENTS[name]))
    return name, draw(place), draw(place)


# --- ranges


@pytest.mark.parametrize("system", NAMES)
def test_every_range(systems, shared, system):
    fs, paths = systems[system]
    cached = CachedFileSystem(fs=fs, cache=shared)

    @examples(0.3, system)
    @given(ranges())
    def check(drawn):
        name, start, end = drawn
        if name not in paths:
            return
        path = paths[name]
        plain = outcome(lambda: fs.cat_file(path, start, end))
        assert outcome(lambda: cached.cat_file(path, start, end)) == plain, (start, end)
        both = [
            cached.cat_ranges([path, path], [start, 0], [end, 3]),
            fs.cat_ranges([path, path], [start, 0], [end, 3]),
        ]
        ours, theirs = ([part if isinstance(part, bytes) else type(part) for part in parts] for parts in both)
        assert ours == theirs, (start, end)

    check()


@pytest.mark.parametrize("system", NAMES)
def test_blocks_heads_and_tails(systems, shared, system):
    fs, paths = systems[system]
    cached = CachedFileSystem(fs=fs, cache=shared)
    number = st.integers(0, 3 * PAGE)

    @examples(0.1, system)
    @given(st.sampled_from(sorted(paths)), number, number, st.sampled_from([None, b"\n", b"ab"]))
    def check(name, offset, length, delimiter):
        path = paths[name]
        for call in (
            lambda fs: fs.read_block(path, offset, length, delimiter),
            lambda fs: fs.head(path, offset),
            lambda fs: fs.tail(path, offset),
            lambda fs: fs.cat(path),
            lambda fs: fs.cat([path, path]),
            lambda fs: fs.read_text(path, encoding="latin-1"),
        ):
            assert outcome(lambda call=call: call(cached)) == outcome(lambda call=call: call(fs))

    check()


# --- files


def step(size):
    length = st.one_of(st.integers(-1, 3 * PAGE), st.just(None))
    return st.one_of(
        st.tuples(st.just("read"), length),
        st.tuples(st.just("read"), st.integers(-5, -2)),
        st.tuples(st.just("seek"), st.integers(-size - 5, size + PAGE), st.integers(0, 3)),
        st.tuples(st.just("tell")),
        st.tuples(st.just("readline")),
        st.tuples(st.just("readlines")),
        st.tuples(st.just("readinto"), st.integers(0, 2 * PAGE)),
    )


def taken(file, step):
    match step:
        case ["readinto", length]:
            out = bytearray(length)
            n = file.readinto(out)
            return n, bytes(out[:n])
        case [name, *arguments]:
            return getattr(file, name)(*arguments)
    return None


@pytest.mark.parametrize("system", NAMES)
def test_every_read_of_a_file(systems, shared, system):
    fs, paths = systems[system]
    cached = CachedFileSystem(fs=fs, cache=shared)

    @examples(0.2, system)
    @given(st.data(), st.sampled_from(sorted(paths)), st.sampled_from([None, 1, PAGE, 10 * PAGE]))
    def check(data, name, block_size):
        size = len(CONTENTS[name])
        # HTTP reads from another place what it has read whole.
        plain = io.BytesIO(CONTENTS[name]) if "http" in system else fs.open(paths[name])
        with plain, cached.open(paths[name], block_size=block_size) as file:
            for taking in data.draw(st.lists(step(size), max_size=12)):
                theirs = outcome(lambda taking=taking: taken(plain, taking))
                ours = outcome(lambda taking=taking: taken(file, taking))
                if isinstance(theirs, tuple) and theirs[0] == "raises":
                    assert isinstance(ours, tuple), taking
                    assert ours[0] == "raises", taking
                elif taking[0] == "seek" and "http" in system and theirs == 0:
                    # BytesIO stays at the start; fsspec's files raise.
                    assert ours == 0 or ours[0] == "raises"
                elif taking[:2] != ("read", -1) and taking[0] == "read" and (taking[1] or 0) < -1:
                    assert ours == theirs or "http" in system
                else:
                    assert ours == theirs, taking
                place = min(plain.tell(), 10**9)
                assert outcome(lambda place=place: file.seek(place)) == place
                plain.seek(place)

    check()


@pytest.mark.parametrize("system", ["http", "bucket"])
def test_every_read_through_the_cache_type(systems, shared, system):
    fs, paths = systems["http"] if system == "http" else (Bucket(), {name: name for name in CONTENTS})
    bucket.OBJECTS.update(CONTENTS)

    @examples(0.3, system)
    @given(st.data(), st.sampled_from(sorted(paths)), st.sampled_from([None, 1, PAGE, 10 * PAGE]))
    def check(data, name, block_size):
        options = {"cache_type": "specmm", "cache_options": {"cache": shared}, "block_size": block_size}
        with fs.open(paths[name]) as plain, fs.open(paths[name], **options) as file:
            for taking in data.draw(st.lists(step(len(CONTENTS[name])), max_size=12)):
                theirs, ours = (
                    outcome(lambda t=taking: taken(plain, t)),
                    outcome(lambda t=taking: taken(file, t)),
                )
                assert ours == theirs, taking
                assert file.tell() == plain.tell()

    check()


@pytest.mark.parametrize("manner", ["no ranges", "refuses ranges", "no size", "no size, ranges", "gzip"])
def test_servers_that_serve_no_ranges(server, shared, manner):
    cached = CachedFileSystem(target_protocol="http", cache=shared)
    folder = f"{server.url}/{manner}".replace(" ", "_").replace(",", "")

    @examples(0.1)
    @given(ranges(), st.lists(ranges(), max_size=3))
    def check(drawn, more):
        name, start, end = drawn
        data, path = CONTENTS[name], f"{folder}/{name}"
        first, last, _ = slice(start, end).indices(len(data))
        if first < last and min(start or 0, end or 0) >= -len(data):
            assert cached.cat_file(path, start, end) == data[start:end]
        server.gets.clear()
        with cached.open(path) as file:
            assert file.size == len(data)
            for _, place, _ in more:
                file.seek(abs(place or 0))
                assert file.read(100) == data[abs(place or 0) :][:100]
            file.seek(0)
            assert file.read() == data
        # Whole once: beside ranges that were not served, or a GET by which fsspec asks for the size.
        whole = [path for path, span in server.gets if span is None]
        assert len(whole) <= (1 if manner in ("no ranges", "refuses ranges") else 2), server.gets
        # Of the windows that were asked for at once each is refused.
        assert len(server.gets) - len(whole) <= 4, server.gets
        with specmm.fsspec.open(path, cache=shared) as file:
            assert file.pread(len(data), 0) == data

    check()


@pytest.mark.parametrize("manner", ["no ranges", "refuses ranges", "no size", "gzip"])
def test_what_is_too_large_to_be_read_whole_says_what_to_do(server, manner):
    path = f"/large/{manner}".replace(" ", "_")
    server.holds[path], server.manners[path] = bytes(SMALL // 4 + 1), web.MANNERS[manner]
    with specmm.PageCache(SMALL) as cache:
        cached = CachedFileSystem(target_protocol="http", cache=cache)
        with (
            pytest.raises(OSError, match=r"quarter of the cache.*get\(\)"),
            cached.open(server.url + path) as file,
        ):
            file.read()
        with specmm.PageCache(2 * SMALL) as larger:
            cached = CachedFileSystem(target_protocol="http", cache=larger)
            assert cached.cat_file(server.url + path) == server.holds[path]


@pytest.mark.filterwarnings("ignore:unclosed file.*blocks:ResourceWarning")  # fsspec's own
@pytest.mark.parametrize("kind", ["blockcache", "simplecache", "filecache"])
def test_files_kept_on_disk_behind(server, tmp_path, shared, kind):
    fs = fsspec.filesystem(kind, target_protocol="http", cache_storage=str(tmp_path / "blocks"))
    cached = CachedFileSystem(fs=fs, cache=shared)
    data = CONTENTS[str(20 * PAGE + 77)]
    url = f"{server.url}/ranges/{len(data)}"
    # Alone: several threads would find a copy that fsspec is still writing.
    assert cached.cat_file(url, 5, 10_000) == data[5:10_000]
    wrong: list = []

    def read(seed):
        draw = random.Random(seed)
        with CachedFileSystem(fs=fs, cache=shared).open(url) as file:
            for _ in range(30):
                place = draw.randrange(len(data))
                file.seek(place)
                if file.read(5000) != data[place : place + 5000]:
                    wrong.append(place)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert any((tmp_path / "blocks").iterdir()), "its own files were used"
    del cached
    gc.collect()


# --- directories


def trees():
    name = st.sampled_from(["a", "b", "c.txt", "d[0]", "e"])
    path = st.lists(name, min_size=1, max_size=3).map("/".join)
    return st.dictionaries(path, st.binary(max_size=5), min_size=1, max_size=6).filter(
        lambda tree: not any(one != two and two.startswith(one + "/") for one in tree for two in tree)
    )


def made(kind, root, tree):
    if kind == "zip":
        return ZipFileSystem(zipped(tree)), ""
    if kind == "tar":
        return TarFileSystem(tarred(tree)), ""
    if kind == "bucket":
        return Bucket(), ""
    fs = (
        fsspec.filesystem("file")
        if "local" in kind
        else MemoryFileSystem(global_store=False, skip_instance_cache=True)
    )
    for name, data in tree.items():
        fs.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(f"{root}/{name}", data)
    return (DirFileSystem(root, fs), "") if "dir" in kind else (fs, f"{root}/")


@pytest.mark.parametrize("kind", ["memory", "local", "dir of memory", "dir of local", "zip", "tar"])
def test_directories(tmp_path_factory, shared, kind):
    @examples(0.1)
    @given(trees(), st.data())
    def check(tree, data):
        root = str(tmp_path_factory.mktemp("tree")) if "local" in kind else "/root"
        fs, prefix = made(kind, root, tree)
        cached = CachedFileSystem(fs=fs, cache=shared)
        known = sorted({part for name in tree for part in (name, name.rsplit("/", 1)[0], name.split("/")[0])})
        for _ in range(3):
            path = prefix + data.draw(st.sampled_from([*known, "none", "a/none", ""]))
            own = data.draw(st.sampled_from(["", "specmm::", "specmm://"])) + path
            for call in (
                lambda fs, path: fs.ls(path),
                lambda fs, path: fs.ls(path, detail=False),
                lambda fs, path: fs.find(path),
                lambda fs, path: fs.find(path, withdirs=True, detail=True),
                lambda fs, path: fs.glob(path + "/*"),
                lambda fs, path: fs.info(path),
                lambda fs, path: (fs.isdir(path), fs.isfile(path), fs.exists(path), fs.lexists(path)),
                lambda fs, path: list(fs.walk(path)),
                lambda fs, path: fs.du(path),
                lambda fs, path: fs.expand_path(path, recursive=True),
                lambda fs, path: fs.cat(path, recursive=True),
                lambda fs, path: fs.open(path).read(),
                lambda fs, path: fs.cat_file(path),
                lambda fs, path: fs._strip_protocol(path),
                lambda fs, path: fs._parent(path),
                lambda fs, path: sorted(fs.get_mapper(path)),
            ):
                theirs = outcome(functools.partial(call, fs, path))
                ours = outcome(functools.partial(call, cached, own))
                if ours != theirs and isinstance(theirs, tuple) and theirs[:1] == ("raises",):
                    assert ours[0] == "raises"
                else:
                    assert ours == theirs, own

    check()
