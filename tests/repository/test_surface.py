"""tools/surface.py: no public name comes, goes or changes unseen."""

import importlib.util
import shutil

import pytest

from samples import ROOT


@pytest.fixture
def tool(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("surface", ROOT / "tools" / "surface.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    no_builds = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "python", tmp_path / "python", ignore=no_builds)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


# File, what is written there and then, and what the difference must tell.
CHANGES = {
    "an argument": (
        "_core.pyi",
        "def pread(self, n: int,",
        "def pread(self, size: int,",
        "File.pread(size: int,",
    ),
    "a method": ("_core.pyi", "def settle(self)", "def calm(self)", "def specmm.PageCache.calm() -> None"),
    "a counter": ("_types.py", "    hits: int", "    strikes: int", "specmm.CacheStats.strikes: int"),
    "a flag": ("_types.py", "RETRY = 0x400", "RETRY = 0x800", "specmm.mm.VmFault.RETRY = 2048"),
    "an error": (
        "_errors.py",
        "ClosedError(SpecmmError, ValueError)",
        "ClosedError(SpecmmError)",
        "class specmm.",
    ),
    "an export": ("__init__.py", '    "configure",\n', "", "def specmm.configure"),
    "a former name": (
        "__init__.py",
        "    from specmm.mm import Mm as Mm\n",
        "",
        "specmm.Mm is specmm.mm.Mm",
    ),
    "a client": ("zarr.py", ', "CachedZipStore"]', "]", "class specmm.zarr.CachedZipStore"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(tool, tmp_path, change):
    file, before, after, said = CHANGES[change]
    committed = tool.python()
    assert tool.difference("it", committed, tool.python()) == []
    path = tmp_path / "python" / "specmm" / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    found = tool.difference("it", committed, tool.python())
    assert any(said in line for line in found if line[0] in "+-"), found
