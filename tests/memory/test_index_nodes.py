"""What the index of a file takes does not grow with what was read through it."""

import pytest

import specmm
from samples import PAGE, Store

PAGES = 4096
CAPACITY = 64


@pytest.mark.parametrize("io", ["threads", "inline"])
def test_nodes_of_evicted_pages_are_freed(io):
    store = Store(lambda _offset, n: bytes(n))
    with specmm.PageCache(CAPACITY * PAGE, io=io) as cache:
        file = cache.open_store(store, PAGES * PAGE)
        for _ in range(20):
            for index in range(0, PAGES, 8):
                file.pread(1, index * PAGE)
        cache.settle()
        stats = cache.stats()
    assert stats.evictions > 10 * PAGES / 8
    # Each frame and each shadow needs three nodes at most; some hundred may wait for a grace period.
    assert stats.xarray_nodes < 3 * 2 * CAPACITY + 512
