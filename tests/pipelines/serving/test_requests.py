"""What is refused, with which status; tokens, limits, what is logged, and how the service starts and ends."""

import contextlib
import io
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from tests.support import ROOT
from tests.support.serving import content, form, running, until

MB = 1_000_000


@pytest.fixture(scope="module")
def limited(trained, tmp_path_factory):
    """A service with narrow limits, and a token."""
    flags = ["--max_request_mb", "1", "--max_images", "2", "--max_queue", "1", "--max_pixels", "10000"]
    flags += ["--upload_s", "1", "--max_beam_width", "4"]
    log = tmp_path_factory.mktemp("limited") / "log"
    with running(trained / "job/export", log, *flags, CAPTIONING_TOKEN="sesame") as one:
        yield one


def asked(limited, *given, **more):
    return limited.captions(*given, **more, Authorization="Bearer sesame")


@pytest.mark.parametrize(
    ("body", "kind", "query", "status", "code", "told"),
    [
        (b"x", "text/plain", "", 415, "media_type", "expected Content-Type image/…, .* found 'text/plain'"),
        (b"x", "multipart/form-data", "", 400, "form", "boundary"),
        (b"x", "multipart/form-data; boundary=a", "", 400, "form", "found something else"),
        (b"{", "application/json", "", 422, "json", "Invalid JSON"),
        ({"images": []}, "", "", 422, "json", "images: List should have at least 1"),
        ({"images": [{}]}, "", "", 422, "json", "images.0: .*expected content or url"),
        ({"images": [{"content": "***"}]}, "", "", 422, "json", "images.0.content: expected base64"),
        ({"images": [content(b"x")], "more": 1}, "", "", 422, "json", "more: Extra inputs"),
        ({"images": [content(b"x")]}, "", "?seed=1", 422, "options", "options in the JSON"),
        (
            {"images": [content(b"x")], "options": {"forbid_words": "/etc/passwd"}},
            "",
            "",
            422,
            "json",
            "option 'forbid_words'",
        ),
        ({"images": [{"url": "http://127.0.0.1/"}]}, "", "", 422, "urls", "--allow_urls"),
        (b"x", "image/png", "?beam_width=21", 422, "options", "query.beam_width: .* less than or equal to 20"),
        (b"x", "image/png", "?max_length=101", 422, "options", "less than or equal to 100"),
        (b"x", "image/png", "?beams=2", 422, "options", "^unknown option 'beams'$"),
        (b"x", "image/png", "?temperature=nan&sample=1", 422, "options", "temperature: .* finite"),
        (b"x", "image/png", "?temperature=2", 422, "options", "^temperature: expected --sample"),
        (b"x", "image/png", "?prefix=zebra", 422, "options", "^prefix: expected words of the model's vocabulary"),
        (b"x", "image/png", "?beam_width=2&captions_per_image=3", 422, "options", "captions_per_image"),
    ],
)
def test_requests_that_do_not_fit(served, body, kind, query, status, code, told):
    answer = served.captions(body, query, kind)
    assert (answer.status, answer.code) == (status, code)
    assert re.search(told, answer.json["error"]["message"])
    assert len(answer.json["error"]["message"]) < 700


def test_odd_values_of_options_are_answered_or_refused(served, photos):
    names = [one["name"] for one in served.ask("/openapi.json").json["paths"]["/v1/captions"]["post"]["parameters"]]
    values = [None, True, -1, 0, 1, 2, 20, 100, 1e308, -1e308, 2**31, 10**30, "", "x", "a" * 2000, "\0", [], [1], {}]
    image = content(photos[0].read_bytes())
    for options in [{name: value} for name in names for value in values]:
        found = [served.captions({"images": [image], "options": options | more}) for more in ({}, {"sample": True})]
        assert {(one.status, one.json.get("error", {}).get("code")) for one in found} <= {
            (200, None),
            (422, "json"),
            (422, "options"),
            (422, None),  # no caption that the rules allow
        }, options


def test_json_that_is_deep_is_refused(served):
    answer = served.captions(b'{"images":' + b"[" * 100_000, kind="application/json")
    assert (answer.status, answer.code) == (422, "json")


