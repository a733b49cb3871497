"""Each counter and abort cause is named and explained once, in the core; what repeats it says the same."""

import ast
import dataclasses
import pathlib
import subprocess
import sys

import specmm
from samples import PAGE
from specmm import _core, _report, model
from specmm.model.outcomes import EVENTS

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = [ast.parse(path.read_text()) for path in pathlib.Path(specmm.__file__).parent.glob("*.py")]


def documented(record):
    """The names that a class assigns or annotates, each with the text under it."""
    classes = [node for tree in SOURCES for node in tree.body if isinstance(node, ast.ClassDef)]
    (body,) = [node.body for node in classes if node.name == record.__name__]
    names = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                names[name] = " ".join(after.value.value.split()) if is_text else None
    return names


def test_counters_are_explained_as_in_the_core():
    groups = _core.counter_glosses()
    glosses = {name: gloss for group in groups.values() for name, gloss in group.items()}
    assert len(glosses) == sum(len(group) for group in groups.values()) > 0
    assert documented(specmm.CacheStats) == glosses
    fields = {field.name: field.type for field in dataclasses.fields(specmm.CacheStats)}
    assert fields == dict.fromkeys(glosses, int) | {"io_seconds": float}


def test_reports_have_every_counter():
    groups = _core.counter_glosses()
    assert {group: set(glosses) for group, glosses in _report.GLOSSES.items()} == {
        group: set(glosses) for group, glosses in groups.items()
    }


def test_counters_arrive_under_their_names(cache, path):
    with cache.open(path, ra_pages=0) as file:
        file.pread(PAGE, 0)
        file.pread(PAGE, 0)
        cache.settle()
        stats = cache.stats()
    assert (stats.capacity_frames, stats.frames_in_use, stats.reads, stats.read_bytes) == (256, 1, 1, PAGE)
    assert (stats.hits, stats.misses) == (1, 1)
    assert isinstance(stats.io_seconds, float)


def test_the_page_of_counters_is_as_written():
    tool = ROOT / "tools" / "counters.py"
    written = subprocess.run([sys.executable, tool], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "counters.md").read_text() == written, f"{tool.name} writes it anew"


def test_the_model_counts_nothing_of_its_own():
    counted = {field.name for field in dataclasses.fields(model.CacheStats)}
    named = {field.name for field in dataclasses.fields(specmm.CacheStats)}
    assert counted
    assert counted <= named


def test_abort_causes_are_explained_as_in_the_core():
    causes = {
        event.removeprefix("spf_abort_").upper(): gloss
        for event, gloss in _core.event_glosses().items()
        if event.startswith("spf_abort_")
    }
    assert causes
    assert documented(specmm.mm.Abort) == causes
    assert {cause.name: cause.value for cause in specmm.mm.Abort} == {name: name.lower() for name in causes}
    assert {cause.name: cause.value for cause in model.Abort} == {name: name.lower() for name in causes}


def test_events_are_those_of_the_core(cache):
    glosses = _core.event_glosses()
    with specmm.mm.Mm(cache) as mm:
        assert set(mm.vm_events()) == set(glosses)
    assert set(EVENTS) == set(glosses)


def test_glosses_are_sentences():
    groups = [_core.event_glosses(), *_core.counter_glosses().values()]
    for gloss in [gloss for group in groups for gloss in group.values()]:
        assert gloss[0].isupper()
        assert gloss.endswith(".")
        assert ". " not in gloss
