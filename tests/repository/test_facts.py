"""Each counter and abort cause is named and explained once, in the core; what repeats it says the same."""

import ast
import pathlib

import specmm
from specmm import _core, model
from specmm.model.outcomes import EVENTS

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


def test_abort_causes_are_explained_as_in_the_core():
    causes = {
        event.removeprefix("spf_abort_").upper(): gloss
        for event, gloss in _core.event_glosses().items()
        if event.startswith("spf_abort_")
    }
    assert causes
    assert documented(specmm.Abort) == causes
    assert {cause.name: cause.value for cause in specmm.Abort} == {name: name.lower() for name in causes}
    assert {cause.name: cause.value for cause in model.Abort} == {name: name.lower() for name in causes}


def test_events_are_those_of_the_core(cache):
    glosses = _core.event_glosses()
    with specmm.Mm(cache) as mm:
        assert set(mm.vm_events()) == set(glosses)
    assert set(EVENTS) == set(glosses)


def test_glosses_are_sentences():
    for gloss in _core.event_glosses().values():
        assert gloss[0].isupper()
        assert gloss.endswith(".")
        assert ". " not in gloss
