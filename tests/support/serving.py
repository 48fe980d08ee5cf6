"""The captioning service in a process of its own, with the tests' tiny network, and a client that asks it.

`python -m tests.support.serving …` is `python -m pipelines.serve …`, with that network in the registry.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support import ROOT
from tests.support.small import TINY
from tfrecords_schema.networks import registry

_ENDS_S = 60
_OURS = ("CAPTIONING_TOKEN", "PORT", "AIP_HTTP_PORT", "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE")


@dataclasses.dataclass(frozen=True)
class Answer:
    """Of HTTP; the names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a refusal."""
        return self.json["error"]["code"]


@dataclasses.dataclass
class Served:
    """A service that runs; `log` is what it writes to stderr."""

    process: subprocess.Popen
    port: int
    log: pathlib.Path

    def connection(self, timeout: float = 60) -> http.client.HTTPConnection:
        """A new one."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, path: str, body: Any = None, kind: str = "image/jpeg", **headers: str) -> Answer:
        """POST where there is a body, else GET. Bodies other than bytes are sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body, kind = json.dumps(body).encode(), "application/json"
        with contextlib.closing(self.connection()) as connection:
            given = {"Content-Type": kind, **headers} if body is not None else headers
            connection.request("GET" if body is None else "POST", path, body, given)
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())

    def captions(self, body: Any, query: str = "", kind: str = "image/jpeg", **headers: str) -> Answer:
        """POST /v1/captions."""
        return self.ask(f"/v1/captions{query}", body, kind, **headers)

    def logged(self) -> list[dict[str, Any]]:
        """A line for each request for captions."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def figure(self, name: str) -> float:
        """One of /metrics, as it stands there: `captioning_images_total{outcome="ok"}`."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("/metrics").body.decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(_ENDS_S)


@contextlib.contextmanager
def running(model: object, log: pathlib.Path, *flags: str, wait: bool = True, **environ: str) -> Iterator[Served]:
    """A service on a free port; `wait` until it is ready."""
    command = [sys.executable, "-m", "tests.support.serving", "--model", str(model), "--port", "0", *flags]
    clean = {name: value for name, value in os.environ.items() if name not in _OURS}
    with (
        log.open("w") as file,
        subprocess.Popen(command, cwd=ROOT, env=clean | environ, stdout=-1, stderr=file, text=True) as process,
    ):
        try:
            assert process.stdout
            said = process.stdout.readline()
            found = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", said)
            assert found, said + log.read_text()
            assert not wait or process.stdout.readline() == "ready\n", log.read_text()
            yield Served(process, int(found[1]), log)
        finally:
            process.kill()


def form(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """(multipart/form-data of files by their names, its Content-Type)."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def content(data: bytes) -> dict[str, str]:
    """An image in JSON."""
    return {"content": base64.b64encode(data).decode()}


def until(condition: Any, seconds: float = 30) -> None:
    """Waits for something that is to come; fails if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


if __name__ == "__main__":
    registry.NETWORKS["tiny"] = TINY
    from pipelines import serve

    serve.main(sys.argv[1:])
