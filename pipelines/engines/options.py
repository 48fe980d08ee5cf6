"""What is left of a command line for Beam: its options, checked before anything runs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from tfrecords_schema.errors import ArgumentParser, InputError

IN_PROCESS = ("direct", "fnapi")  # one engine by two names; see engine.py
DATAFLOW = "dataflow"
DASK = "dask"
_WITHOUT_SERVER = (*IN_PROCESS, "bundlebaseddirect", DATAFLOW, DASK)
_ANSWER_TIMEOUT_S = 20


def short_name(runner: str | None) -> str:
    """What a runner is called without regard to its spelling: Beam takes DataflowRunner and dataflow for the same."""
    return (runner or "direct").lower().rpartition(".")[2].removesuffix("runner")


def pipeline_options(beam_args: Sequence[str]) -> Any:
    """Beam's options from the flags that were not ours, with Beam's filesystems told of them.

    Raises:
      InputError: a flag that neither Beam nor the engine's job server knows, which Beam itself would pass over in
        silence; or no job server answers.
    """
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions

    flags = list(beam_args)
    runner = short_name(PipelineOptions(flags).view_as(StandardOptions).runner)
    if runner == DASK:
        with contextlib.suppress(ImportError):  # declares Dask's flags; whether it is installed, `choose` tells
            import apache_beam.runners.dask.dask_runner  # noqa: F401
    known = ArgumentParser(add_help=False)  # Beam's own would answer a mistake with its whole usage
    for options_class in _subclasses(PipelineOptions):
        options_class._add_argparse_args(known)
    options = PipelineOptions(flags)
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint:
        for name in _server_flags(endpoint):
            if f"--{name}" not in known._option_string_actions:
                known.add_argument(f"--{name}", nargs="?")
    _, unknown = known.parse_known_args(flags)
    # A job server that Beam has yet to start has flags of its own, which nobody can ask it for.
    if unknown and (endpoint or runner in _WITHOUT_SERVER):
        raise InputError(f"{unknown[0]}: neither this command nor Beam knows this flag; see --help")
    FileSystems.set_options(options)
    return options


def _subclasses(cls: type) -> set[type]:
    found = {c for child in cls.__subclasses__() for c in (child, *_subclasses(child))}
    return {c for c in found if "_add_argparse_args" in vars(c)}


def _server_flags(endpoint: str) -> list[str]:
    """The names of the flags that a job server knows besides Beam's. Raises InputError where none answers."""
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    with grpc.insecure_channel(endpoint) as channel:
        service = beam_job_api_pb2_grpc.JobServiceStub(channel)
        request = beam_job_api_pb2.DescribePipelineOptionsRequest()
        try:
            answer = service.DescribePipelineOptions(request, timeout=_ANSWER_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return []
            told = f"expected a Beam job server at {endpoint}, found none: {error.details()}"
            raise InputError(f"--job_endpoint: {told}; start it first") from None
    return [option.name for option in answer.options]
