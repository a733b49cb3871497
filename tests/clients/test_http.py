"""A real remote file system: fsspec's HTTP, which is asynchronous inside, against a server of our own."""

import hashlib
import http.server
import re
import threading

import fsspec
import pytest

import specmm
import specmm.fsspec
from bucket import CONTENT
from specmm.fsspec import CachedFileSystem

CAPACITY = "4MiB"

PAGE = specmm.PAGE_SIZE


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves byte ranges of what the server holds, with an ETag, and notes them."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        data = self.server.holds.get(self.path)
        if data is None or self.server.broken:
            self.send_error(404 if data is None else 403)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = map(int, wanted.groups()) if wanted else (0, len(data) - 1)
        part = data[first : last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.server.sent.append(len(part))
            self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.holds, server.sent, server.broken = {"/data": CONTENT}, [], False
    server.url = f"http://127.0.0.1:{server.server_port}/data"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    fsspec.filesystem("http").clear_instance_cache()


def test_the_cache_type(server, cache):
    fs = fsspec.filesystem("http")
    for _ in range(3):
        with fs.open(server.url, cache_type="specmm", cache_options={"cache": cache}) as file:
            file.seek(50_000)
            assert file.read(20_000) == CONTENT[50_000:70_000]
            file.seek(0)
            assert file.read(PAGE) == CONTENT[:PAGE]
            file.seek(PAGE)
            assert file.read() == CONTENT[PAGE:]
    assert sum(server.sent) == len(CONTENT), "each byte was sent once"


def test_a_chain(server):
    for _ in range(2):
        with fsspec.open(f"specmm::{server.url}") as file:
            assert file.read() == CONTENT
    assert sum(server.sent) == len(CONTENT)


def test_a_file_for_many_threads(server, cache):
    with specmm.fsspec.open(server.url, cache=cache) as file:
        wrong = []

        def read(n):
            for place in range(n * 1000, len(CONTENT), 8 * PAGE):
                if file.pread(3000, place) != CONTENT[place : place + 3000]:
                    wrong.append(place)

        threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
    assert 0 < sum(server.sent) <= -(-len(CONTENT) // PAGE) * PAGE


def test_a_page_that_changed_is_read_anew(server, cache):
    cached = CachedFileSystem(target_protocol="http", cache=cache)
    with cached.open(server.url) as file:
        assert file.read() == CONTENT
    server.holds["/data"] = CONTENT[::-1]
    with cached.open(server.url) as file:
        assert file.read() == CONTENT[::-1]
    fs = fsspec.filesystem("http")
    with fs.open(server.url, cache_type="specmm", cache_options={"cache": cache}) as file:
        assert file.read(100) == CONTENT[::-1][:100]


def test_what_the_server_refuses_is_raised_as_fsspec_raises_it(server, cache):
    cached = CachedFileSystem(target_protocol="http", cache=cache)
    with cached.open(server.url) as file:
        server.broken = True
        with pytest.raises(Exception, match="403") as ours:
            file.read(10)
    with pytest.raises(type(ours.value), match="403"):
        fsspec.filesystem("http").cat_file(server.url, 0, 10)
    with pytest.raises(FileNotFoundError):
        cached.open(server.url + "none")
