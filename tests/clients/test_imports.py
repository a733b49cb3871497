"""specmm needs none of its clients; a module for one of them says what it needs."""

import pytest

from programs import run

CLIENTS = {"arrow": "pyarrow", "fsspec": "fsspec", "numpy": "numpy", "zarr": "zarr"}


def test_specmm_imports_no_client():
    loaded = run("import sys, specmm, specmm.cli; print(*sys.modules)").split()
    assert "specmm" in loaded
    assert not set(CLIENTS.values()) & set(loaded)


@pytest.mark.parametrize("module", CLIENTS)
def test_a_missing_library_is_named(module):
    said = run(
        "import sys\n"
        f"sys.modules[{CLIENTS[module]!r}] = None\n"
        "try:\n"
        f"    import specmm.{module}\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert f"specmm.{module} needs {CLIENTS[module]}" in said
    assert f"pip install 'specmm[{module}]'" in said
