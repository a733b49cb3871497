"""A web server whose manners can be chosen, and which notes what it is asked."""

import contextlib
import gzip
import hashlib
import http.server
import re
import sys
import threading

MANNERS = {
    "ranges": set(),
    "no ranges": {"whole"},  # ignores them, and tells the size
    "refuses ranges": {"whole", "says so"},
    "no size": {"whole", "chunked"},
    "no size, ranges": {"chunked"},
    "gzip": {"whole", "gzip"},
    "no tags": {"untagged"},
}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.holds = {}
        self.manners = {}
        self.options = {}  # of a path: what is given for the header X-Version
        self.gets = []
        self.heads = 0
        self.fails = lambda number: False
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Who has read enough hangs up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.server.heads += 1
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        server = self.server
        data = server.holds.get(self.path)
        manners = server.manners.get(self.path, set())
        version = self.headers.get("X-Version")
        if version is not None:
            data = server.options.get((self.path, version), data)
        if data is None:
            self.send_error(404)
            return
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if body:
            server.gets.append((self.path, self.headers.get("Range")))
            if wanted and server.fails(len(server.gets)):
                self.send_error(503)
                return
        tag = hashlib.sha256(data).hexdigest()
        status, part, span = 200, data, None
        if wanted and "whole" not in manners and any(wanted.groups()):
            first, last = wanted.groups()
            if first:
                first, last = int(first), min(int(last) if last else len(data), len(data) - 1)
            else:
                first, last = max(len(data) - int(last), 0), len(data) - 1
            if first > last:
                self.send_error(416)
                return
            status, part, span = 206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}"
        self.send_response(status)
        if "gzip" in manners:
            part = gzip.compress(part)
            self.send_header("Content-Encoding", "gzip")
        if "chunked" in manners:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(part)))
        if "says so" in manners:
            self.send_header("Accept-Ranges", "none")
        if "untagged" not in manners:
            self.send_header("ETag", f'"{tag}"')
        if span and "chunked" not in manners:
            self.send_header("Content-Range", span)
        self.end_headers()
        if not body:
            return
        # A reader that has enough goes.
        with contextlib.suppress(ConnectionError):
            if "chunked" in manners:
                for at in range(0, len(part), 10_000):
                    piece = part[at : at + 10_000]
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(part)


@contextlib.contextmanager
def serving():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
