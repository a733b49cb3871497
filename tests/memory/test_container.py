"""What a memory cgroup charges for reading a file: the statements of docs/in-a-container.md."""

import json
import sys
from pathlib import Path

import pytest

from programs import python
from samples import ROOT

sys.path.insert(0, str(ROOT / "benches" / "python"))

import cgroup
import container

MIB = 1 << 20
# Buffers, tables, and what the kernel counts for each processor before it adds it up.
SLACK = 6 * MIB


@pytest.fixture(scope="module")
def found():
    done = python(container.__file__, "--json", timeout=300)
    if done.returncode == container.UNAVAILABLE:
        pytest.skip(f"there is no cgroup to be charged: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def about(value, expected):
    return expected - SLACK <= value <= expected + SLACK


def test_a_mapping_is_charged_its_pages_as_the_kernels_cache_and_as_mapped(found):
    charge, size = found["charges"]["mmap"], found["size"]
    assert about(charge["charged"], size)
    assert about(charge["file"], size)
    assert about(charge["mapped"], size)
    assert about(charge["anonymous"], 0)


def test_reads_are_charged_what_the_kernel_caches_of_them(found):
    charge, size = found["charges"]["os.pread"], found["size"]
    assert about(charge["charged"], size)
    assert about(charge["file"], size)
    assert about(charge["mapped"], 0)
    assert about(charge["anonymous"], 0)


def test_specmm_is_charged_its_capacity_on_top_of_what_the_kernel_caches(found):
    charge, size, bound = found["charges"]["specmm"], found["size"], found["bound"]
    assert about(charge["charged"], size + bound)
    assert about(charge["file"], size)
    assert about(charge["mapped"], 0)
    assert about(charge["anonymous"], bound)


def test_where_the_kernels_copy_is_dropped_only_the_capacity_stays(found):
    charge, bound = found["charges"]["specmm, kernel's copy dropped"], found["bound"]
    assert about(charge["anonymous"], bound)
    assert charge["file"] <= 8 * MIB + SLACK
    assert about(charge["working_set"], bound)


def test_under_a_limit_only_a_capacity_beyond_it_is_killed(found):
    assert found["bound"] < found["limit"] < found["size"]
    under = found["under_limit"]
    assert {way for way, end in under.items() if end == "reads everything"} == set(container.WAYS)
    assert under["specmm, capacity over the limit"] == "killed"


def leave(fails):
    if fails:
        raise LookupError


@pytest.mark.parametrize("fails", [False, True])
def test_a_group_goes_with_its_block_and_its_process_before(fails, tmp_path):
    (tmp_path / "data").write_bytes(bytes(4096))
    try:
        with cgroup.Group() as group, container.reader(group, "os.pread", tmp_path / "data", MIB) as process:
            assert process.stdout.readline() == "ready\n"
            assert (group.path / "cgroup.procs").read_text().split() == [str(process.pid)]
            leave(fails)
    except cgroup.UnavailableError as error:
        pytest.skip(str(error))
    except LookupError:
        assert fails
    assert process.returncode == -9
    assert not group.path.exists()


# --- where groups are found, in trees as machines have them


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Files of /proc and a hierarchy that stand for a machine's."""
    proc = {}

    def make(own, mounts, groups):
        for group, control in groups.items():
            (tmp_path / group).mkdir(parents=True, exist_ok=True)
            (tmp_path / group / "cgroup.subtree_control").write_text(control)
        proc["/proc/self/cgroup"] = own
        proc["/proc/self/mountinfo"] = "".join(
            f"30 24 0:26 {root} {tmp_path / point} rw - {kind} cgroup rw,{options}\n"
            for root, point, kind, options in mounts
        )
        return tmp_path

    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *more: proc[str(path)] if str(path) in proc else read(path, *more)
    )
    return make


def test_a_group_of_version_1_is_made_below_ones_own(tree):
    root = tree(
        "4:memory:/a/b\n0::/\n",
        [("/", "memory", "cgroup", "memory"), ("/", "unified", "cgroup2", "nsdelegate")],
        {"memory/a/b": "", "unified": "cpu"},
    )
    assert cgroup._parent() == (1, root / "memory" / "a" / "b")


def test_a_container_sees_its_own_group_as_the_root(tree):
    root = tree("4:memory:/docker/x\n", [("/docker/x", "memory", "cgroup", "memory")], {"memory": ""})
    assert cgroup._parent() == (1, root / "memory")


def test_a_group_of_version_2_is_made_where_the_controller_is_handed_on(tree):
    root = tree(
        "0::/user/me/session\n",
        [("/", "cgroup", "cgroup2", "")],
        {
            "cgroup": "cpu memory",
            "cgroup/user": "memory",
            "cgroup/user/me": "cpu",
            "cgroup/user/me/session": "",
        },
    )
    assert cgroup._parent() == (2, root / "cgroup" / "user")


def test_without_a_controller_the_reason_is_said(tree):
    tree("0::/\n", [("/", "cgroup", "cgroup2", "")], {"cgroup": "cpu"})
    with pytest.raises(cgroup.UnavailableError, match=r"no group from .*/cgroup upwards hands on the memory"):
        cgroup._parent()
    tree("3:cpu:/\n", [("/", "cpu", "cgroup", "cpu")], {})
    with pytest.raises(cgroup.UnavailableError, match="no memory controller is mounted"):
        cgroup._parent()


@pytest.mark.parametrize("version", [1, 2])
def test_figures_are_read_from_either_version(tmp_path, version):
    names = {1: ("rss", "cache", "mapped_file"), 2: ("anon", "file", "file_mapped")}[version]
    stat = dict(zip((*names, "inactive_file"), (10, 20, 5, 7), strict=True))
    (tmp_path / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))
    (tmp_path / {1: "memory.usage_in_bytes", 2: "memory.current"}[version]).write_text("40\n")
    group = cgroup.Group.__new__(cgroup.Group)
    group.version, group.path = version, tmp_path
    expected = {"charged": 40, "anonymous": 10, "file": 20, "mapped": 5, "working_set": 33}
    assert group.charged() == expected
    limit = {1: "memory.limit_in_bytes", 2: "memory.max"}[version]
    (tmp_path / {1: "memory.memsw.limit_in_bytes", 2: "memory.swap.max"}[version]).touch()
    group.limit(4096)
    assert (tmp_path / limit).read_text() == "4096"
    swap = {1: ("memory.memsw.limit_in_bytes", "4096"), 2: ("memory.swap.max", "0")}[version]
    assert (tmp_path / swap[0]).read_text() == swap[1]
