"""What an installed specmm must do, in plain Python: `make wheel` runs it in an empty environment."""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import specmm

SIZE = 1 << 20


def command(*arguments: object) -> str:
    """The installed `specmm` command."""
    program = Path(sys.executable).with_name("specmm")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def main() -> None:
    """Opens, reads, meets an error, and runs the commands."""
    here = Path(specmm.__file__).resolve()
    assert here.is_relative_to(Path(sys.prefix).resolve()), f"{here} is not what was installed"
    assert importlib.metadata.version("specmm") == specmm.__version__
    assert "rich" not in sys.modules, "the library needs nothing else"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.bin")
        data = os.urandom(SIZE)
        path.write_bytes(data)
        with specmm.PageCache("4MiB") as cache, cache.open(path) as file:
            assert file.pread(SIZE + 1, 0) == data
            assert bytes(file.gather([5, 70_000], 100)) == data[5:105] + data[70_000:70_100]
            with specmm.mm.Mm(cache) as mm:
                address = mm.mmap(file, 2 * SIZE)
                assert mm.load(address + SIZE - 1, 1) == data[-1:]
                try:
                    mm.load(address + SIZE, 1)
                except specmm.BusError as error:
                    assert error.size == SIZE
                else:
                    raise AssertionError("a page past the end was readable")
            try:
                cache.open(Path(folder, "none"))
            except FileNotFoundError as error:
                assert error.filename == str(Path(folder, "none"))
            assert cache.stats().read_bytes == SIZE
        try:
            file.pread(1, 0)
        except specmm.ClosedError:
            pass
        else:
            raise AssertionError("a closed file was readable")
        assert "read" in command("--help")
        assert "Fastest:" in command("read", path, "--seconds", "0.1", "--count", "256")
        assert "kernel" in command("stat", path)
        assert path.read_bytes() == data
    print(f"smoke: specmm {specmm.__version__} from {here.parent} works with Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