def test_a_form_has_files_alone(served):
    body, kind = form({"a.jpg": b"x"})
    answer = served.captions(body.replace(b'; filename="a.jpg"', b""), kind=kind)
    assert (answer.status, answer.code) == (422, "form") and "options go into the query" in answer.body.decode()


def test_other_routes_and_methods(served):
    assert (served.ask("/nothing").status, served.ask("/nothing").code) == (404, "route")
    assert served.ask("/v1/captions").status == 405
    assert served.ask("/livez").json == {"status": "alive"} and served.ask("/readyz").json == {"status": "ready"}


def test_a_token_is_needed_but_for_probes_and_documents(limited, photos):
    data = photos[0].read_bytes()
    for headers in ({}, {"Authorization": "Bearer open"}, {"Authorization": "sesame"}, {"Authorization": "Bearer ü"}):
        answer = limited.captions(data, **{k: v.encode().decode("latin-1") for k, v in headers.items()})
        assert (answer.status, answer.code) == (401, "token") and answer.headers["www-authenticate"] == "Bearer"
    assert asked(limited, data).status == 200
    assert limited.ask("/metrics").status == 401
    assert b"captioning_requests_total" in limited.ask("/metrics", Authorization="Bearer sesame").body
    assert [limited.ask(path).status for path in ("/livez", "/readyz", "/openapi.json")] == [200] * 3


def test_limits_of_a_request(limited, photos):
    data = photos[0].read_bytes()
    assert (found := asked(limited, b"x" * (MB + 1))).status == 413 and found.code == "request_too_large"
    assert asked(limited, b"x" * MB).status == 422
    body, kind = form({f"{n}.jpg": data for n in range(3)})
    assert (found := asked(limited, body, kind=kind)).status == 413 and "1 to 2 images, found 3" in found.body.decode()
    body, kind = form({f"{n}.jpg": data for n in range(2)})
    found = asked(limited, body, kind=kind)
    assert (found.status, found.code) == (429, "queue_full") and 1 <= int(found.headers["retry-after"]) <= 60
    assert asked(limited, data, "?beam_width=5").code == "options"
    assert asked(limited, data).status == 200  # and the queue is empty again


def test_large_images_are_refused_from_their_header(limited):
    bomb = io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    answer = asked(limited, bomb.getvalue())
    assert answer.json["images"][0]["error"]["message"] == "8000 x 8000 pixels, more than 10000"


def test_a_body_without_a_length_is_counted_as_it_comes(limited):
    with contextlib.closing(limited.connection()) as connection:
        chunks = (b"x" * 100_000 for _ in range(100))
        with contextlib.suppress(ConnectionError):  # it may be told before all is sent
            headers = {"Content-Type": "image/png", "Authorization": "Bearer sesame"}
            connection.request("POST", "/v1/captions", chunks, headers, encode_chunked=True)
        assert connection.getresponse().status == 413


@pytest.mark.slow
def test_slow_clients_are_let_go(limited):
    """One that sends no head, one that sends half of it, one that stops within its body; and nothing is held."""
    head = b"POST /v1/captions HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nAuthorization: Bearer sesame\r\n"
    for sent, expected in (
        (b"", b""),
        (b"POST /v1/cap", b""),
        (head, b""),
        (head + b"Content-Length: 900\r\n\r\nabc", b"408"),
    ):
        with socket.create_connection(("127.0.0.1", limited.port), timeout=30) as client:
            client.sendall(sent)
            found = b""
            with contextlib.suppress(ConnectionError):
                while part := client.recv(4096):
                    found += part
            assert found[9:12] == expected
    until(lambda: b"captioning_held_bytes 0.0" in limited.ask("/metrics", Authorization="Bearer sesame").body)


