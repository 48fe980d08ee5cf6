"""`--gpu nvidia-l4`: what a Dataflow job needs for one GPU in each worker that extracts features, and in no other.

Dataflow calls it right fitting (https://cloud.google.com/dataflow/docs/guides/right-fitting): a resource hint on one
step gives that step workers of its own, and switches right fitting on. The service option `worker_accelerator`, which
gives a GPU to every worker of the job, must not be used beside it. The machine type stands in the hint for the same
reason: as `--machine_type` it would be every worker's, and machines of the G2, A2 and A3 series always have GPUs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from pipelines.engines.options import DATAFLOW, short_name
from tfrecords_schema import gpus
from tfrecords_schema.errors import InputError

# One thread would leave the GPU idle while a shard ends and the next one's first images are read.
_THREADS = 2
_ONE_PROCESS = "no_use_multiple_sdk_containers"
_PROCESS_CHOICES = {_ONE_PROCESS, "use_multiple_sdk_containers"}


# A worker has one.
GPUS = {name: gpu for name, gpu in gpus.GPUS.items() if 1 in gpu.machines}


def with_gpu(name: str | None, beam_args: Sequence[str], accelerator: str | None) -> tuple[list[str], str | None]:
    """Beam's flags and the extraction step's resource hint, with what `--gpu name` adds to those that the user gave.

    Nothing that the user gave is changed, but for a `--machine_type` that has the GPU: it goes into the hint.

    Raises:
      InputError: there is no such GPU, or another flag says otherwise.
    """
    given = list(beam_args)
    if accelerator and not re.search("(^|;)type:[^;:]+(;|$)", accelerator):
        expected = "Beam's hint, such as type:nvidia-l4;count:1;install-nvidia-driver"
        raise InputError(f"--accelerator: expected {expected}, found {accelerator!r}")
    if name is None:
        return given, accelerator
    if name not in GPUS:
        raise InputError(f"--gpu: expected one of {', '.join(GPUS)}, found {name!r}; for others give --accelerator")
    if accelerator is not None:
        raise InputError(f"--gpu: expected no --accelerator beside it, found {accelerator}; give one of the two")
    known = _parse(given)[0]
    _require_dataflow(name, known)
    gpu = GPUS[name]
    machine_type = gpu.machine_type
    if known.machine_type and known.machine_type.startswith(gpu.series):
        machine_type = known.machine_type
        if gpu.built_in:  # the other steps' workers need none
            given = _parse(given, only_machine_type=True)[1]
    elif known.machine_type and any(g.built_in and known.machine_type.startswith(g.series) for g in GPUS.values()):
        expected = f"a machine with {name} ({gpu.series}…) or without GPUs"
        raise InputError(f"--machine_type: expected {expected}, found {known.machine_type}; leave it out")
    if not _PROCESS_CHOICES & set(_listed(known.experiments)):
        given.append(f"--experiments={_ONE_PROCESS}")
    if known.threads is None:
        given.append(f"--number_of_worker_harness_threads={_THREADS}")
    return given, f"type:{name};count:1;machine_type:{machine_type};install-nvidia-driver"


def _require_dataflow(name: str, known: argparse.Namespace) -> None:
    if short_name(known.runner) != DATAFLOW:
        found = known.runner or "no --runner"
        others = "other runners use the GPUs that their machines have"
        raise InputError(f"--gpu: expected --runner=DataflowRunner, found {found}; {others}")
    for option in _listed(known.service_options):
        if option.startswith("worker_accelerator"):
            raise InputError(
                f"--gpu: expected no --dataflow_service_options={option} beside it, since that gives a GPU to every "
                "worker and Dataflow takes only one of the two; leave one out"
            )


def _parse(given: list[str], only_machine_type: bool = False) -> tuple[argparse.Namespace, list[str]]:
    """The flags of Beam's that matter here, under each of their names, and the rest of them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--machine_type", "--worker_machine_type")
    if not only_machine_type:
        parser.add_argument("--runner")
        parser.add_argument("--number_of_worker_harness_threads", dest="threads")
        parser.add_argument("--experiment", "--experiments", dest="experiments", action="append", default=[])
        service_options = ("--dataflow_service_option", "--dataflow_service_options")
        parser.add_argument(*service_options, dest="service_options", action="append", default=[])
    return parser.parse_known_args(given)


def _listed(values: list[str]) -> list[str]:
    """Beam takes several of these by commas, or by giving the flag again."""
    return [part for value in values for part in value.split(",")]
