"""Archives of given members, in memory."""

import io
import tarfile
import zipfile


def zipped(members, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return out


def tarred(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    out.seek(0)
    return out


def zip_of(data):
    return zipped({"data": data}).getvalue()


def tar_of(data, name="data"):
    return tarred({name: data}).getvalue()
