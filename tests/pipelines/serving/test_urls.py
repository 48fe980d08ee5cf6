"""Images by URL: every way around the check is tried, and no socket is opened to what is refused.

Two servers listen on loopback: at 127.0.0.2 one that counts as public here, at 127.0.0.1 one that is inside, and is
never to be connected to.
"""

import asyncio
import http.server
import sys
import threading
import time
import urllib.parse

import pytest

from pipelines.items import ImageError
from pipelines.serving.errors import RequestError
from pipelines.serving.urls import Fetcher, is_public
from tests.support.serving import running

PUBLIC, INSIDE = "127.0.0.2", "127.0.0.1"
REFUSED = ("read", "Refused", "expected an http(s) URL of a public address, found another")
_connected: list[tuple] = []
_watched = threading.local()


def _hook(event, arguments):
    if event == "socket.connect" and getattr(_watched, "on", False):
        _connected.append(arguments[1])


sys.addaudithook(_hook)  # sees every connection of Python's, whoever opens it; it cannot be taken away


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    inside = ""

    def do_GET(self):
        word, _, rest = self.path.lstrip("/").partition("/")
        if word == "image":
            return self._answer(200, b"the image")
        if word == "to":
            return self._answer(302, b"", Location=urllib.parse.unquote(rest).encode().decode("latin-1"))
        if word == "large":
            return self._answer(200, b"x" * 5000)
        if word == "lies":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"x" * 5000)
            self.close_connection = True
            return None
        if word == "packed":
            return self._answer(200, b"\x1f\x8b packed", **{"Content-Encoding": "gzip"})
        if word == "slow":
            time.sleep(3)
        if word == "busy":
            return self._answer(503, b"")
        return self._answer(404, b"")

    def _answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def port():
    """Of both servers."""
    with http.server.ThreadingHTTPServer((PUBLIC, 0), Handler) as public:
        number = public.server_port
        with http.server.ThreadingHTTPServer((INSIDE, number), Handler) as inside:
            for server in (public, inside):
                server.daemon_threads = True
                threading.Thread(target=server.serve_forever, daemon=True).start()
            yield number
            for server in (public, inside):
                server.shutdown()


class Names:
    """A resolver: each time that a name is asked for, it has the next of its answers, the last one for ever."""

    def __init__(self, **answers):
        self.answers = {f"{name}.example": list(map(str.split, found)) for name, found in answers.items()}
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        if host not in self.answers:  # as the system's, which knows numbers in every form
            return await Fetcher(1, 1)._by_system(host, port)
        found = self.answers[host]
        return found.pop(0) if len(found) > 1 else found[0]


def fetch(url, names=None, most=1000, total_s=2.0, hold=lambda count: None):
    """(What comes of a URL, the addresses that were connected to)."""
    fetcher = Fetcher(most, total_s, names or Names(), lambda address: address == PUBLIC or is_public(address))
    _connected.clear()
    _watched.on = True
    try:
        found = asyncio.run(fetcher.fetch(url, hold))
    finally:
        _watched.on = False
    hosts = [address[0] for address in _connected if isinstance(address, tuple)]
    return (found.args if isinstance(found, ImageError) else found), hosts


def test_an_image_of_a_public_address(port):
    names = Names(good=[PUBLIC])
    assert fetch(f"http://good.example:{port}/image", names) == (b"the image", [PUBLIC])
    assert fetch(f"http://{PUBLIC}:{port}/image") == (b"the image", [PUBLIC])
    found, hosts = fetch(f"http://good.example:{port}/to//image", names)
    assert found == b"the image" and set(hosts) == {PUBLIC}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/image",
        "http://localhost:{port}/image",
        "http://2130706433:{port}/image",
        "http://0x7f000001:{port}/image",
        "http://0x7f.1:{port}/image",
        "http://0177.0.0.1:{port}/image",
        "http://017700000001:{port}/image",
        "http://127.1:{port}/image",
        "http://127.0.0.1.:{port}/image",
        "http://①②⑦.⓪.⓪.①:{port}/image",
        "http://0:{port}/image",
        "http://0.0.0.0:{port}/image",
        "http://[::1]:{port}/image",
        "http://[::]:{port}/image",
        "http://[::ffff:127.0.0.1]:{port}/image",
        "http://[::ffff:7f00:1]:{port}/image",
        "http://[::127.0.0.1]:{port}/image",
        "http://[64:ff9b::7f00:1]:{port}/image",
        "http://[2002:7f00:1::]:{port}/image",
        "http://[fe80::1]:{port}/image",
        "http://[fe80::1%25lo]:{port}/image",
        "http://[fd00:ec2::254]/latest/meta-data",
        "http://169.254.169.254/latest/meta-data",
        "http://168.63.129.16/metadata",
        "http://100.100.100.200/latest/meta-data",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.0.1/",
        "http://192.0.0.192/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://user:word@{public}:{port}/image",
        "http://{public}:{port}@127.0.0.1:{port}/image",
        "file:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "ftp://{public}/image",
        "gopher://{public}:{port}/image",
        "data:image/png;base64,AAAA",
        "//{public}:{port}/image",
        "/etc/passwd",
        "http:///image",
        "",
    ],
)
def test_no_socket_is_opened_to_what_is_refused(port, url):
    named = url.format(port=port, public=PUBLIC)
    assert fetch(named) == (REFUSED, [])
    # The same behind a redirect of a server that is allowed.
    found, hosts = fetch(f"http://{PUBLIC}:{port}/to/{named}")
    assert set(hosts) == {PUBLIC}
    assert found == REFUSED or "://" not in named or named == "http:///image"  # which leads to the same server


