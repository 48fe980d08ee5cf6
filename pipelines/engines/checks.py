"""Mistakes in Beam's flags that Beam finds out late, tells at length, or passes over."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from pipelines.engines.options import DATAFLOW, IN_PROCESS
from tfrecords_schema.errors import InputError

_ENVIRONMENTS = ("DOCKER", "PROCESS", "EXTERNAL", "LOOPBACK")
_LOOPBACK = ("localhost", "127.0.0.1")
_PROBE_TIMEOUT_S = 5


def check(name: str, options: Any) -> None:
    """Raises InputError where the options do not fit each other, or the engine of this short name."""
    from apache_beam.options import pipeline_options as beam

    endpoint = options.view_as(beam.PortableOptions).job_endpoint
    if endpoint and name in IN_PROCESS:
        raise InputError(f"--job_endpoint: expected --runner beside it, found none; name the engine at {endpoint}")
    if name == "portable" and not endpoint:
        raise InputError("--job_endpoint: expected the HOST:PORT of a Beam job server, found none; see docs/engines.md")
    if options.view_as(beam.TestOptions).dry_run and name != DATAFLOW:
        raise InputError("--dry_run: expected only with --runner=DataflowRunner; leave it out")
    workers = options.view_as(beam.DirectOptions).direct_num_workers
    if workers is not None and workers < 0:
        raise InputError(f"--direct_num_workers: expected at least 0, found {workers}")
    if name == DATAFLOW:
        _check_places(options.view_as(beam.GoogleCloudOptions))
    if endpoint:
        _check_environment(options.view_as(beam.PortableOptions))


def _check_places(google: Any) -> None:
    for flag in ("temp_location", "staging_location"):
        value = getattr(google, flag)
        # Given another one, Beam would look for a bucket of its own making, for minutes where there is no network.
        if value is not None and not re.match(r"gs://[a-z0-9][-_a-z0-9.]+[a-z0-9]/.", value):
            raise InputError(f"--{flag}: expected gs://BUCKET/NAME, found {value}")
    if not google.temp_location and not google.staging_location:
        raise InputError("--temp_location: expected gs://BUCKET/NAME for Dataflow's temporary files, found none")
    if google.region and not re.fullmatch(r"[a-z]+-[a-z]+[0-9]+", google.region):
        raise InputError(f"--region: expected a region such as europe-west4, found {google.region}")


def _check_environment(portable: Any) -> None:
    kind, config = portable.environment_type, portable.environment_config
    if kind and kind not in _ENVIRONMENTS and not kind.startswith("beam:"):
        raise InputError(f"--environment_type: expected one of {', '.join(_ENVIRONMENTS)}, found {kind}")
    if kind != "EXTERNAL":
        return
    host, _, port = (config or "").rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--environment_config: expected HOST:PORT of a worker pool, found {config or 'none'}")
    # Seen from the engine's workers: only if these are on this machine too can it be told from here.
    if host in _LOOPBACK and portable.job_endpoint.rpartition(":")[0] in _LOOPBACK:
        try:
            socket.create_connection((host, int(port)), _PROBE_TIMEOUT_S).close()
        except OSError as error:
            told = f"expected a worker pool at {config}, found none: {error.strerror or error}"
            raise InputError(f"--environment_config: {told}; start one, see docs/engines.md") from None


def checked_by_beam(make: Callable[[], Any]) -> Any:
    """A new pipeline, of which Beam checks the options. Raises InputError, in Beam's words and one line."""
    try:
        return make()
    except Exception as error:  # Google's are of many kinds
        told = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
        details = "; ".join(told[1:] or told)
        missing = re.search(r"Missing required option: (\w+)", details)
        raise InputError(f"--{missing[1]}: expected a value, found none" if missing else details) from None
