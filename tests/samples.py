"""What several tests read: a file's bytes, and the simplest store."""

import specmm

PAGE = specmm.PAGE_SIZE
CONTENT = bytes(range(1, 251)) * 40


class Store:
    """A store whose `read_at` is the function given."""

    def __init__(self, read_at):
        self.read_at = read_at
