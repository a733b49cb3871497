"""A real file for runs that name none."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 1 << 20


@contextmanager
def sample_file(size: int) -> Iterator[Path]:
    """A file of random bytes in a temporary folder; both are deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="specmm-") as folder:
        path = Path(folder, "sample.bin")
        with path.open("wb") as file:
            for start in range(0, size, _CHUNK):
                file.write(os.urandom(min(_CHUNK, size - start)))
            # Written back before anything is timed, or write-back would disturb the first rounds.
            file.flush()
            os.fsync(file.fileno())
        yield path
