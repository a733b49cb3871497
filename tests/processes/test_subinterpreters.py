"""In a subinterpreter the package is refused, and the main one's goes on."""

from programs import run

CODE = """
import importlib, sys
first = sys.argv[1] == "main first"
if first:
    import specmm
    cache = specmm.PageCache("1MiB")

REFUSED = '''
try:
    import specmm
except ImportError as error:
    assert "subinterpreters" in str(error), error
    raise SystemExit
raise AssertionError("it was imported")
'''
# What there is differs between versions of Python; the first runs the interpreters of old, without limits.
TESTED = f'''
import sys
try:
    exec({REFUSED!r})
except SystemExit:
    pass
'''

def ways():
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for options in (((), {}), ((), {"isolated": False}), ((), {"isolated": True}), (("legacy",), {})):
            try:
                number = module.create(*options[0], **options[1])
            except TypeError:
                continue
            failed = module.run_string(number, TESTED)
            assert failed is None, failed
            module.destroy(number)
            yield name
    try:
        import _testcapi
    except ImportError:
        return
    assert _testcapi.run_in_subinterp(TESTED) == 0
    yield "_testcapi"

done = list(ways())
assert done, "no way to make an interpreter"
import specmm
with specmm.PageCache("1MiB") as cache, cache.open(sys.executable) as file:
    assert len(file.pread(10, 0)) == 10
print("refused")
"""


def test_it_is_refused_whoever_comes_first():
    for order in ("main first", "main last"):
        assert run(CODE, order) == "refused\n"