def test_of_several_addresses_all_must_be_public(port):
    for found in (f"{PUBLIC} {INSIDE}", f"{INSIDE} {PUBLIC}", f"{PUBLIC} ::1", f"{PUBLIC} ::ffff:10.0.0.1", ""):
        assert fetch(f"http://mixed.example:{port}/image", Names(mixed=[found])) == (REFUSED, [])


def test_a_name_that_changes_has_nothing_to_change_between_check_and_use(port):
    """Public when asked first, inside afterwards: one question a connection, and the address is that of its answer."""
    names = Names(turning=[PUBLIC, INSIDE])
    assert fetch(f"http://turning.example:{port}/image", names) == (b"the image", [PUBLIC])
    assert names.asked == ["turning.example"]
    names = Names(turning=[PUBLIC, INSIDE])  # and in time for a redirect to itself
    assert fetch(f"http://turning.example:{port}/to//image", names) == (REFUSED, [PUBLIC])


def test_redirects_to_names_inside_and_without_end(port):
    names = Names(good=[PUBLIC], inside=[INSIDE], metadata=["169.254.169.254"])
    for where in (f"http://inside.example:{port}/image", "http://metadata.example/", f"//inside.example:{port}/image"):
        found, hosts = fetch(f"http://good.example:{port}/to/{where}", names)
        assert found == REFUSED and hosts == [PUBLIC]
    four = f"http://{PUBLIC}:{port}" + "/to/" * 4 + "/image"
    found, hosts = fetch(four.replace("/to//to/", f"/to/http://{PUBLIC}:{port}/to/"))
    assert found[1] in ("Unreadable", "Absent") and set(hosts) == {PUBLIC}
    found, _ = fetch(f"http://{PUBLIC}:{port}/to/" * 5 + "image")
    assert found == ("read", "Unreadable", "more than 3 redirects")


def test_proxies_of_the_environment_are_not_asked(port, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{INSIDE}:{port}")
    assert fetch(f"http://{PUBLIC}:{port}/image") == (b"the image", [PUBLIC])


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("nothing", "Absent", "no such file"),
        ("large", "TooLarge", "5000 bytes, more than 1000"),
        ("lies", "TooLarge", "bytes, more than 1000"),
        ("slow", "Unreachable", "not there within 0.5 seconds"),
        ("busy", "Unreachable", "ClientResponseError"),
    ],
)
def test_what_cannot_be_read(port, path, error, message):
    found, _ = fetch(f"http://{PUBLIC}:{port}/{path}", total_s=0.5)
    assert found[:2] == ("read", error) and message in found[2]


def test_what_is_packed_is_not_unpacked_and_bytes_are_counted(port):
    counted = []
    assert fetch(f"http://{PUBLIC}:{port}/packed", hold=counted.append)[0] == b"\x1f\x8b packed"
    assert sum(counted) == 9

    def full(count):
        raise RequestError(429, "memory_full", "")

    with pytest.raises(RequestError):
        fetch(f"http://{PUBLIC}:{port}/image", hold=full)


def test_nobody_answers():
    found, hosts = fetch(f"http://{PUBLIC}:9/")
    assert found == ("read", "Unreachable", "ClientConnectorError") and hosts == [PUBLIC]
    found, hosts = fetch("http://none.invalid/")
    assert found[:2] == ("read", "Unreachable") and not hosts


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_public_addresses(address):
    assert is_public(address)


def test_the_service_with_urls(trained, port, tmp_path):
    """As it comes, without a resolver of the tests': what is inside is refused, and told as the image's error."""
    with running(trained / "job/export", tmp_path / "log", "--allow_urls") as served:
        images = [{"url": f"http://127.0.0.1:{port}/image"}, {"url": "file:///etc/passwd"}]
        answer = served.captions({"images": images})
        assert answer.status == 422
        told = dict(zip(("stage", "error", "message"), REFUSED, strict=True))
        assert answer.json["images"] == [{"error": told}] * 2
        assert served.figure('captioning_images_total{outcome="read/Refused"}') == 2
