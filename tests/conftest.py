"""Settings shared by the Python tests."""

import os
import pathlib

import pytest
from hypothesis import HealthCheck, settings

import specmm
from differential import program
from samples import CONTENT

# No deadline: these examples do real input and output. What a busy machine or an unlucky draw makes slow or
# large has not failed.
settings.register_profile(
    "any",
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ],
)
any_profile = settings.get_profile("any")
# Chosen by name alone: hypothesis has a profile of its own for `CI=true`, which would otherwise apply.
settings.register_profile("dev", any_profile, max_examples=100)
settings.register_profile("ci", any_profile, max_examples=200, derandomize=True, print_blob=True)
settings.register_profile("deep", any_profile, max_examples=5000, stateful_step_count=200)
settings.load_profile(os.environ.get("SPECMM_HYPOTHESIS", "dev"))


def pytest_configure(config: pytest.Config) -> None:
    """What a differential machine found is seen at once, also if the run does not live to report it."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        return

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            program.on_stderr(text)

    program.say = say


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
