"""What the package needs later is imported with it: in a forked child an import may wait for ever."""

import ast
import re
from pathlib import Path

from programs import python, run
from samples import ROOT


def looked_up_by_the_extension():
    """Modules named in the binding."""
    for path in sorted((ROOT / "rust" / "py").glob("*.rs")):
        text = re.sub(r"//.*", "", path.read_text())
        yield from re.findall(r'Imported::new\(\s*"([^"]+)"', text)
        yield from re.findall(r'\.import\(\s*"([^"]+)"', text)


def imported_in_functions():
    for path in sorted((ROOT / "python").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import):
                        yield from (alias.name for alias in node.names)
                    elif isinstance(node, ast.ImportFrom):
                        yield node.module


def test_whatever_is_needed_later_is_there_after_the_import():
    needed = {*looked_up_by_the_extension(), *imported_in_functions()}
    assert {"specmm._pickling", "specmm._errors", "os"} <= needed, "the scan finds nothing"
    assert needed - set(run("import sys, specmm; print(*sys.modules)").split()) == set()


def test_no_call_imports_anything():
    """Nor pickles, errors, notebooks, stores: the importer is replaced by one that refuses."""
    code = """
import sys
import reentry
class Refuse:
    def find_spec(self, name, path=None, target=None):
        raise AssertionError(f"{name} is imported late")
sys.meta_path.insert(0, Refuse())
world = reentry.World(sys.argv[1])
for call in reentry.CALLS.values():
    reentry.quietly(call, world)
"""
    here = str(Path(__file__).parent)
    done = python("-c", f"import sys; sys.path.insert(0, {here!r})\n{code}", __file__)
    assert (done.returncode, done.stderr) == (0, "")
