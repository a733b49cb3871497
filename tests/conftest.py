"""Settings and fixtures of the Python tests; a module says how large by CONTENT, PAGES, SIZE or CAPACITY."""

import os
import pathlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import builds
import specmm
from differential import program
from samples import CONTENT, numbered

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
# For each of many edits (`make mutants`).
settings.register_profile("brief", any_profile, max_examples=60, derandomize=True)
settings.register_profile("deep", any_profile, max_examples=5000, stateful_step_count=200)
settings.load_profile(os.environ.get("SPECMM_HYPOTHESIS", "dev"))


PACKAGE = pathlib.Path(specmm.__file__).parent


def pytest_report_header() -> str:
    return f"specmm: {builds.built(PACKAGE)[0]}, {PACKAGE}"


def pytest_sessionstart() -> None:
    stale = builds.stale(PACKAGE)
    if stale:
        pytest.exit(stale, returncode=1)


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
def path(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    """A file of CONTENT."""
    path = tmp_path / "data.bin"
    path.write_bytes(getattr(request.module, "CONTENT", CONTENT))
    return path


@pytest.fixture
def data(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    """A file of PAGES pages, each full of its number."""
    path = tmp_path / "data"
    path.write_bytes(numbered(getattr(request.module, "PAGES", 64)))
    return path


@pytest.fixture(scope="module")
def user_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A file of SIZE bytes, any ones."""
    path = tmp_path_factory.mktemp("user") / "data.bin"
    path.write_bytes(os.urandom(request.module.SIZE))
    return path


def audited(capacity: int | str, io: str) -> Iterator[specmm.PageCache]:
    with specmm.PageCache(capacity, io=io) as cache:
        yield cache
        if not cache.closed:
            cache.settle()
            cache.check()


@pytest.fixture(params=["threads", "inline"])
def cache(request: pytest.FixtureRequest) -> Iterator[specmm.PageCache]:
    """A cache of CAPACITY, audited in the end."""
    yield from audited(getattr(request.module, "CAPACITY", "1MiB"), request.param)


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[specmm.PageCache]:
    """One for all examples of a module, so that what is shared by mistake is found."""
    yield from audited(getattr(request.module, "CAPACITY", "1MiB"), "threads")


@pytest.fixture(params=["speculative", "mmap_lock"])
def mm(request: pytest.FixtureRequest, cache: specmm.PageCache) -> Iterator[specmm.mm.Mm]:
    """An address space, whose faults are each counted once."""
    with specmm.mm.Mm(cache, locking=request.param) as mm:
        assert mm.locking == request.param
        assert request.param in repr(mm)
        yield mm
        events = mm.vm_events()
    assert events["spf_attempt"] == events["spf_commit"] + events["spf_abort"]
    causes = [count for name, count in events.items() if name.startswith("spf_abort_")]
    assert events["spf_abort"] == sum(causes)
