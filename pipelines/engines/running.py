"""A pipeline on its engine, to the end: progress on the screen, errors in one line, Ctrl-C."""

from __future__ import annotations

import contextlib
import re
import tempfile
import traceback
from typing import Any

from pipelines.engines.dataflow import handed_over
from pipelines.engines.engine import Engine
from pipelines.engines.options import DATAFLOW
from tfrecords_schema.errors import InputError, RunError

_KEPT = "finished shards are kept; run the same command to continue"
_SHOWN = 300  # characters of an error that is no Python worker's: the rest may be a stack
_elsewhere: list[tuple[Engine, Any]] = []  # the job that runs in other processes than ours, and goes on without us


class PipelineError(RunError):
    """The pipeline broke; the message is the worker's own error."""


def run_pipeline(engine: Engine, directory: str, total: int) -> bool:
    """Runs to the end, with progress on the screen; False where the job was only handed over, or translated.

    Raises:
      PipelineError: with the cause; the whole traceback is in `directory/.work/error.txt`.
    """
    from pipelines.output.progress import Watch

    try:
        with Watch(directory, total):
            result = engine.pipeline.run()
            _elsewhere.append((engine, result))
            state = result.wait_until_finish()
    except Exception as error:
        cause = _cause(error)
        if found := re.search(r"InputError: (.*?)( \[while running '[^']*'\])?$", cause):
            raise InputError(found[1]) from None  # found out by a worker, but a mistake in a flag all the same
        raise PipelineError(f"{cause}; {_KEPT}{_write_traceback(directory)}") from error
    finally:
        _elsewhere.clear()
    if state not in (None, "DONE"):
        raise PipelineError(f"the job ended as {state}; {_KEPT}")
    return not handed_over(engine.options, directory)


def let_go() -> str:
    """Cancels the job that this process waits for, or leaves it to its engine; tells what becomes of it."""
    for engine, result in _elsewhere:
        if engine.name == DATAFLOW:
            return f"the job goes on at Dataflow; {_cancel_command(engine.options, result.job_id())} ends it"
        with contextlib.suppress(Exception):
            result.cancel()
    return "what is finished is kept; run the same command to continue"


def _cancel_command(options: Any, job: str) -> str:
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    google = options.view_as(GoogleCloudOptions)
    return f"gcloud dataflow jobs cancel {job} --project={google.project} --region={google.region}"


def _cause(error: Exception) -> str:
    """The worker's own error: runners wrap it in a text that ends in its traceback."""
    details = getattr(error, "details", None)  # gRPC's
    text = details() if callable(details) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = lines and re.match(r"[\w.]+: ", lines[-1])
    return lines[-1] if named else f"{type(error).__name__}: {lines[0][:_SHOWN] if lines else ''}"


def _write_traceback(directory: str) -> str:
    from tfrecords_schema.storage import files, paths

    for place in (directory, tempfile.gettempdir()):  # the output's disk may be full, and the reason for all this
        name = paths.join(files.WORK, "error.txt")
        with contextlib.suppress(Exception):
            files.write_text(place, name, traceback.format_exc())
            return f" (traceback in {paths.join(place, name)})"
    return ""
