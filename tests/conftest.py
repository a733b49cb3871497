"""Settings shared by the Python tests."""

import os
import pathlib

import pytest
from hypothesis import HealthCheck, settings

import specmm
from samples import CONTENT

# Chosen by name alone: hypothesis has a profile of its own for `CI=true`, which would otherwise apply.
# No deadline: these examples do real input and output.
settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True, print_blob=True)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=5000,
    stateful_step_count=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("SPECMM_HYPOTHESIS", "dev"))


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=["threads", "inline"])
def cache(request):
    with specmm.PageCache("1MiB", io=request.param) as cache:
        yield cache
        if not cache.closed:
            cache.settle()
            cache.check()
