"""The package in a process of its own: its one cache, exit, Ctrl-C."""

import os

import pytest

from programs import interrupted, run


def test_elsewhere_one_sentence_says_so():
    code = """
import sys
sys.platform = "darwin"
try:
    import specmm
except ImportError as error:
    print(error)
"""
    assert run(code) == "specmm runs on Linux only\n"


# --- the process-wide cache


def test_process_wide_cache(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(100))
    code = """
import sys, specmm
specmm.configure(capacity="1MiB")
specmm.configure(capacity="2MiB")
file = specmm.open(sys.argv[1])
with specmm.open(sys.argv[1], "r+b") as other:
    assert other.mode == "r+b"
specmm.configure(capacity=2 << 20)
try:
    specmm.configure(capacity="3MiB")
except specmm.SpecmmError as error:
    assert "3MiB" in str(error)
else:
    raise AssertionError
with specmm.open(sys.argv[1], ra_pages=7) as other:
    assert other.readahead_state.ra_pages == 7
print(len(file.pread(10, 0)))
"""
    assert run(code, path) == "10\n"


def test_exit_closes_what_is_open():
    # Readahead through a slow store written in Python is still in flight when the interpreter exits.
    code = """
import time, specmm
class Slow:
    def read_at(self, offset, n):
        time.sleep(0.02)
        return bytes(n)
cache = specmm.PageCache("4MiB")
file = cache.open_store(Slow(), 1 << 20)
mm = specmm.mm.Mm(cache)
address = mm.mmap(file)
mm.load(address, 1)
for page in range(8):
    file.pread(4096, page * 4096)
print("read")
"""
    assert run(code) == "read\n"


# --- Ctrl-C


def test_ctrl_c_ends_a_long_touch(tmp_path):
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 32 << 20)
    code = """
import sys, time, specmm
cache = specmm.PageCache("64MiB")
file = cache.open(sys.argv[1])
mm = specmm.mm.Mm(cache)
address = mm.mmap(file)
for _ in range(255):
    mm.mmap(file)  # right behind
mm.touch(address, file.size)
start = time.monotonic()
try:
    print("ready", flush=True)
    mm.touch(address, 256 * file.size, stride=1)  # minutes
except KeyboardInterrupt:
    assert time.monotonic() - start < 10
    print("interrupted")
assert mm.load(address, 1) == bytes(1)
cache.settle()
cache.check()
"""
    interrupted(code, path)


@pytest.mark.parametrize("io", ["threads", "inline"])
def test_ctrl_c_in_a_store_is_not_taken_for_an_error(io):
    code = """
import sys, time, specmm
class Slow:
    def read_at(self, offset, n):
        time.sleep(0.001)
        return bytes(n)
cache = specmm.PageCache("64MiB", io=sys.argv[1])
file = cache.open_store(Slow(), 48 << 20, ra_pages=0)
mm = specmm.mm.Mm(cache)
address = mm.mmap(file)
mm.load(address, 1)
try:
    print("ready", flush=True)
    mm.touch(address, file.size)
except KeyboardInterrupt:
    print("interrupted")
assert mm.load(address, 1) == bytes(1)
cache.settle()
cache.check()
"""
    interrupted(code, io)


def test_ctrl_c_ends_the_wait_for_a_frame():
    code = """
import specmm
class Zeros:
    def read_at(self, offset, n):
        return bytes(n)
cache = specmm.PageCache(4096, frame_timeout=3600)
file = cache.open_store(Zeros(), 1 << 20)
with file.pin(0, 1):
    try:
        print("ready", flush=True)
        file.pread(1, 8192)
    except KeyboardInterrupt:
        print("interrupted")
assert file.pread(1, 8192) == bytes(1)
cache.check()
"""
    interrupted(code)
