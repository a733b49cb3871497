"""Linux's file page-fault path as a library."""

import sys

if sys.platform != "linux":
    raise ImportError("specmm runs on Linux only")

from specmm._core import PAGE_SIZE

__all__ = ["PAGE_SIZE"]
