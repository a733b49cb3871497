# ruff: noqa: PTH108, PTH118, PTH123, SIM115  # paths of bytes
"""Names of files come back as they were given: in `name`, errors, reports, pickles, on the command line."""

import errno
import html
import io
import json
import os
import pathlib
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import specmm
import specmm.arrow
from programs import command
from samples import CONTENT, Store

ODD = [b"\xff\xfe", b"a\nb", "ä\u2028".encode(), b"x" * 255, b"'\" \\ <b>%s{}", b"\x1b[2J", b" ", b"-"]

# Whatever a file system takes: no slash, no zero; not "." nor "..".
NAMES = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.binary(min_size=250, max_size=255),
    st.text(min_size=1, max_size=60).map(lambda text: text.encode(errors="surrogatepass")),
    st.sampled_from(ODD),
)
NAMES = NAMES.map(lambda name: name.replace(b"/", b"|").replace(b"\0", b"|")[:255])
NAMES = NAMES.filter(lambda name: name not in (b".", b".."))


class PathLike:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


GIVEN = {
    "bytes": lambda path: path,
    "str": os.fsdecode,
    "path": lambda path: pathlib.Path(os.fsdecode(path)),
    "path-like of bytes": PathLike,
    "path-like of str": lambda path: PathLike(os.fsdecode(path)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return os.fsencode(tmp_path_factory.mktemp("names"))


@pytest.mark.hypothesis
@pytest.mark.parametrize("kind", GIVEN)
def test_a_name_comes_back_as_pythons_open_gives_it_back(shared, folder, kind):
    @given(NAMES)
    @example(b"a\xff\n")
    def same(name):
        path = os.path.join(folder, name)
        given = GIVEN[kind](path)
        with open(path, "wb") as out:
            out.write(CONTENT)
        try:
            with open(given, "rb") as plain, shared.open(given) as file:
                assert (file.name, type(file.name)) == (plain.name, type(plain.name))
                assert repr(plain.name) in repr(file)
                for stream in (file.as_raw(), specmm.arrow.ArrowFile(file), io.BufferedReader(file.as_raw())):
                    assert stream.name == plain.name
                # A document, and in it the name, if it is text.
                page = file._repr_html_().encode().decode()
                text = os.fsdecode(path)
                assert not text.isprintable() or html.escape(text) in page
                with pickle.loads(pickle.dumps(file)) as again:
                    assert (again.name, again.pread(9, 0)) == (plain.name, CONTENT[:9])
                # The file's own errors, and those of another opening of it.
                with shared.open(os.path.relpath(given)) as other:
                    for opened in (file, other):
                        with pytest.raises(OSError) as raised:
                            opened.truncate(0)
                        assert raised.value.filename == opened.name
                        assert type(raised.value.filename) is type(opened.name)
                file.close()
                with pytest.raises(specmm.ClosedError):
                    file.pread(1, 0)
        finally:
            os.unlink(path)
        with pytest.raises(FileNotFoundError) as pythons:
            open(given, "rb")
        with pytest.raises(FileNotFoundError) as ours:
            shared.open(given)
        assert (ours.value.filename, str(ours.value)) == (pythons.value.filename, str(pythons.value))
        assert type(ours.value.filename) is type(pythons.value.filename)

    same()


@given(NAMES)
def test_a_store_keeps_its_name(shared, name):
    text = os.fsdecode(name)

    def fails(offset, n):
        raise OSError(errno.EIO, "broken")

    with shared.open_store(Store(fails), 100, name=text) as file, specmm.mm.Mm(shared) as mm:
        assert file.name == file.as_raw().name == text
        with pytest.raises(OSError, match="broken") as raised:
            file.pread(1, 0)
        assert raised.value.filename == text
        with pytest.raises(specmm.BusError) as raised:
            mm.load(mm.mmap(file), 1)
        assert raised.value.__cause__.filename == text


def test_a_name_of_a_store_is_a_str(shared):
    with pytest.raises(TypeError, match="name must be a str, not bytes: b'x'"):
        shared.open_store(Store(bytes), 1, name=b"x")


def test_a_name_that_is_no_file_name_is_refused_as_by_open(shared):
    for name in ("\ud800", "a\0b", b"a\0b"):
        with pytest.raises(ValueError):
            shared.open(name)
        with pytest.raises(ValueError):
            open(name)


def test_names_too_long_are_refused_as_by_open(shared, folder):
    for length in (256, 5000):
        path = os.path.join(folder, b"x" * length)
        with pytest.raises(OSError) as raised:
            shared.open(path)
        assert (raised.value.errno, raised.value.filename) == (errno.ENAMETOOLONG, path)


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_the_command_line_says_the_name_as_it_was_given(folder, name):
    path = os.path.join(folder, name)
    text = os.fsdecode(path)
    missing = command("stat", text)
    assert missing.returncode == 2
    assert missing.stderr.startswith(f"specmm stat: {text!r} cannot be read: ") or not text.isprintable()
    assert missing.stderr.count("\n") == 1
    with open(path, "wb") as out:
        out.write(CONTENT)
    done = command("stat", text, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"]["path"] == text
    assert command("stat", text).returncode == 0


@pytest.mark.parametrize("subcommand", ["read", "faults"])
def test_the_result_of_a_measurement_says_it_too(folder, subcommand):
    path = os.path.join(folder, b"a\xff\n")
    with open(path, "wb") as out:
        out.write(CONTENT)
    few = {
        "read": ["--reads", "random"],
        "faults": ["--locking", "speculative", "--threads", "1"],
    }
    done = command(subcommand, os.fsdecode(path), "--seconds", "0.01", *few[subcommand], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"]["path"] == os.fsdecode(path)
