"""File systems of objects of known content, in several versions."""

import io
import random
from typing import ClassVar

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from hypothesis import settings

import specmm

PAGE = specmm.PAGE_SIZE
SIZE = 30 * PAGE + 5


def content(seed, size=SIZE):
    return random.Random(seed).randbytes(size)


def examples(share, system=""):
    """A share of the profile's examples, fewer where each takes requests."""
    return settings(max_examples=int(settings().max_examples * share * (0.3 if "http" in system else 1)) or 1)


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


class Changing(Versioned):
    protocol = "changing"

    def info(self, path, **_):
        data = self.objects[path, None]
        return {"name": path, "type": "file", "size": len(data), "mtime": hash(data)}
