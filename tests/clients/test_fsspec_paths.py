"""Paths behind specmm's prefixes, in every method, and transactions."""

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from specmm.fsspec import CachedFileSystem


def outcome(call, *arguments):
    try:
        return call(*arguments)
    except Exception as error:
        return type(error)


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
