"""What must not change of a file that a command only reads."""

import hashlib


def fingerprint(path):
    found = path.stat()
    return hashlib.sha256(path.read_bytes()).hexdigest(), found.st_mtime_ns, found.st_size, found.st_mode
