"""Weights that are downloaded, from a server on this machine."""

import concurrent.futures
import contextlib
import dataclasses
import http.server
import os
import pathlib
import threading

import pytest

from tfrecords_schema.networks import registry

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def slow_server(monkeypatch):
    """(URL, an event for half of the first answer being sent, one for the other half): later answers come at once."""
    half, rest = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            is_first = not half.is_set()
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
            half.set()
            if is_first:
                rest.wait(60)
            self.wfile.write(CONTENT[len(CONTENT) // 2 :])

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/weights.h5", half, rest
        rest.set()
        server.shutdown()


@pytest.mark.parametrize("can_be_written", [True, False])
def test_weights_that_another_process_is_downloading_are_not_taken_by_halves(
    tmp_path, monkeypatch, slow_server, can_be_written
):
    url, half, rest = slow_server
    network = dataclasses.replace(registry.NETWORKS["vgg16"], keras_file=("weights.h5", url))
    monkeypatch.setitem(registry.NETWORKS, "vgg16", network)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path if can_be_written else tmp_path / "a file"))
    if not can_be_written:
        (tmp_path / "a file").touch()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with contextlib.ExitStack() as stack:
            stack.callback(rest.set)
            first = pool.submit(registry.weights_file, "vgg16", "imagenet")
            assert half.wait(60)
            found = registry.weights_file("vgg16", "imagenet")
            assert pathlib.Path(found).read_bytes() == CONTENT
        assert first.result(60) == found == registry.weights_file("vgg16", "imagenet")
    assert pathlib.Path(found).read_bytes() == CONTENT and os.listdir(os.path.dirname(found)) == ["weights.h5"]
