"""A small object store behind fsspec's interface, which notes what is fetched from it."""

import hashlib
import random
import threading

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

CONTENT = random.Random(4).randbytes(40 * 4096 + 123)
OBJECTS: dict[str, bytes] = {}
FETCHED: list[tuple[str, int, int]] = []
FAILING: dict[str, Exception] = {}
_lock = threading.Lock()


class BucketFile(AbstractBufferedFile):
    """A file as remote file systems make them: its bytes come from `_fetch_range`, its cache is fsspec's."""

    DEFAULT_BLOCK_SIZE = 1 << 16


class PoorBucketFile(BucketFile):
    """A file that is told its size and knows nothing else of itself, as fsspec's HTTP files."""

    def __init__(self, fs, path, mode, **kwargs):
        self.details = {"name": path, "size": len(OBJECTS[path]), "type": "file"}
        super().__init__(fs, path, mode, **kwargs)


class Bucket(AbstractFileSystem):
    protocol = "bucket"

    def __init__(self, poor=False, **kwargs):
        super().__init__(**kwargs)
        self._file = PoorBucketFile if poor else BucketFile

    def info(self, path, **_):
        path = self._strip_protocol(path)
        if path not in OBJECTS:
            raise FileNotFoundError(path)
        data = OBJECTS[path]
        tag = hashlib.sha256(data).hexdigest()
        return {"name": path, "size": len(data), "type": "file", "ETag": f'"{tag}"'}

    def ls(self, path, detail=True, **_):
        found = [self.info(name) for name in sorted(OBJECTS) if name.startswith(path)]
        return found if detail else [info["name"] for info in found]

    def cat_file(self, path, start=None, end=None, **_):
        path = self._strip_protocol(path)
        data = OBJECTS[path]
        start, end, _step = slice(start, end).indices(len(data))
        with _lock:
            FETCHED.append((path, start, end))
        if path in FAILING:
            raise FAILING[path]
        return data[start:end]

    def pipe_file(self, path, value, mode="overwrite", **_):
        OBJECTS[self._strip_protocol(path)] = value

    def _open(self, path, mode="rb", **kwargs):
        if mode != "rb":
            raise NotImplementedError(mode)
        return self._file(self, path, mode, **kwargs)


def fetched(path: str) -> int:
    """Bytes fetched of an object."""
    return sum(end - start for name, start, end in FETCHED if name == path)
