"""Pinned pages: buffers without a copy, which nobody can change or take away."""

import gc
import os

import numpy as np
import pytest

import specmm
from samples import PAGE

CONTENT = bytes(range(1, 251)) * 132  # eight pages, and a bit


def test_a_pin_is_a_read_only_buffer(cache, path):
    with cache.open(path) as file:
        with file.pin(PAGE + 8, 100) as pin:
            assert (len(pin), pin.offset, pin.file, pin.released) == (100, PAGE + 8, file, False)
            assert bytes(pin) == CONTENT[PAGE + 8 :][:100]
            view = memoryview(pin)
            assert view.readonly
            assert (view.nbytes, view.format, view.ndim) == (100, "B", 1)
            with pytest.raises(TypeError):
                view[0] = 1
            view.release()
        assert pin.released
        pin.release()
        with pytest.raises(ValueError, match="released"):
            memoryview(pin)


def test_numpy_sees_the_frame_itself(cache, path):
    with cache.open(path) as file:
        pin = file.pin(0, PAGE)
        array, again = np.frombuffer(pin, "<u8"), np.frombuffer(file.pin(0, PAGE), "<u8")
        assert array.tobytes() == CONTENT[:PAGE]
        assert not array.flags.writeable
        # Two pins of one page are one page: nothing was copied.
        assert array.ctypes.data == again.ctypes.data
        assert cache.stats().pinned_frames == 1
        del array, again, pin
        gc.collect()
        assert cache.stats().pinned_frames == 0


def test_a_view_keeps_its_pin(cache, path):
    with cache.open(path) as file:
        pin = file.pin(0, 16)
        view = memoryview(pin)
        with pytest.raises(BufferError, match="1 view"):
            pin.release()
        with pytest.raises(BufferError):
            file.close()
        with pytest.raises(BufferError):
            cache.close()
        del pin
        gc.collect()
        assert bytes(view) == CONTENT[:16]
        assert cache.stats().pinned_frames == 1
        view.release()
        gc.collect()
        assert cache.stats().pinned_frames == 0


def test_bytes_stay_whatever_becomes_of_the_file(cache, path):
    with cache.open(path, "r+b") as file:
        pins = [file.pin(at * PAGE, PAGE) for at in range(3)]
        before = [bytes(pin) for pin in pins]
        file.truncate(PAGE + 10)
        file.truncate(3 * PAGE)
        assert file.pread(PAGE, PAGE) == CONTENT[PAGE : PAGE + 10] + bytes(PAGE - 10)
        path.write_bytes(b"x" * (3 * PAGE))
        assert file.revalidate() == 3 * PAGE
        assert file.pread(3, 0) == b"xxx"
        assert cache.drop_caches() >= 1
        cache.reclaim(1000)
        os.truncate(path, 0)
        file.revalidate()
        assert [bytes(pin) for pin in pins] == before
        for pin in pins:
            pin.release()
        cache.check()
        assert cache.stats().frames_in_use == 0


@pytest.mark.parametrize(
    ("offset", "length", "error", "said"),
    [
        (0, 0, ValueError, "a pin of 0 bytes"),
        (100, PAGE, ValueError, f"1 to {PAGE - 100} bytes"),
        (0, -1, ValueError, "-1"),
        (-1, 1, ValueError, "-1"),
        (1 << 50, 1, ValueError, str(1 << 50)),
        (0, "1", TypeError, "'1'"),
        (len(CONTENT) // PAGE * PAGE + PAGE, 1, specmm.BusError, "past the end"),
    ],
)
def test_what_cannot_be_pinned(cache, path, offset, length, error, said):
    with cache.open(path) as file:
        with pytest.raises(error, match=said):
            file.pin(offset, length)
        assert cache.stats().pinned_frames == 0


def test_many_pins_and_reads_share_a_small_cache(path):
    with specmm.PageCache(4 * PAGE, frame_timeout=0) as cache, cache.open(path) as file:
        pins = [file.pin(0, 8), file.pin(PAGE, 8), file.pin(2 * PAGE, 8)]
        # One frame is left, and serves all.
        assert file.pread(len(CONTENT), 0) == CONTENT
        assert cache.stats().evictions > 0
        pins.append(file.pin(len(CONTENT) - 1, 1))
        with pytest.raises(specmm.OutOfFramesError, match="4 pinned"):
            file.pread(1, 3 * PAGE)
        # What is pinned can be read.
        assert file.pread(2 * PAGE, 0) == CONTENT[: 2 * PAGE]
        for pin in pins:
            pin.release()
