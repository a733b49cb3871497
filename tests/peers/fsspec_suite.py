"""fsspec's suite for implementations, completed for two of its own file systems, as its users complete it."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.tests import abstract
from fsspec.tests.abstract.mv import *  # noqa: F403


class Memory(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self):
        for store in (MemoryFileSystem.store, MemoryFileSystem.pseudo_dirs):
            store.clear()
        MemoryFileSystem.pseudo_dirs.append("")
        return fsspec.filesystem("memory")

    @pytest.fixture
    def fs_join(self):
        return lambda *names: "/".join(names)

    @pytest.fixture
    def fs_path(self):
        return ""


class Local(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self):
        return fsspec.filesystem("file", auto_mkdir=True)

    @pytest.fixture
    def fs_path(self, tmpdir):
        return str(tmpdir)

    @pytest.fixture
    def supports_empty_directories(self):
        return True


_SUITES = {
    "Copy": abstract.AbstractCopyTests,
    "Get": abstract.AbstractGetTests,
    "Open": abstract.AbstractOpenTests,
    "Pipe": abstract.AbstractPipeTests,
    "Put": abstract.AbstractPutTests,
}

for _fixtures in (Memory, Local):
    for _name, _suite in _SUITES.items():
        _class = f"Test{_fixtures.__name__}{_name}"
        globals()[_class] = type(_class, (_fixtures, _suite), {"__module__": __name__})
