"""Bad arguments, the bound, and the classes of errors: each message names the value."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

import specmm
from samples import CONTENT, PAGE

# --- classes


def test_classes_are_also_what_python_would_raise():
    assert issubclass(specmm.OutOfFramesError, MemoryError)
    assert issubclass(specmm.ClosedError, ValueError)
    for name in ["Bus", "Segmentation", "OutOfFrames", "Closed", "Invariant"]:
        assert issubclass(getattr(specmm, f"{name}Error"), specmm.SpecmmError)
    assert not issubclass(specmm.SpecmmError, OSError)


def test_bus_error_says_where():
    error = specmm.BusError(3, 12345, 8192)
    assert (error.index, error.offset, error.size) == (3, 12345, 8192)
    assert "12345" in str(error)
    assert "8192" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (specmm.BusError, str(error))


# --- arguments


@pytest.mark.parametrize(
    "capacity",
    [
        0,
        1,
        "0",
        "4095",
        "",
        " ",
        "garbage",
        "12 parsecs",
        "-1",
        -4096,
        "1.5GiB",
        "64mib",
        "0x1000",
        "MiB",
        1 << 70,
    ],
)
def test_capacity_that_is_none(capacity):
    with pytest.raises(ValueError, match="capacity") as raised:
        specmm.PageCache(capacity)
    assert str(capacity) in str(raised.value)


@pytest.mark.parametrize("capacity", [1.5, None, b"64MiB", [4096]])
def test_capacity_of_a_wrong_type(capacity):
    with pytest.raises(TypeError, match="capacity"):
        specmm.PageCache(capacity)


def test_words_that_are_none(cache, path):
    with pytest.raises(ValueError, match="sometimes"):
        specmm.PageCache("1MiB", io="sometimes")
    with pytest.raises(ValueError, match="fast"):
        cache.open(path, "fast")
    with cache.open(path) as file, specmm.mm.Mm(cache) as mm:
        with pytest.raises(ValueError, match="perhaps"):
            file.advise("perhaps")
        with pytest.raises(ValueError, match="hope"):
            specmm.mm.Mm(cache, locking="hope")
        with pytest.raises(ValueError, match="rwx"):
            mm.mmap(file, prot="rwx")
        address = mm.mmap(file)
        with pytest.raises(ValueError, match="perhaps"):
            mm.madvise(address, PAGE, "perhaps")
        with pytest.raises(ValueError, match="x"):
            mm.mprotect(address, PAGE, "x")


@pytest.mark.parametrize("fault_around", [0, 1, 4095, 5000, 3 * PAGE, "64", "5KiB", "lots", -1])
def test_fault_around_that_is_none(cache, fault_around):
    with pytest.raises(ValueError, match="fault_around") as raised:
        specmm.mm.Mm(cache, fault_around=fault_around)
    assert str(fault_around) in str(raised.value) or "5120" in str(raised.value)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda f: f.pread(-1, 0), "n must not be negative: -1"),
        (lambda f: f.pread(1, -2), "offset must not be negative: -2"),
        (lambda f: f.pread(1 << 80, 0), str(1 << 80)),
        (lambda f: f.pread(1, 1 << 50), str(1 << 50)),
        (lambda f: f.preadinto(bytearray(1), -3), "-3"),
        (lambda f: f.preadinto(bytearray(1), 1 << 50), str(1 << 50)),
        (lambda f: f.truncate(-4), "-4"),
        (lambda f: f.truncate(1 << 50), str(1 << 50)),
        (lambda f: f.advise("willneed", -5), "-5"),
        (lambda f: f.advise("willneed", 0, -6), "-6"),
        (lambda f: f.residency(-7), "-7"),
        (lambda f: f.residency(0, -8), "-8"),
        (lambda f: f.filemap_fault(-9), "-9"),
    ],
)
def test_numbers_of_a_file_out_of_range(cache, path, call, named):
    with cache.open(path, "r+b") as file:
        with pytest.raises(ValueError, match=named):
            call(file)
        assert file.pread(len(CONTENT), 0) == CONTENT


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f.pread("5", 0),
        lambda f: f.pread(1, 0.5),
        lambda f: f.pread(None, 0),
        lambda f: f.truncate("0"),
        lambda f: f.residency(count="1"),
        lambda f: f.preadinto(b"read-only", 0),
        lambda f: f.preadinto(memoryview(bytearray(10))[::2], 0),
        lambda f: f.preadinto("text", 0),
        lambda f: f.advise(3),
    ],
)
def test_arguments_of_a_file_of_a_wrong_type(cache, path, call):
    with cache.open(path, "r+b") as file:
        with pytest.raises((TypeError, BufferError)):
            call(file)
        assert file.size == len(CONTENT)


A = 0x10000  # where the first mapping of an address space lies


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda mm, f: mm.mmap(f, -1), -1),
        (lambda mm, f: mm.mmap(f, 0), 0),
        (lambda mm, f: mm.mmap(f, None, 3 * PAGE), 3 * PAGE),
        (lambda mm, f: mm.mmap(f, PAGE, 100), 100),
        (lambda mm, f: mm.mmap(f, PAGE, -PAGE), -PAGE),
        (lambda mm, f: mm.mmap(f, 1 << 50), 1 << 50),
        (lambda mm, f: mm.munmap(A + 1, PAGE), A + 1),
        (lambda mm, f: mm.munmap(A, 0), 0),
        (lambda mm, f: mm.munmap(A, -1), -1),
        (lambda mm, f: mm.munmap(1 << 30, PAGE), 1 << 30),
        (lambda mm, f: mm.mprotect(A + 100, PAGE, "r"), A + 100),
        (lambda mm, f: mm.mprotect(1 << 30, PAGE, "r"), 1 << 30),
        (lambda mm, f: mm.madvise(1 << 30, PAGE, "random"), 1 << 30),
        (lambda mm, f: mm.madvise(A + 8, PAGE, "random"), A + 8),
        (lambda mm, f: mm.load(A, -1), -1),
        (lambda mm, f: mm.load(-A, 1), -A),
        (lambda mm, f: mm.store(-A, b"x"), -A),
        (lambda mm, f: mm.touch(A, PAGE, stride=0), 0),
        (lambda mm, f: mm.touch(A, -PAGE), -PAGE),
        (lambda mm, f: mm.pagemap(A, -1), -1),
        (lambda mm, f: mm.fault(-1), -1),
    ],
)
def test_ranges_of_an_address_space_that_are_none(cache, path, call, value):
    with cache.open(path) as file, specmm.mm.Mm(cache) as mm:
        assert mm.mmap(file) == A
        with pytest.raises(ValueError, match=f"{value}|{value:#x}"):
            call(mm, file)
        assert mm.load(A, 10) == CONTENT[:10]


def test_only_a_file_of_the_cache_can_be_mapped(cache, path):
    with specmm.PageCache("1MiB") as other, other.open(path) as file, specmm.mm.Mm(cache) as mm:
        with pytest.raises(ValueError, match=r"data\.bin"):
            mm.mmap(file)
        with pytest.raises(TypeError):
            mm.mmap(str(path))


# --- the bound


def test_a_small_cache_serves_a_large_file(path):
    with specmm.PageCache(2 * PAGE) as cache, cache.open(path) as file, specmm.mm.Mm(cache) as mm:
        assert file.pread(len(CONTENT), 0) == CONTENT
        address = mm.mmap(file)
        assert mm.load(address, len(CONTENT)) == CONTENT
        assert cache.stats().frames_in_use <= 2
        mm.close()
        cache.check()


def test_a_cache_too_small_for_the_pins(path):
    with specmm.PageCache(2 * PAGE, frame_timeout=0) as cache, cache.open(path) as file:
        with file.pin(0, 8) as first, file.pin(PAGE, 8):
            with pytest.raises(specmm.OutOfFramesError, match="2 pinned"):
                file.pread(1, 2 * PAGE)
            with pytest.raises(MemoryError, match="2 frames"):
                file.pin(2 * PAGE, 1)
            with specmm.mm.Mm(cache) as mm:
                address = mm.mmap(file)
                assert mm.load(address, 8) == bytes(first)
                with pytest.raises(specmm.OutOfFramesError, match="2 pinned"):
                    mm.touch(address, 3 * PAGE)
                assert mm.fault(address + 2 * PAGE).result & specmm.mm.VmFault.OOM
        # Nothing is lost, and nothing is left.
        assert file.pread(len(CONTENT), 0) == CONTENT
        cache.check()


def test_a_request_that_no_memory_could_hold(cache, path):
    with cache.open(path) as file, specmm.mm.Mm(cache) as mm:
        assert file.pread(1 << 62, 1) == CONTENT[1:]
        address = mm.mmap(file, 1 << 40)
        with pytest.raises(specmm.BusError):
            mm.load(address, 1 << 40)
        with pytest.raises(specmm.BusError):
            mm.touch(address, 1 << 40)


@pytest.mark.parametrize("timeout", [1e18, 1e9])
def test_any_frame_timeout_can_be_waited_for(path, timeout):
    """Also one that ends later than the clock can tell."""
    with specmm.PageCache(PAGE, frame_timeout=timeout) as cache, cache.open(path) as file:
        pin = file.pin(0, 1)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(file.pread, 1, PAGE)
            while not cache.stats().frame_waits:
                pass
            pin.release()
            assert waiting.result() == CONTENT[PAGE : PAGE + 1]


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1"])
def test_no_frame_timeout(timeout):
    with pytest.raises((ValueError, TypeError), match="frame_timeout"):
        specmm.PageCache(PAGE, frame_timeout=timeout)
