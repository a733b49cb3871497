"""What looks alike shares no page: values, file systems, archives, copies."""

import copy
import gc
import io
import os
import pathlib
import pickle

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.implementations.tar import TarFileSystem
from fsspec.implementations.zip import ZipFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from hypothesis import given
from hypothesis import strategies as st

from archives import tar_of, zip_of
from specmm._identity import Same, frozen, identity_of
from specmm.fsspec import CachedFileSystem
from versions import SIZE, content, examples

CAPACITY = "8MiB"


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
