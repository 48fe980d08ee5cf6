"""Which engine runs a pipeline: Beam's runners by name, and what is to be known of some before they do."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.engines.options import IN_PROCESS, pipeline_options
from tfrecords_schema.errors import InputError


@dataclasses.dataclass(frozen=True)
class Engine:
    """A runner of Beam's, with Beam's options. `choose` makes one."""

    name: str | None
    runner: Any
    options: Any

    def pipeline(self) -> Any:
        """An empty pipeline that it will run."""
        import apache_beam as beam

        return beam.Pipeline(runner=self.runner, options=self.options)

    def require_reachable(self, **places: str | Iterable[str] | None) -> None:
        """Raises InputError where Beam has no filesystem for a flag's path, or the engine's workers cannot see it."""
        for flag, found in places.items():
            for path in [found] if isinstance(found, str) else found or ():
                self._require_reachable(flag, path)

    def _require_reachable(self, flag: str, path: str) -> None:
        from apache_beam.io.filesystems import FileSystems

        try:
            FileSystems.get_filesystem(path)
        except ValueError as error:
            extra = "pip install 'apache-beam[gcp]' for gs://, 'apache-beam[aws]' for s3://"
            raise InputError(f"--{flag}: no filesystem for {path}: {_first_line(error)}; {extra}") from None
        if self.name == "DataflowRunner" and "://" not in path:
            raise InputError(
                f"--{flag}: Dataflow's workers do not see this machine's {path}; copy it to gs:// and name it there"
            )


def choose(beam_args: Sequence[str]) -> Engine:
    """The engine that the flags left for Beam ask for: the in-process FnApiRunner unless it is another.

    "DirectRunner" would first try to download the binary of another engine, Prism, and run something else where it can.

    Raises:
      InputError: a flag, or the runner's name, is not known.
    """
    from apache_beam.options.pipeline_options import StandardOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.runner import create_runner

    options = pipeline_options(beam_args)
    name = options.view_as(StandardOptions).runner
    # Its tracebacks, and an engine's errors line by line: ours is one line, the whole is in .work/error.txt.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    if name in IN_PROCESS:
        return Engine(name, FnApiRunner(provision_info=_quiet_workers()), options)
    if name == "DataflowRunner":  # tells where the job can be watched, and what state it is in
        logging.getLogger("apache_beam.runners.dataflow").setLevel(logging.INFO)
    try:
        return Engine(name, create_runner(name), options)
    except (ImportError, ValueError) as error:
        raise InputError(f"--runner: expected one of Beam's runners, found {name!r}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _quiet_workers() -> Any:
    """What worker processes on this machine are told: else they talk over the progress bar, and end in tracebacks."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo

    info = beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused-retrieval-token")  # as without us
    info.pipeline_options.update({"default_sdk_harness_log_level": "100"})
    return ExtendedProvisionInfo(info)
