"""What several tests read: bytes, and the simplest store."""

from pathlib import Path

import specmm

ROOT = Path(__file__).resolve().parents[1]  # of the repository
PAGE = specmm.PAGE_SIZE
CONTENT = bytes(range(1, 251)) * 40
# Of forty pages and a bit, each unlike the others.
LONG = bytes((i * 7 + i // PAGE) % 251 for i in range(40 * PAGE + 123))


def numbered(pages):
    """Pages that are full of their number."""
    return b"".join(bytes([page]) * PAGE for page in range(pages))


class Store:
    """A store whose `read_at` is the function given."""

    def __init__(self, read_at):
        self.read_at = read_at