def test_clients_that_go_away_cost_nothing(served, photos):
    """In the middle of an upload, and while they wait: the queue is empty afterwards, and others are answered."""
    data = photos[0].read_bytes()
    before = served.figure('captioning_requests_total{outcome="gone"}')
    for whole in (False, True):
        with contextlib.closing(served.connection()) as connection:
            connection.putrequest("POST", "/v1/captions?beam_width=20")
            connection.putheader("Content-Type", "image/jpeg")
            connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data if whole else data[:100])
    until(lambda: served.figure('captioning_requests_total{outcome="gone"}') > before)
    until(lambda: served.figure("captioning_queue_images") == served.figure("captioning_held_bytes") == 0)
    assert served.captions(data).status == 200


def test_captions_that_take_too_long(trained, photos, tmp_path):
    with running(trained / "job/export", tmp_path / "log", "--timeout_s", "0.0001") as served:
        answer = served.captions(photos[0].read_bytes())
        assert (answer.status, answer.code) == (504, "timeout")
        until(lambda: served.figure("captioning_queue_images") == 0)


def test_nothing_of_a_request_is_logged_but_id_size_time_and_outcome(served, photos):
    body, kind = form({"secret-name.jpg": photos[0].read_bytes()})
    answer = served.captions(body, "?seed=0&prefix=a", kind)
    refused = served.captions(b"secret bytes", "?secret=query")
    asked = [answer.headers["x-request-id"], refused.headers["x-request-id"]]
    # A line is written when the answer has left.
    until(lambda: {one["id"] for one in served.logged()} >= set(asked))
    one, two = (line for line in served.logged() if line["id"] in asked)
    assert set(one) == set(two) == {"at", "id", "bytes", "ms", "outcome"}
    assert (one["id"], one["bytes"], one["outcome"]) == (answer.headers["x-request-id"], len(body), "ok")
    assert (two["id"], two["outcome"]) == (refused.headers["x-request-id"], "options")
    assert "secret" not in served.log.read_text()


def test_sigterm_finishes_what_there_is_and_refuses_more(trained, photos, tmp_path):
    flags = ("--max_batch", "1", "--drain_s", "50")
    with running(trained / "job/export", tmp_path / "log", *flags) as served, ThreadPoolExecutor(8) as pool:
        data = photos[0].read_bytes()
        slow = "?beam_width=20&max_length=100&min_length=100"
        asked = [pool.submit(served.captions, data, slow) for _ in range(8)]
        until(lambda: served.figure("captioning_queue_images") >= 4)
        assert served.end() == 0
        assert [one.result().status for one in asked] == [200] * 8
        with pytest.raises(ConnectionRefusedError):
            served.ask("/livez")


def test_it_ends_within_drain_s(trained, photos, tmp_path):
    with running(trained / "job/export", tmp_path / "log", "--drain_s", "0", "--upload_s", "300") as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(
                b"POST /v1/captions HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
            )
            until(lambda: served.ask("/livez").status == 200)
            assert served.end(signal.SIGINT) == 130


def test_it_is_not_ready_before_the_model_is_there(trained, tmp_path):
    with running(trained / "job/export", tmp_path / "log", wait=False) as served:
        answer = served.ask("/readyz")
        assert (answer.status, answer.code) == (503, "not_ready") and served.ask("/livez").status == 200
        assert served.captions(b"x").status == 503
        assert served.end() == 0


def test_mistakes_end_in_one_line(tmp_path, trained):
    def told(*flags: str, **environ: str) -> str:
        command = [sys.executable, "-m", "pipelines.serve", *flags]
        found = subprocess.run(command, cwd=ROOT, env={"PATH": "", **environ}, capture_output=True, text=True)
        assert found.returncode == 2 and found.stderr.count("\n") == 1
        return found.stderr

    path = {"PYTHONPATH": ":".join(sys.path)}
    assert told("--model", str(tmp_path), "--port", "0", **path).startswith("error: --model: expected an export")
    assert told("--model", "x", PORT="http", **path) == (
        "error: PORT: expected a port in the environment, found 'http'\n"
    )
    assert told("--model", "x", PORT="1", AIP_HTTP_PORT="65536", **path).startswith("error: AIP_HTTP_PORT: expected")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        found = told("--model", str(trained / "job/export"), **path, PORT=port)
        assert found == (
            f"error: --host, --port: expected an address to listen on, found 127.0.0.1:{port}: Address already in use\n"
        )
