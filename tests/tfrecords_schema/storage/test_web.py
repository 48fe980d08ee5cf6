"""Images on web servers, which are read file by file."""

import concurrent.futures
import datetime
import http.server
import ipaddress
import os
import pathlib
import ssl
import subprocess
import sys
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipelines.items import ImageError
from pipelines.vision import reading
from tests.support import ROOT
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import clients, faults, files, finding
from tfrecords_schema.storage import web as web_module
from tfrecords_schema.storage.filesystems import require_filesystems


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str]
    lock: threading.Lock
    released: threading.Event
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
        if word == "silent":
            return type(self).released.wait(30)
        if word == "trickle":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            while not type(self).released.wait(0.05):
                self.wfile.write(b"x")
            return None
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
    handler = type("Web", (Handler,), {"asked": [], "lock": threading.Lock(), "released": threading.Event()})
    clients.use_flags({})
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        handler.released.set()
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


@pytest.mark.parametrize(("word", "limit"), [("silent", "_READ_S"), ("trickle", "_TOTAL_S")])
def test_a_server_has_so_much_time(web, word, limit, monkeypatch):
    """To begin, and for all of a file; after that it may be asked again."""
    url, handler = web
    monkeypatch.setattr(web_module, limit, 0.3)
    clients.forget()
    assert refused(f"{url}/{word}", retries=1)[0] == "Unreachable" and handler.asked == [f"/{word}"] * 2


def certificate(directory: pathlib.Path) -> pathlib.Path:
    """A key and a certificate for 127.0.0.1 that nobody else has signed, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (directory / "own.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + signed.public_bytes(serialization.Encoding.PEM)
    )
    return directory / "own.pem"


_READ = """
import sys
from pipelines.items import ImageError
from pipelines.vision import reading
try:
    print(reading.read(sys.argv[1], 3).decode())
except ImageError as error:
    print(error.error, error.message)
"""


@pytest.mark.parametrize("trusted", [True, False])
def test_https(web, tmp_path, trusted):
    """In a process of its own, as certificates are loaded once; who cannot prove its name is not asked again."""
    _, handler = web
    own = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    with Server(("127.0.0.1", 0), handler) as server:
        accepted, accept = [], server.get_request
        server.get_request = lambda: (accepted.append(1), accept())[1]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        command = [sys.executable, "-c", _READ, f"https://127.0.0.1:{server.server_port}/a.jpg"]
        env = os.environ | ({"SSL_CERT_FILE": str(own)} if trusted else {})
        found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        server.shutdown()
    assert not found.returncode, found.stderr
    if trusted:
        assert found.stdout == "/a.jpg\n"
    else:
        assert found.stdout.startswith("Unreadable ") and "certificate verify failed" in found.stdout, found.stdout
        assert len(accepted) == 1


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
