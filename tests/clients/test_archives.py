"""zipfile and tarfile: members of archives through a cache."""

import io
import random
import tarfile
import threading
import zipfile

import pytest

import specmm

draw = random.Random(7)
MEMBERS = {f"folder/{n}": draw.randbytes(draw.randrange(30_000)) + bytes(5000) for n in range(30)}


@pytest.fixture(params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def archive(request, tmp_path):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", request.param) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(params=["", "gz", "xz"])
def tape(request, tmp_path):
    path = tmp_path / "archive.tar"
    with tarfile.open(path, f"w:{request.param}") as archive:
        for name, data in MEMBERS.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_a_zip_archive(cache, archive):
    with cache.open(archive) as file, zipfile.ZipFile(file.as_raw()) as members:
        assert members.namelist() == list(MEMBERS)
        assert {name: members.read(name) for name in MEMBERS} == MEMBERS
        assert members.testzip() is None
        with members.open("folder/3") as member:
            member.seek(2000)
            assert member.read(100) == MEMBERS["folder/3"][2000:2100]


def test_a_member_is_a_file_object(cache, archive):
    lines = [f"{n}\n" for n in range(10_000)]
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr("lines", "".join(lines))
    with cache.open(archive) as file, zipfile.ZipFile(file.as_raw()) as members:
        with io.TextIOWrapper(members.open("lines")) as member:
            assert list(member) == lines
        assert zipfile.Path(members, "lines").read_text() == "".join(lines)


def test_threads_with_an_archive_object_each(cache, archive):
    wrong = []

    def read(seed):
        names = list(MEMBERS)
        random.Random(seed).shuffle(names)
        with zipfile.ZipFile(file.as_raw()) as members:
            wrong.extend(name for name in names if members.read(name) != MEMBERS[name])

    with cache.open(archive) as file:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert cache.stats().read_bytes == archive.stat().st_size, "it was fetched once for all"


def test_one_member_does_not_read_the_archive(archive):
    with specmm.PageCache("16MiB", io="inline") as cache, cache.open(archive) as file:
        file.advise("random")
        with zipfile.ZipFile(file.as_raw()) as members:
            assert members.read("folder/7") == MEMBERS["folder/7"]
        assert cache.stats().read_bytes < archive.stat().st_size / 3


def test_a_tar_archive(cache, tape):
    with cache.open(tape) as file, tarfile.open(fileobj=file.as_raw()) as members:
        assert members.getnames() == list(MEMBERS)
        assert {name: members.extractfile(name).read() for name in MEMBERS} == MEMBERS


def test_a_tar_archive_as_a_stream(cache, tape):
    with cache.open(tape) as file, tarfile.open(fileobj=file.as_raw(), mode="r|*") as members:
        assert {member.name: members.extractfile(member).read() for member in members} == MEMBERS


def test_an_archive_that_got_shorter_is_an_error_not_a_signal(cache, archive, tape):
    with cache.open(archive, "r+b") as file, zipfile.ZipFile(file.as_raw()) as members:
        file.truncate(5000)
        with pytest.raises((zipfile.BadZipFile, EOFError)):
            members.read("folder/29")
    with cache.open(tape, "r+b") as file:
        file.truncate(5000)
        with pytest.raises((tarfile.ReadError, EOFError)), tarfile.open(fileobj=file.as_raw()) as members:
            members.extractfile("folder/29").read()
