"""tools/check_dist.py lets a good wheel and sdist pass and names what is wrong with others."""

import importlib.util
import io
import tarfile
import zipfile

import pytest

from samples import ROOT

TOOL = ROOT / "tools" / "check_dist.py"
NAME = "specmm-0.1.0-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
INFO = "specmm-0.1.0.dist-info"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("check_dist", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_wheel(
    folder, tool, *, name=NAME, without=(), extra=(), code=b"GLIBC_2.2.5 GLIBC_2.17", tag="cp311-abi3"
):
    contents = dict.fromkeys(tool.IN_WHEEL, b"") | {f"{INFO}/{name}": b"" for name in tool.IN_METADATA}
    contents |= {
        "specmm/_core.abi3.so": code,
        f"{INFO}/WHEEL": f"Tag: {tag}-manylinux_2_17_x86_64\n".encode(),
    }
    contents |= dict.fromkeys(extra, b"")
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, data in contents.items():
            if member not in without:
                archive.writestr(member, data)


def make_sdist(folder, tool, *, without=(), extra=()):
    with tarfile.open(folder / "specmm-0.1.0.tar.gz", "w:gz") as archive:
        for member in {*tool.IN_SDIST, *extra} - set(without):
            archive.addfile(tarfile.TarInfo(f"specmm-0.1.0/{member}"), io.BytesIO())


def test_good_ones_pass(tool, tmp_path, capsys):
    make_wheel(tmp_path, tool)
    make_sdist(tmp_path, tool)
    assert tool.main(str(tmp_path)) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("wheel", "sdist", "named"),
    [
        ({"name": "specmm-0.1.0-cp311-cp311-manylinux_2_17_x86_64.whl"}, {}, "abi3"),
        ({"name": "specmm-0.1.0-cp311-abi3-linux_x86_64.whl"}, {}, "no manylinux"),
        ({"without": ["specmm/py.typed"]}, {}, "specmm/py.typed is missing"),
        ({"without": [f"{INFO}/licenses/LICENSE-MIT"]}, {}, "LICENSE-MIT is missing"),
        ({"without": ["specmm/_core.abi3.so"]}, {}, "extension modules are []"),
        ({"extra": ["specmm/_core.cpython-311.so"]}, {}, "extension modules"),
        ({"extra": ["specmm/__pycache__/a.pyc"]}, {}, "does not belong there"),
        ({"code": b"GLIBC_2.2.5 GLIBC_2.28"}, {}, "needs glibc (2, 28)"),
        ({"code": b""}, {}, "needs no C library"),
        ({"tag": "cp311-cp311"}, {}, "names one Python"),
        ({}, {"without": ["Cargo.lock"]}, "Cargo.lock is missing"),
        ({}, {"extra": ["python/specmm/_core.abi3.so"]}, "does not belong there"),
        (None, {}, "holds 0 of *.whl"),
    ],
)
def test_what_is_wrong_is_named(tool, tmp_path, capsys, wheel, sdist, named):
    if wheel is not None:
        make_wheel(tmp_path, tool, **wheel)
    make_sdist(tmp_path, tool, **sdist)
    assert tool.main(str(tmp_path)) == 1
    assert named in capsys.readouterr().err
