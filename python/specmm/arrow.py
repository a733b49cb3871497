"""Files for pyarrow.

    import pyarrow.parquet, specmm.arrow

    pyarrow.parquet.read_table(specmm.arrow.ArrowFile(file), columns=["price"])

Whatever takes a file object in pyarrow takes an `ArrowFile`, and `File.as_raw()` as well. Of an `ArrowFile`
pyarrow asks buffers, which lie as Arrow wants them and are counted in its memory pool; of the other, `bytes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError("specmm.arrow needs pyarrow: pip install 'specmm[arrow]'") from error

from specmm._raw import RawFile

if TYPE_CHECKING:
    from specmm._core import File

__all__ = ["ArrowFile"]


class ArrowFile(RawFile):
    """A read-only stream whose reads are Arrow buffers. Closing it leaves its File open.

    copies, copied_bytes: reads answered with a copy, in memory of Arrow's pool (`pa.total_allocated_bytes`).
    """

    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.copies = 0
        self.copied_bytes = 0

    def read_buffer(self, nbytes: int | None = None) -> Any:
        """Reads into a `pyarrow.Buffer`; fewer bytes at the end of the file only. None: the rest."""
        file = self._checked()
        rest = max(file.size - self._position, 0)
        n = rest if nbytes is None or nbytes < 0 else min(nbytes, rest)
        buffer = pa.allocate_buffer(n, resizable=True)
        got = file.preadinto(buffer, self._position)
        # Somebody made the file shorter meanwhile.
        if got < n:
            buffer.resize(got)
        self.copies += 1
        self.copied_bytes += got
        self._position += got
        return buffer
