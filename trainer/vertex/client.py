"""Vertex AI's JobService: sends a job there, and follows it to its end."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.storage import files
from trainer.vertex.spec import signposts

_CALL_S = 60.0  # a call of the service that takes longer has failed
_OUTAGE_S = 600.0  # while following, the service may be out of reach for so long
_ENDS = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")


def require_client() -> None:
    """Raises InputError where google-cloud-aiplatform is not installed."""
    try:
        import google.cloud.aiplatform_v1  # noqa: F401 - 2 s; the whole google.cloud.aiplatform takes 6
    except ImportError:
        raise InputError(
            "trainer.submit: expected google-cloud-aiplatform, found none; pip install '.[vertex]' "
            "(or give --local or --dry_run)"
        ) from None


class Jobs:
    """The jobs of one region, as Google's own client sees them."""

    def __init__(self, region: str, endpoint: str | None = None):
        """`endpoint` is a host, with https:// or without; http://HOST:PORT is reached without TLS and credentials.

        Raises:
          InputError: there are no credentials, or no client library.
        """
        require_client()
        import google.auth.exceptions
        from google.cloud.aiplatform_v1 import JobServiceClient
        from google.cloud.aiplatform_v1.services.job_service.transports import JobServiceGrpcTransport

        self.endpoint = endpoint or f"{region}-aiplatform.googleapis.com"
        scheme, _, host = self.endpoint.rpartition("://")
        if scheme not in ("", "http", "https") or not host or "/" in host:
            raise InputError(f"--api_endpoint: expected HOST, HOST:PORT or http://HOST:PORT, found {endpoint}")
        if scheme == "http":
            import grpc

            self._client = JobServiceClient(transport=JobServiceGrpcTransport(channel=grpc.insecure_channel(host)))
            return
        try:
            self._client = JobServiceClient(client_options={"api_endpoint": host})
        except google.auth.exceptions.GoogleAuthError as error:
            raise InputError(
                "credentials: expected Google's application default credentials, found none that work "
                f"({files.reason(error)}); run gcloud auth application-default login"
            ) from None

    def create(self, job: Mapping[str, Any], project: str, region: str) -> str:
        """Sends a job; returns its resource name. Raises RunError. Never sent twice: two jobs would start."""
        from google.cloud.aiplatform_v1 import CustomJob

        message = CustomJob.from_json(json.dumps(job))
        with self._errors():
            parent = f"projects/{project}/locations/{region}"
            return self._client.create_custom_job(parent=parent, custom_job=message, timeout=_CALL_S).name

    def follow(self, name: str, poll_s: float) -> None:
        """Prints each change of a job's state until its end. Raises RunError unless it succeeded."""
        from google.api_core.retry import Retry

        state = None
        while state not in _ENDS:
            if state:
                time.sleep(poll_s)
            with self._errors():
                patience: dict[str, Any] = (
                    {"retry": Retry(timeout=_OUTAGE_S)} if state else {}
                )  # a wrong address is told at once
                job = self._client.get_custom_job(name=name, timeout=_CALL_S, **patience)
            found = getattr(job.state, "name", str(job.state)).removeprefix("JOB_STATE_")  # a new state is a number
            if found != state:
                state = found
                print(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {state}", flush=True)
        if state != "SUCCEEDED":
            reason = f": {job.error.message}" if job.error.message else ""
            raise RunError(f"{name}: {state}{reason}; see {signposts(name)['logs']}")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import google.auth.exceptions
        from google.api_core.exceptions import GoogleAPIError

        try:
            yield
        except GoogleAPIError as error:
            code = getattr(getattr(error, "grpc_status_code", None), "name", type(error).__name__)
            raise RunError(f"{self.endpoint}: {code}: {files.reason(error)}") from None
        except google.auth.exceptions.GoogleAuthError as error:
            raise RunError(f"{self.endpoint}: {files.reason(error)}") from None
