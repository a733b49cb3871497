"""Options of file systems and of opening: they tell objects apart, or are refused."""

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import specmm.fsspec
from specmm.fsspec import CachedFileSystem
from versions import PAGE, SIZE, Changing, Versioned, content, examples

CAPACITY = "8MiB"


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
    with pytest.raises(TypeError, match="an fsspec file system"):
        CachedFileSystem(fs="memory")


def test_asynchronous_ones_are_refused():
    for options in ({"asynchronous": True}, {"target_options": {"asynchronous": True}}):
        with pytest.raises(ValueError, match="asynchronous"):
            CachedFileSystem(target_protocol="http", **options)
    assert CachedFileSystem(target_protocol="memory", asynchronous=False).fs.protocol == "memory"
