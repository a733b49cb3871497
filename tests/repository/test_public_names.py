"""The package shows what readers of files need and nothing else; former names work as ever."""

import importlib
import pickle
import pkgutil

import pytest

import specmm
from programs import run
from samples import ROOT
from specmm import mm

PUBLIC = [
    module.name
    for module in pkgutil.iter_modules(specmm.__path__, "specmm.")
    if not module.name.startswith("specmm._") and module.name != "specmm.cli"
]

# As the package wrote them while these classes were its own.
OLD = {
    2: (
        b"\x80\x02]q\x00(cspecmm\nVmFault\nq\x01M\x04\x01\x85q\x02Rq\x03cspecmm\nAbort\nq\x04X\t\x00\x00\x00"
        b"file_missq\x05\x85q\x06Rq\x07cspecmm\nFaultOutcome\nq\x08)\x81q\t]q\n(h\x01K\x04\x85q\x0bRq\x0ch\x04"
        b"X\x03\x00\x00\x00pmdq\r\x85q\x0eRq\x0f\x88ebcspecmm\nFilemapFault\nq\x10)\x81q\x11]q\x12(h\x01M\x00"
        b"\x02\x85q\x13Rq\x14Nebcspecmm\nTouchReport\nq\x15)\x81q\x16]q\x17(K\x04K\x03K\x02K\x01ebcspecmm\nMm"
        b"\nq\x18e."
    ),
    4: (
        b"\x80\x04\x95\xbd\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x06specmm\x94\x8c\x07VmFault\x94\x93\x94M"
        b"\x04\x01\x85\x94R\x94h\x01\x8c\x05Abort\x94\x93\x94\x8c\tfile_miss\x94\x85\x94R\x94h\x01\x8c\x0c"
        b"FaultOutcome\x94\x93\x94)\x81\x94]\x94(h\x03K\x04\x85\x94R\x94h\x07\x8c\x03pmd\x94\x85\x94R\x94"
        b"\x88ebh\x01\x8c\x0cFilemapFault\x94\x93\x94)\x81\x94]\x94(h\x03M\x00\x02\x85\x94R\x94Nebh\x01\x8c"
        b"\x0bTouchReport\x94\x93\x94)\x81\x94]\x94(K\x04K\x03K\x02K\x01ebh\x01\x8c\x02Mm\x94\x93\x94e."
    ),
}


def test_the_package_shows_its_public_names_alone():
    # Each module that is imported becomes an attribute of the package.
    assert {f"specmm.{name}" for name in ("arrow", "fsspec", "mm", "model", "numpy", "zarr")} <= set(PUBLIC)
    code = f"import specmm, {', '.join(PUBLIC)}\nprint(*dir(specmm))"
    shown = run(code).split()
    assert len(shown) == len(set(shown))
    assert {name for name in shown if not name.startswith("__")} | {"__version__"} == set(specmm.__all__)


@pytest.mark.parametrize("module", ["specmm", *PUBLIC])
def test_public_modules_say_what_they_export(module):
    imported = importlib.import_module(module)
    assert imported.__doc__
    assert len(imported.__all__) == len(set(imported.__all__)) > 0
    for name in imported.__all__:
        thing = getattr(imported, name)
        if isinstance(thing, type):
            assert thing.__doc__, name
            assert thing.__module__ == module or module == "specmm.model", name


def test_the_module_of_address_spaces_shows_them_alone():
    assert {name for name in dir(mm) if not name.startswith("__")} == set(mm.__all__)


@pytest.mark.parametrize("name", mm.__all__)
def test_former_names_are_the_same_things(name):
    thing = getattr(mm, name)
    assert getattr(specmm, name) is thing
    assert f"{thing.__module__}.{thing.__qualname__}" == f"specmm.mm.{name}"
    assert name not in dir(specmm)
    run(f"from specmm import {name} as former\nimport specmm.mm\nassert former is specmm.mm.{name}")


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="module 'specmm' has no attribute 'mmap'"):
        _ = specmm.mmap
    with pytest.raises(ImportError, match="cannot import name 'mmap' from 'specmm'"):
        exec("from specmm import mmap")


THINGS = [
    mm.VmFault.MAJOR | mm.VmFault.NOPAGE,
    mm.Abort.FILE_MISS,
    mm.FaultOutcome(mm.VmFault.MAJOR, mm.Abort.PMD, True),
    mm.FilemapFault(mm.VmFault.LOCKED, None),
    mm.TouchReport(4, 3, 2, 1),
    mm.Mm,
]


@pytest.mark.parametrize("protocol", OLD)
def test_pickles_with_former_names_are_read(protocol):
    assert pickle.loads(OLD[protocol]) == THINGS


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_name_the_module(protocol):
    assert {type(thing) for thing in THINGS} | {mm.Mm} >= {getattr(mm, name) for name in mm.__all__}
    data = pickle.dumps(THINGS, protocol)
    assert b"specmm.mm" in data
    assert b"specmm._" not in data, "nobody should depend on where they are defined"
    assert pickle.loads(data) == THINGS


def test_the_model_stands_alone():
    """It imports neither the extension nor whatever does."""
    model = ROOT / "python" / "specmm" / "model"
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(model.parent)!r})\n"
        "import model\n"
        "assert model.PageCache\n"
        "print(*(name for name in sys.modules if name.startswith('specmm')))"
    )
    assert run(code).split() == []
