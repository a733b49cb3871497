"""What is replaced while it is open is read in one version, or is an error."""

import os

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import specmm.fsspec
from archives import tar_of, zip_of
from specmm.fsspec import CachedFileSystem
from versions import PAGE, SIZE, Changing, Versioned, content, examples

CAPACITY = "8MiB"


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
