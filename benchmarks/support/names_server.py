"""A bucket that does nothing but tell names, in no time: an S3 server in a process of its own, for benchmarks.listing.

An emulator that holds objects makes each page for longer than a client reads it.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator

_PAGE = 1000  # names
_ENTRY = (
    "<Contents><Key>{}image-{:09d}.jpg</Key><LastModified>2026-11-27T00:00:00.000Z</LastModified>"
    "<ETag>&quot;{:032x}&quot;</ETag><Size>163000</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


@functools.cache
def _page(prefix: str, token: str, directories: int, each: int) -> bytes:
    """An answer to ListObjectsV2: directories below `images/`, or the names in one of them."""
    if prefix == "images/":
        parts = [f"<CommonPrefixes><Prefix>images/{n:05d}/</Prefix></CommonPrefixes>" for n in range(directories)]
        more = ""
    else:
        start = int(token or 0)
        end = min(start + _PAGE, each)
        parts = [_ENTRY.format(prefix, number, number) for number in range(start, end)]
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < each else ""
    head = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    cut = f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
    return f"{head}{cut}{more}{''.join(parts)}</ListBucketResult>".encode()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directories = each = 0

    def do_GET(self) -> None:
        """One page."""
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        page = _page(asked.get("prefix", ""), asked.get("continuation-token", ""), self.directories, self.each)
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_) -> None:
        """Nothing."""


@contextlib.contextmanager
def running(directories: int, each: int) -> Iterator[dict[str, str]]:
    """The environment in which `s3://names/images` is a bucket with so many directories of so many images."""
    command = [sys.executable, "-m", "benchmarks.support.names_server", str(directories), str(each)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        endpoint = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        try:
            yield {**os.environ, **keys, "AWS_ENDPOINT_URL": endpoint}
        finally:
            process.kill()


def main() -> None:
    """Serves until it is killed; prints the port."""
    _Handler.directories, _Handler.each = map(int, sys.argv[1:])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
