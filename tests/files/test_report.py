"""Residency as a strip and counters by cause, in text and in notebooks."""

import itertools
import os
import time
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import specmm
from samples import PAGE, Store
from specmm import _core, _report
from specmm.cli import machine

STRIPS = st.binary(max_size=300).map(lambda drawn: bytes(byte & 1 for byte in drawn))


def parts(residency, count):
    """The sums over `count` parts of a strip of one byte a page."""
    pairs = itertools.pairwise(_report.bounds(len(residency), count))
    return _report.Residency(len(residency), [residency.count(1, start, end) for start, end in pairs])


@given(STRIPS, st.integers(1, 100))
def test_cells_are_equal_parts_that_add_up(residency, count):
    found = _report.cells(parts(residency, count))
    assert len(found) == min(count, len(residency))
    if found:
        lengths = [
            len(residency) * (at + 1) // len(found) - len(residency) * at // len(found)
            for at in range(len(found))
        ]
        assert max(lengths) - min(lengths) <= 1
        total = sum(share * length for share, length in zip(found, lengths, strict=True))
        assert total == pytest.approx(residency.count(1))


@given(STRIPS, st.integers(1, 100), st.booleans())
def test_a_cell_looks_empty_or_full_only_when_it_is(residency, count, ascii_only):
    drawn = _report.strip(parts(residency, count), ascii_only=ascii_only)
    empty, full = (".", "#") if ascii_only else ("·", "█")
    for mark, share in zip(drawn, _report.cells(parts(residency, count)), strict=True):
        assert (mark == empty) == (share == 0)
        assert (mark == full) == (share == 1)
    assert not ascii_only or drawn.isascii()


def test_fuller_cells_are_drawn_higher():
    drawn = [_report.strip(_report.Residency(20, [n])) for n in range(21)]
    assert drawn == sorted(drawn, key="·▁▂▃▄▅▆▇█".index)
    assert len(set(drawn)) == 9


def test_a_strip_without_cells_is_refused():
    with pytest.raises(ValueError, match="0"):
        _report.bounds(1, 0)


def test_a_file_of_any_length_has_a_strip():
    nothing = _report.Residency(0, [])
    assert _report.strip(nothing) == ""
    assert _report.share(nothing) is None
    assert _report.strip(_report.Residency(2, [1, 0])) == "█·"
    ElementTree.fromstring(_report.strip_html(nothing))


# --- notebooks


def test_a_file_shows_where_it_is_resident(cache, path):
    with cache.open(path) as file:
        file.pread(1, 0)
        cache.settle()
        shown = file._repr_html_()
        resident = file.residency()
    tree = ElementTree.fromstring(shown.replace("<br>", "<br/>"))
    assert f"{resident.count(1)} of {len(resident)} pages" in shown
    bars = [bar for bar in tree.iter("{http://www.w3.org/2000/svg}rect") if bar.get("fill") != "none"]
    assert len(bars) == resident.count(1)
    assert "closed" in file._repr_html_()


@given(st.sets(st.integers(0, 99)), st.integers(1, 120))
def test_sums_of_a_file_are_those_of_its_pages(touched, count):
    with (
        specmm.PageCache("1MiB", io="inline") as cache,
        cache.open_store(Store(lambda _offset, n: bytes(n)), 100 * PAGE - 7, ra_pages=0) as file,
    ):
        for page in touched:
            file.pread(1, page * PAGE)
        assert _core.resident_in(file, count) == tuple(parts(file.residency(), count))


def test_a_sparse_file_of_two_tebibytes_is_shown_in_milliseconds(cache, tmp_path):
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 2 << 40)
    with cache.open(path, ra_pages=0) as file:
        file.pread(1, 1 << 40)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            shown = file._repr_html_()
            took.append(time.perf_counter() - began)
    assert "1 of 536,870,912 pages" in shown
    assert min(took) < 0.05


def test_parts_out_of_range_are_refused(cache, path):
    with cache.open(path) as file:
        for count in (0, 65_537, 1 << 62):
            with pytest.raises(ValueError, match=str(count)):
                _core.resident_in(file, count)


def test_names_are_escaped(cache):
    store = Store(lambda _offset, n: bytes(n))
    with cache.open_store(store, 3 * PAGE, name="<script>") as file:
        assert "<script>" not in file._repr_html_()
        assert "&lt;script&gt;" in file._repr_html_()


def test_a_cache_and_its_stats_show_counters_that_moved(cache, path):
    with cache.open(path) as file:
        file.pread(1, 0)
        file.pread(1, 0)
    cache.settle()
    stats = cache.stats()
    for shown in (stats._repr_html_(), cache._repr_html_()):
        assert f'<td>hits</td><td style="text-align:right">{stats.hits}</td>' in shown
        assert "read_errors" not in shown
    ElementTree.fromstring(stats._repr_html_())
    assert f"{stats.frames_in_use:,} of {stats.capacity_frames:,} frames" in cache._repr_html_()
    cache.close()
    assert "closed" in cache._repr_html_()


# --- the kernel's own


def test_the_kernel_holds_what_was_just_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(10 * PAGE + 1))
    assert _core.kernel_residency(path) == b"\1" * 11
    assert _core.kernel_residency(path, 9) == b"\1\1"
    assert _core.kernel_residency(path, 3, 2) == b"\1\1"
    assert _core.kernel_residency(path, 11) == _core.kernel_residency(path, 1 << 40) == b""
    path.write_bytes(b"")
    assert _core.kernel_residency(path) == b""


def test_the_kernel_does_not_hold_what_it_was_told_to_drop(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(os.urandom(64 * PAGE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if machine.file_system(str(path)) in ("tmpfs", "ramfs"):
        assert _core.kernel_residency(path) == b"\1" * 64, "there is no other place for it"
        return
    assert _core.kernel_residency(path) == bytes(64)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 1, 7 * PAGE)
    found = _core.kernel_residency(path)
    assert found[7] == 1
    assert found.count(1) < 64


def test_a_file_that_cannot_be_opened_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        _core.kernel_residency(tmp_path / "none")
    assert caught.value.filename == str(tmp_path / "none")
    with pytest.raises(ValueError, match="-1"):
        _core.kernel_residency(tmp_path, -1)
