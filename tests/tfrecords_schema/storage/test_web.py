"""Images on web servers, which are read file by file."""

import concurrent.futures
import http.server
import threading
import time

import pytest

from pipelines.items import ImageError
from pipelines.vision import reading
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import clients, faults, files, finding
from tfrecords_schema.storage.filesystems import require_filesystems


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str]
    lock: threading.Lock
    now, most_at_once, failures = 0, 0, 0

    def do_GET(self):
        kind = type(self)
        with kind.lock:
            kind.asked.append(self.path)
            kind.now += 1
            kind.most_at_once = max(kind.most_at_once, kind.now)
        try:
            self._get()
        finally:
            with kind.lock:
                kind.now -= 1

    def _get(self):
        word, _, rest = self.path.lstrip("/").partition("/")
        if word == "hops" and int(rest):
            return self._answer(302, b"", [("Location", f"/hops/{int(rest) - 1}")])
        if word == "missing":
            return self._answer(404, b"no")
        if word == "forbidden":
            return self._answer(403, b"no")
        if word == "busy" and type(self).failures:
            type(self).failures -= 1
            return self._answer(429, b"later")
        if word == "endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            while True:
                self.wfile.write(b"x" * 100_000)
        if word == "huge":
            self.send_response(200)
            self.send_header("Content-Length", str(50 << 30))
            self.end_headers()
            return None
        if word == "slow":
            time.sleep(0.1)
        return self._answer(200, self.path.encode())

    def _answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Clients hang up on answers that are too large."""


@pytest.fixture
def web():
    handler = type("Web", (Handler,), {"asked": [], "lock": threading.Lock()})
    clients.use_flags({})
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
    clients.use_flags({})


def refused(uri: str, retries: int = 0) -> tuple[str, str]:
    with pytest.raises(ImageError) as error:
        reading.read(uri, retries)
    assert "\n" not in error.value.message
    return error.value.error, error.value.message


def test_names_and_queries_are_sent_as_they_are_written(web):
    url, handler = web
    for written, sent in {
        "a.jpg?size=2&x=%2F": "a.jpg?size=2&x=%2F",
        "a%20b/%5B1%5D.jpg": "a%20b/%5B1%5D.jpg",
        "a b/é.jpg": "a%20b/%C3%A9.jpg",
        "a.jpg#fragment": "a.jpg",
    }.items():
        assert reading.read(f"{url}/{written}") == f"/{sent}".encode() and handler.asked.pop() == f"/{sent}"


def test_what_is_refused_and_why(web, monkeypatch):
    url, handler = web
    assert refused(f"{url}/missing") == ("Absent", "no such file")
    error, message = refused(f"{url}/forbidden", retries=3)
    assert error == "Unreadable" and "403" in message and len(handler.asked) == 2, "asked once each"
    monkeypatch.setattr(reading, "_MAX_FILE_BYTES", 1_000_000)
    start = time.monotonic()
    assert refused(f"{url}/huge") == ("TooLarge", f"{50 << 30} bytes, more than 1000000")
    assert refused(f"{url}/endless")[0] == "TooLarge"
    assert time.monotonic() - start < 5
    assert refused("http://127.0.0.1:1/x.jpg")[0] == "Unreachable"


def test_redirects_are_followed_five_times(web):
    url, _ = web
    assert reading.read(f"{url}/hops/5") == b"/hops/0"
    assert refused(f"{url}/hops/6", retries=3)[0] == "Unreadable"


def test_a_busy_server_is_asked_again(web):
    url, handler = web
    handler.failures = 2
    assert refused(f"{url}/busy")[0] == "Unreachable"
    assert reading.read(f"{url}/busy", faults.READ_RETRIES) == b"/busy"


def test_a_host_is_not_flooded(web):
    url, handler = web
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda n: reading.read(f"{url}/slow/{n}"), range(64)))
    assert found == [f"/slow/{n}".encode() for n in range(64)] and 4 <= handler.most_at_once <= 8


def test_it_is_no_place_to_list_or_to_write_to(web):
    url, _ = web
    with pytest.raises(InputError, match=f"^--output: no filesystem for {url}/out; web servers are read"):
        require_filesystems(output=f"{url}/out")
    with pytest.raises(InputError, match="does not tell which files it has"):
        finding.names(f"{url}/images")
    with pytest.raises(OSError, match="can be read only"):
        files.write_text(f"{url}/out", "x", "text")
