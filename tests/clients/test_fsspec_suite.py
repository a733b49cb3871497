"""fsspec's own suite for file systems, on those of specmm."""

import fsspec
import pytest
from fsspec.tests import abstract

from specmm.fsspec import CachedFileSystem


class Memory(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self):
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]
        yield CachedFileSystem(fs=memory)
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]

    @pytest.fixture
    def fs_join(self):
        return lambda *names: "/".join(names)

    @pytest.fixture
    def fs_path(self):
        return ""


class Local(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self):
        return CachedFileSystem(fs=fsspec.filesystem("file", auto_mkdir=True))

    @pytest.fixture
    def fs_path(self, tmpdir):
        return str(tmpdir)

    @pytest.fixture
    def supports_empty_directories(self):
        return True


class TestMemoryCopy(Memory, abstract.AbstractCopyTests): ...


class TestMemoryGet(Memory, abstract.AbstractGetTests): ...


class TestMemoryPut(Memory, abstract.AbstractPutTests): ...


class TestMemoryPipe(Memory, abstract.AbstractPipeTests): ...


class TestMemoryOpen(Memory, abstract.AbstractOpenTests): ...


class TestLocalCopy(Local, abstract.AbstractCopyTests): ...


class TestLocalGet(Local, abstract.AbstractGetTests): ...


class TestLocalPut(Local, abstract.AbstractPutTests): ...


class TestLocalPipe(Local, abstract.AbstractPipeTests): ...


class TestLocalOpen(Local, abstract.AbstractOpenTests): ...
