"""Object stores on this machine: moto's S3 and an emulator of Google's, each in a process of its own."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

BUCKET = "captioning-test"


class S3:
    """moto's server; for the tests' own look into it, boto3."""

    scheme = "s3"

    def __init__(self, endpoint: str):
        self.endpoint = endpoint
        self.env = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        self.env |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "2"}
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        self._client = boto3.client("s3", endpoint_url=endpoint, **keys)

    @staticmethod
    def command(port: int) -> list[str]:
        return ["moto_server", "--host", "127.0.0.1", "--port", str(port)]

    def make_bucket(self) -> None:
        self._client.create_bucket(Bucket=BUCKET)

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def get(self, name: str) -> bytes:
        return self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read()

    def make_public(self, name: str) -> None:
        self._client.put_object_acl(Bucket=BUCKET, Key=name, ACL="public-read")
        self._client.put_bucket_acl(Bucket=BUCKET, ACL="public-read")

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=name)

    def listing(self, prefix: str) -> dict[str, object]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {entry["Key"]: entry["LastModified"] for page in pages for entry in page.get("Contents", ())}


class Google:
    """gcp-storage-emulator; for the tests' own look into it, google-cloud-storage."""

    scheme = "gs"

    def __init__(self, endpoint: str):
        self.endpoint = endpoint
        # The last is for Beam's own clients, which would wait for the metadata server of a Google machine.
        self.env = {"STORAGE_EMULATOR_HOST": endpoint, "GOOGLE_CLOUD_PROJECT": "test", "NO_GCE_CHECK": "true"}
        options = {"api_endpoint": endpoint}
        self._client = storage.Client("test", AnonymousCredentials(), client_options=options)

    @staticmethod
    def command(port: int) -> list[str]:
        return ["gcp-storage-emulator", "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]

    def make_bucket(self) -> None:
        self._client.create_bucket(BUCKET)

    def put(self, name: str, content: bytes) -> None:
        self._client.bucket(BUCKET).blob(name).upload_from_string(content)

    def get(self, name: str) -> bytes:
        return self._client.bucket(BUCKET).blob(name).download_as_bytes()

    def delete(self, name: str) -> None:
        self._client.bucket(BUCKET).blob(name).delete()

    def listing(self, prefix: str) -> dict[str, object]:
        return {blob.name: blob.updated for blob in self._client.list_blobs(BUCKET, prefix=prefix)}


KINDS = {"s3": S3, "gs": Google}


class Store:
    """A running server with a bucket.

    Attributes:
      kind: "s3" or "gs".
      endpoint: its address.
      env: by which the clients of the product find it.
    """

    def __init__(self, server: S3 | Google, log: pathlib.Path):
        self._server, self._log, self.kind = server, log, server.scheme
        self.endpoint = server.endpoint
        self.env, self.put, self.get, self.delete = server.env, server.put, server.get, server.delete

    def url(self, *names: str) -> str:
        return f"{self.kind}://{BUCKET}/" + "/".join(names)

    def listing(self, prefix: str) -> dict[str, object]:
        """Name below the prefix -> when it was written; without the marks that some clients leave for directories."""
        found = self._server.listing(prefix.rstrip("/") + "/")
        return {name[len(prefix.rstrip("/")) + 1 :]: at for name, at in found.items() if not name.endswith("/")}

    def put_directory(self, directory: pathlib.Path, prefix: str) -> None:
        for path in pathlib.Path(directory).rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(directory)}", path.read_bytes())

    def get_directory(self, prefix: str, directory: pathlib.Path) -> pathlib.Path:
        for name in self.listing(prefix):
            path = pathlib.Path(directory) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(f"{prefix}/{name}"))
        return pathlib.Path(directory)

    def make_public(self, name: str) -> None:
        """Lets everybody list the bucket of an S3 server, and read one object of it."""
        self._server.make_public(name)

    def requests(self) -> list[str]:
        """The lines of the server's log that are of requests, so far."""
        return [line for line in self._log.read_text().splitlines() if " HTTP/1.1" in line]


@contextlib.contextmanager
def running(kind: str, directory: pathlib.Path):
    """A Store with an empty bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server_type = KINDS[kind]
    name, *flags = server_type.command(port)
    log = directory / f"{kind}.log"
    with log.open("w") as output:
        command = [str(pathlib.Path(sys.executable).with_name(name)), *flags]
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(process, endpoint, log)
        server = server_type(endpoint)
        server.make_bucket()
        yield Store(server, log)
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen, endpoint: str, log: pathlib.Path, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)


def environment(store: Store) -> dict[str, str]:
    """For a process of its own."""
    return {**os.environ, **store.env}
