"""Objects larger than memory: their bytes are not fetched to find that out."""

import http.server
import threading

import pytest

from pipelines.items import ImageError
from pipelines.vision import reading
from tfrecords_schema.storage import clients

SIZE = 50 << 30


class Server(http.server.ThreadingHTTPServer):
    """A store whose only object has 50 GiB, all of which it sends to whoever takes them.

    Attributes:
      sent: bytes, so far.
    """

    sent = 0

    def handle_error(self, request, client_address):
        """Clients hang up."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        while True:
            self.wfile.write(bytes(1 << 16))
            self.server.sent += 1 << 16

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for name, value in {"AWS_ENDPOINT_URL": endpoint, "STORAGE_EMULATOR_HOST": endpoint, **keys}.items():
            monkeypatch.setenv(name, value)
        clients.use_flags({})
        yield server
        server.shutdown()
    clients.use_flags({})


@pytest.mark.parametrize("uri", ["s3://bucket/x.jpg", "gs://bucket/x.jpg", "http://127.0.0.1:{}/x.jpg"])
def test_what_is_too_large_is_not_fetched(server, uri):
    """But for what a connection holds before anybody reads it, some megabytes."""
    with pytest.raises(ImageError) as error:
        reading.read(uri.format(server.server_port))
    assert (error.value.stage, error.value.error) == ("read", "TooLarge")
    assert error.value.message == f"{SIZE} bytes, more than {1 << 30}"
    assert server.sent < 64 << 20
