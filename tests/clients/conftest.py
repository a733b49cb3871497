"""What the tests of clients share beyond tests/conftest.py."""

import fsspec
import pytest

import bucket
import specmm
import web
from bucket import CONTENT, Bucket
from specmm import _remote


@pytest.fixture
def cache(request):
    """A cache that is audited in the end; a module may say how large."""
    with specmm.PageCache(getattr(request.module, "CAPACITY", "16MiB")) as cache:
        yield cache
        cache.settle()
        cache.check()


@pytest.fixture(scope="module")
def server():
    with web.serving() as server:
        yield server


@pytest.fixture
def objects():
    """What the bucket holds, new for each test."""
    for noted in (bucket.OBJECTS, bucket.FETCHED, bucket.FAILING):
        noted.clear()
    bucket.OBJECTS["a/data"] = CONTENT
    _remote._objects.clear()
    yield bucket.OBJECTS
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def fs(objects):
    """The bucket, which holds `a/data`."""
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    return Bucket()
