"""What the tests of clients share."""

import pytest

import specmm


@pytest.fixture
def cache(request):
    """A cache that is audited in the end; a module may say how large."""
    with specmm.PageCache(getattr(request.module, "CAPACITY", "16MiB")) as cache:
        yield cache
        cache.settle()
        cache.check()
