"""A bucket on this machine, and what Google's real client libraries were made to put there."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from apache_beam.internal.gcp import auth
from apache_beam.io.filesystems import FileSystems
from gcp_storage_emulator.server import create_server
from google.cloud import storage

BUCKET = "captioning-tests"
IMAGE = "europe-docker.pkg.dev/project/repository/worker:1"


@contextlib.contextmanager
def emulated_bucket() -> Iterator[Bucket]:
    """A bucket in memory, which Google's clients in this process take for the real one."""
    server = create_server("localhost", 0, in_memory=True, default_bucket=BUCKET)
    options = FileSystems._pipeline_options
    # Else Beam asks for credentials four times, and waits longer each time, before it goes on without. There is no
    # public way to say so; `patch` fails where a name is not there any more.
    nobody = mock.patch.multiple(auth._Credentials, _credentials_init=True, _credentials=None)
    with server, nobody:
        endpoint = f"http://localhost:{server._api._httpd.socket.getsockname()[1]}"
        with mock.patch.dict(os.environ, {"STORAGE_EMULATOR_HOST": endpoint}):
            try:
                yield Bucket(storage.Client.create_anonymous_client().bucket(BUCKET))
            finally:
                FileSystems._pipeline_options = options


class Bucket:
    """Uploads what jobs read, and downloads what Beam's DataflowRunner staged."""

    def __init__(self, bucket: storage.Bucket):
        self._bucket = bucket

    def upload(self, directory: pathlib.Path, name: str) -> str:
        """Copies a directory's files; returns where they are."""
        for path in (path for path in directory.rglob("*") if path.is_file()):
            self._bucket.blob(f"{name}/{path.relative_to(directory)}").upload_from_filename(str(path))
        return f"gs://{BUCKET}/{name}"

    def write(self, name: str, text: str) -> str:
        """Writes one object; returns its URI."""
        self._bucket.blob(name).upload_from_string(text)
        return f"gs://{BUCKET}/{name}"

    def read(self, uri: str) -> bytes:
        """An object's content."""
        return self._bucket.blob(uri.removeprefix(f"gs://{BUCKET}/")).download_as_bytes()

    def names(self, prefix: str) -> list[str]:
        """The names of objects."""
        return [blob.name for blob in self._bucket.list_blobs(prefix=prefix)]

    def flags(self, name: str) -> list[str]:
        """Beam's flags that have a job written to `NAME/job` as a Flex Template's launcher does, and not run."""
        return [
            "--runner=DataflowRunner",
            "--project=my-project",
            "--region=europe-west4",
            f"--job_name={name}",
            f"--temp_location=gs://{BUCKET}/{name}/temp",
            f"--staging_location=gs://{BUCKET}/{name}/staging",
            f"--template_location=gs://{BUCKET}/{name}/job",
            "--no_auth",
            f"--sdk_container_image={IMAGE}",
        ]

    def job(self, name: str) -> Job:
        """The job that a command with `flags(name)` wrote."""
        from apache_beam.portability.api import beam_runner_api_pb2

        text = self.read(f"gs://{BUCKET}/{name}/job")
        job = json.loads(text)
        graph = self.read(job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"])
        # Beam's options are those of all classes that this process has: of other tests' too, until they are collected.
        known = len(json.dumps(job["environment"]["sdkPipelineOptions"]))
        return Job(job["environment"], beam_runner_api_pb2.Pipeline.FromString(graph), len(text) - known, len(graph))


class Job:
    """What Dataflow would be sent.

    Attributes:
      environment: options, experiments and worker pools.
      graph: the pipeline.
      sizes: bytes of the job without Beam's options, of the graph.
    """

    def __init__(self, environment: dict[str, Any], graph: Any, *sizes: int):
        self.environment, self.graph, self.sizes = environment, graph, sizes
        (self.pool,) = environment["workerPools"]

    def hints(self) -> dict[str, dict[str, str]]:
        """The resource hints of each step that has some, by its name."""
        found = {}
        for transform in self.graph.components.transforms.values():
            if transform.environment_id:
                hints = self.graph.components.environments[transform.environment_id].resource_hints
                if hints:
                    found[transform.unique_name] = {urn: value.decode() for urn, value in hints.items()}
        return found
