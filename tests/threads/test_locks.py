"""Nothing of ours is locked where Python code can run: no finalizer or signal handler waits for itself."""

import re
import tomllib
from pathlib import Path

import pytest

from programs import python, run
from samples import ROOT

HERE = Path(__file__).parent

# What refuses to be entered twice, or is waited for. `Imported`, `PerProcess` and the like are made of these.
RUST = r"(?:Py)?(?:Mutex|RwLock|Condvar|OnceLock|OnceCell|RefCell|LazyLock|LazyCell|Once|Barrier)"
PYTHON = (
    r"with \S*lock\b|(?:R?Lock|Condition|\w*Semaphore|Event|Barrier|local|allocate_lock|\w*Queue)\(\)"
    r"|functools\.(?:cached_property|lru_cache|cache)\b|\.acquire\("
)


def rust_locks(path):
    text = re.sub(r"//.*", "", path.read_text())
    text = re.sub(r"^use [^;]*;", "", text, flags=re.MULTILINE)
    for name, kind in re.findall(rf"(\w+): (?:\w+<)*({RUST})\b(?!::)", text):
        yield f"{name}: {kind}"
    if interned := text.count("intern!("):
        yield f"{interned} * intern!"


def python_locks(path):
    text = re.sub(r"#.*", "", path.read_text())
    yield from re.findall(PYTHON, text)


def found(folder, pattern, locks):
    return {
        f"{path.relative_to(ROOT)} {lock}" for path in (ROOT / folder).rglob(pattern) for lock in locks(path)
    }


def test_every_lock_is_on_the_list_with_its_reason():
    listed = tomllib.loads((HERE / "locks.toml").read_text())
    assert found("rust/py", "*.rs", rust_locks) == set(listed["rust"])
    assert found("python", "*.py", python_locks) == set(listed["python"])


@pytest.mark.parametrize(
    "line", ["static A: Mutex<u8> = x;", "    b: Arc<RwLock<u8>>,", "c: PyOnceLock<Py<PyAny>>,"]
)
def test_a_lock_that_is_not_on_the_list_is_found(tmp_path, line):
    path = tmp_path / "new.rs"
    path.write_text("use std::sync::Mutex;\n// d: Mutex<u8>\n" + line)
    assert len(list(rust_locks(path))) == 1


@pytest.mark.parametrize("line", ["x = threading.Lock()", "with self._lock:", "@functools.cache", "RLock()"])
def test_a_lock_of_python_that_is_not_on_the_list_is_found(tmp_path, line):
    path = tmp_path / "new.py"
    path.write_text(f"import threading  # a Lock()\n{line}\n")
    assert len(list(python_locks(path))) == 1


@pytest.mark.parametrize("mode", ["collector", "bytecodes"])
def test_any_call_may_come_in_the_middle_of_any_other(tmp_path, mode):
    data = tmp_path / "data"
    data.write_bytes(bytes(100_000))
    done = python(HERE / "reentry.py", mode, data, timeout=280)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 50, done.stdout


# Threads that all come at once, and switch at every opportunity.
RACE = """
import sys, threading
import specmm
from specmm import _default, _pickling, _remote
sys.setswitchinterval(1e-6)

class Store:
    def read_at(self, offset, n):
        return bytes(n)

def race(call, count=8):
    barrier, answers = threading.Barrier(count), [None] * count
    def work(number):
        barrier.wait()
        answers[number] = call(number)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return answers

def configured(number):
    "Either it counts, or it is refused."
    try:
        specmm.configure(capacity=(number + 1) << 20)
    except specmm.SpecmmError:
        return None
    return (number + 1) * 256
"""


def test_threads_that_race_for_one_thing_get_the_same(tmp_path):
    code = """
cache = specmm.PageCache("1MiB")
for turn in range(100):
    made = race(lambda _: _pickling.cache_named(str(turn), 1 << 20, "inline", 1.0))
    assert len({id(each) for each in made}) == 1 and not made[0].closed
    made[0].close()
    # What was closed is made anew, once.
    again = race(lambda _: _pickling.cache_named(str(turn), 1 << 20, "inline", 1.0))
    assert len({id(each) for each in again}) == 1 and again[0] is not made[0]
    assert len(_pickling._kept[str(turn)]) == 1
    opened = race(lambda _: _remote.open_object(cache, turn, 1, 100, Store(), name="", ra_pages=0))
    assert len({id(file) for file, _ in opened}) == len({id(store) for _, store in opened}) == 1
    newer = race(lambda _: _remote.open_object(cache, turn, 2, 100, Store(), name="", ra_pages=0))
    assert len({id(file) for file, _ in newer}) == 1 and newer[0][0] is not opened[0][0]
    assert len(_remote._objects[cache][turn]) == 1
"""
    assert run(RACE + code) == ""


def test_the_first_to_open_ends_the_time_to_configure():
    code = """
for turn in range(100):
    _default._made.clear()
    asked = race(lambda number: configured(number) if number % 2 else _default.default_cache())
    cache = _default.default_cache()
    assert len({id(each) for each in asked[::2]}) == 1 and asked[0] is cache
    frames = cache.stats().capacity_frames
    last = [each for each in asked[1::2] if each is not None]
    # Whoever was not refused came before, and the last of them counts.
    assert frames in last if last else frames == 16384, (frames, asked)
    specmm.configure(capacity=frames * 4096)
    assert configured(99) is None
    assert all(not each.makes for each in _default._requests)
    _default._requests.clear()
"""
    assert run(RACE + code) == ""
