"""Which engine runs a pipeline: Beam's runners by name, and what is to be known of some before they do."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.engines import checks
from pipelines.engines.dataflow import require_image
from pipelines.engines.gpu import with_gpu
from pipelines.engines.options import DASK, DATAFLOW, IN_PROCESS, LOCAL, pipeline_options, short_name
from tfrecords_schema.errors import InputError

_OF_STORES = ("s3_", "hdfs_", "azure_", "blob_", "no_auth")  # Beam's flags, by how they begin
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"


@dataclasses.dataclass(frozen=True)
class Engine:
    """A runner of Beam's with its options, for one pipeline. `choose` makes one.

    Attributes:
      name: as `short_name` has it.
      options: Beam's.
      pipeline: an empty one, which the engine will run.
      accelerator: the resource hint of the extraction step.
    """

    name: str
    options: Any
    pipeline: Any
    accelerator: str | None

    @property
    def computes_here(self) -> bool:
        """Whether the forward passes surely run on this machine."""
        from apache_beam.options.pipeline_options import PortableOptions

        portable = self.options.view_as(PortableOptions)
        if portable.environment_type == "LOOPBACK":  # workers that the launcher itself starts
            return True
        return self.name in LOCAL and not portable.job_endpoint

    def require_reachable(self, **places: str | Iterable[str] | None) -> None:
        """Raises InputError where a flag's path cannot be reached, or the engine's workers cannot see it."""
        from tfrecords_schema.storage.filesystems import require_filesystems

        require_filesystems(**places)
        for flag, given in places.items() if self.name == DATAFLOW else ():
            for path in [given] if isinstance(given, str) else given or ():
                if "://" not in path:
                    told = "expected a place that Dataflow's workers see, such as gs://BUCKET/NAME"
                    raise InputError(f"--{flag}: {told}, found {path}")


def choose(
    beam_args: Sequence[str],
    gpu: str | None = None,
    accelerator: str | None = None,
    known_here: Sequence[str] = (),
) -> Engine:
    """The engine that the flags ask for, of them those left for Beam: by default the in-process FnApiRunner.

    "DirectRunner" would first try to download the binary of another engine, Prism, and run something else where it can.

    Args:
      beam_args: what is left of a command line, for Beam.
      gpu, accelerator: the flags `--gpu` and `--accelerator`.
      known_here: as of `pipeline_options`.

    Raises:
      InputError: a flag, or the runner's name, is not known.
    """
    from apache_beam.options.pipeline_options import StandardOptions
    from apache_beam.runners import create_runner
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    beam_args, accelerator = with_gpu(gpu, beam_args, accelerator)
    options = pipeline_options(beam_args, known_here)
    asked = options.view_as(StandardOptions).runner
    name = short_name(asked)
    _quieten(name)
    checks.check(name, options)
    if name in IN_PROCESS:
        return _engine(name, options, FnApiRunner(provision_info=_quiet_workers(options)), accelerator)
    if name == DATAFLOW:
        require_image(options, gpu=gpu is not None)
    if name == DASK:  # which Beam has under its whole name only
        asked = _DASK_RUNNER
    try:
        runner = create_runner(asked)
    except Exception as error:  # whatever the import of an engine's module raises
        extra = "; pip install 'apache-beam[dask]'" if name == DASK else ""
        raise InputError(
            f"--runner: expected one of Beam's runners, found {asked!r}: {_first_line(error)}{extra}"
        ) from None
    return _engine(name, options, runner, accelerator)


def _engine(name: str, options: Any, runner: Any, accelerator: str | None) -> Engine:
    import apache_beam as beam

    pipeline = checks.checked_by_beam(lambda: beam.Pipeline(runner, options))
    shutil.rmtree(pipeline.local_tempdir)  # for other languages' jars; Beam deletes it only after a run
    return Engine(name, options, pipeline, accelerator)


def _quieten(name: str) -> None:
    """Keeps Beam's tracebacks and an engine's errors off the screen: ours is one line, the whole is in error.txt."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_is_not_a_job_message)
    if name == DASK:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # after its import, which sets it
    if name == DATAFLOW:  # which tells what state the job is in, and, among much else, where it can be watched
        logging.getLogger("apache_beam.runners.dataflow.dataflow_runner").setLevel(logging.INFO)
        client = logging.getLogger("apache_beam.runners.dataflow.internal.apiclient")
        client.setLevel(logging.INFO)
        client.addFilter(_names_the_console)


def _is_not_a_job_message(record: logging.LogRecord) -> bool:
    return record.module != "portable_runner"


def _names_the_console(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or "monitoring console" in record.getMessage()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _quiet_workers(options: Any) -> Any:
    """What worker processes on this machine are told: else they talk over the progress bar, and end in tracebacks.

    By a class of Beam's that is not documented: FnApiRunner passes none of the options on to its workers, who
    need those for stores.
    """
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo

    info = beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused-retrieval-token")  # as without us
    given = options.get_all_options(drop_default=True).items()
    stores = {name: value for name, value in given if name.startswith(_OF_STORES)}
    info.pipeline_options.update({"default_sdk_harness_log_level": "100", **stores})
    return ExtendedProvisionInfo(info)
