"""What is left of a command line for Beam: its options, checked before anything runs."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

from tfrecords_schema.errors import ArgumentParser, InputError
from tfrecords_schema.storage import clients
from tfrecords_schema.text import did_you_mean

IN_PROCESS = ("direct", "fnapi")  # one engine by two names; see engine.py
LOCAL = (*IN_PROCESS, "bundlebaseddirect", "prism")  # all of them on this machine, unless a job server is named
DATAFLOW = "dataflow"
DASK = "dask"
_WITHOUT_SERVER = (*IN_PROCESS, "bundlebaseddirect", DATAFLOW, DASK)
_ANSWER_TIMEOUT_S = 20


def short_name(runner: str | None) -> str:
    """What a runner is called without regard to its spelling: Beam takes DataflowRunner and dataflow for the same."""
    return (runner or "direct").lower().rpartition(".")[2].removesuffix("runner")


def pipeline_options(beam_args: Sequence[str], known_here: Sequence[str] = ()) -> Any:
    """Beam's options from the flags that were not ours, with our clients of stores told of them.

    Args:
      known_here: the names of the command's own flags, of which the nearest is told to whoever gives an unknown one.

    Raises:
      InputError: a flag that neither Beam nor the engine's job server knows, which Beam itself would pass over in
        silence; or no job server answers.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    flags = list(beam_args)
    runner = short_name(PipelineOptions(flags).view_as(StandardOptions).runner)
    if runner == DASK:
        with contextlib.suppress(ImportError):  # declares Dask's flags; whether it is installed, `choose` tells
            import apache_beam.runners.dask.dask_runner  # noqa: F401

    def check(beams: argparse.ArgumentParser) -> None:
        # Not `beams` itself, which would answer a mistake with its whole usage.
        known = ArgumentParser(add_help=False, parents=[beams])
        given, unknown = known.parse_known_args(flags)
        if given.job_endpoint:
            for name in _server_flags(given.job_endpoint):
                with contextlib.suppress(argparse.ArgumentError):  # one of Beam's too
                    known.add_argument(f"--{name}", nargs="?")
            unknown = known.parse_known_args(flags)[1]
        # A job server that Beam has yet to start has flags of its own, which nobody can ask it for.
        if unknown and (given.job_endpoint or runner in _WITHOUT_SERVER):
            way = did_you_mean(unknown[0], known_here, "--") or "; see --help"
            raise InputError(f"{unknown[0]}: neither this command nor Beam knows this flag{way}")

    options = PipelineOptions(flags)
    options.get_all_options(add_extra_args_fn=check)  # called with a parser that has all of Beam's flags
    clients.use_flags(options.get_all_options(retain_unknown_options=True))
    return options


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
