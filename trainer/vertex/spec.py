"""What a training job is on Vertex AI: a CustomJob as plain data, with the machine that its accelerators need.

The keys are those of the REST API (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec), which
`gcloud ai custom-jobs create --config` takes too. Nothing of Google's is imported here.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tfrecords_schema.errors import InputError
from tfrecords_schema.gpus import GPUS

CPU_MACHINE = "n1-standard-16"
COMMAND = ("python", "-m", "trainer.task")  # also Dockerfile.trainer's ENTRYPOINT

# Accelerator -> how many of them -> the machine.
MACHINES = {
    name: {count: machine for count, machine in gpu.machines.items() if count >= gpu.fewest_at_vertex}
    for name, gpu in GPUS.items()
}

_SHAPES = {
    "--project": (r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]|[0-9]+", "a project id such as my-project-1"),
    "--region": (r"[a-z]+-[a-z]+[0-9]+", "a region such as us-central1"),
    "--image": (r"[a-z0-9][\w./:@-]*", "an image such as us-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG"),
    "--name": (r".{1,128}", "1 to 128 characters"),
    "--machine_type": (r"[a-z0-9]+(-[a-z0-9]+)+", "a machine type such as g2-standard-48"),
    "--service_account": (r"[\w.-]+@[\w.-]+\.gserviceaccount\.com", "…@….gserviceaccount.com"),
    "--network": (r"projects/[0-9]+/global/networks/[a-z0-9-]+", "projects/NUMBER/global/networks/NAME"),
    "--follow": (r"projects/[^/]+/locations/[^/]+/customJobs/[0-9]+", "projects/P/locations/R/customJobs/NUMBER"),
}
_PLACE = r"(gs|s3)://[^/]+/?.*|/gcs/[^/]+/?.*", "a place that machines in the cloud can reach, gs://BUCKET/…"


def check(flag: str, value: str | None) -> str:
    """The value, if it has the shape of what the flag wants. Raises InputError."""
    return _check(flag, value, *_SHAPES[flag])


def check_place(flag: str, value: str) -> str:
    """The value, if it is a place that the job's machine can reach. Raises InputError."""
    return _check(flag, value, *_PLACE)


def _check(flag: str, value: str | None, shape: str, expected: str) -> str:
    if not value or not re.fullmatch(shape, value) or not value.isprintable():
        raise InputError(f"{flag}: expected {expected}, found {value or 'nothing'}")
    return value


def machine(accelerator: str | None, machine_type: str | None = None) -> dict[str, Any]:
    """A MachineSpec for `name:count` accelerators; `machine_type` is used as given. Raises InputError."""
    if machine_type:
        check("--machine_type", machine_type)
    if accelerator is None:
        return {"machineType": machine_type or CPU_MACHINE}
    name, _, count = accelerator.partition(":")
    machines = MACHINES.get(name)
    if machines is None:
        raise InputError(f"--accelerator: expected one of {', '.join(MACHINES)}, found {name}")
    if accelerator.endswith(":") or not re.fullmatch("[1-9][0-9]{0,2}", count or "1"):
        raise InputError(f"--accelerator: expected {name}:COUNT, found {accelerator}")
    number = int(count or 1)
    if number not in machines and not machine_type:
        there_are = ", ".join(f"{name}:{n}" for n in machines)
        raise InputError(f"--accelerator: expected {there_are}, found {accelerator}; or give --machine_type")
    series = {m.partition("-")[0] for m in machines.values()}
    if machine_type and machine_type.partition("-")[0] not in series:
        raise InputError(f"--machine_type: expected {' or '.join(sorted(series))}-… for {name}, found {machine_type}")
    return {
        "machineType": machine_type or machines[number],
        "acceleratorType": name.upper().replace("-", "_"),
        "acceleratorCount": number,
    }


def custom_job(
    *,
    job_dir: str,
    trainer_flags: Sequence[str],
    image: str,
    accelerator: str | None = None,
    machine_type: str | None = None,
    spot: bool = False,
    name: str | None = None,
    service_account: str | None = None,
    network: str | None = None,
    labels: Mapping[str, str] | None = None,
    timeout_hours: float | None = None,
    boot_disk_gb: int | None = None,
) -> dict[str, Any]:
    """A CustomJob: one machine that runs the trainer with `trainer_flags`. The arguments are flags of trainer.submit.

    A worker that exits with a status other than 0 is started again by Vertex AI, five times, and the job three times;
    so is one whose machine is taken away
    (https://cloud.google.com/vertex-ai/docs/training/understanding-training-service). The trainer goes on from its
    checkpoint, so `disableRetries` stays false. `maxWaitDuration` only counts for FLEX_START, and is left out.

    Raises:
      InputError: a value does not fit; the message names the flag.
    """
    pool: dict[str, Any] = {
        "machineSpec": machine(accelerator, machine_type),
        "replicaCount": 1,
        "containerSpec": {"imageUri": image, "command": list(COMMAND), "args": list(trainer_flags)},
    }
    if boot_disk_gb is not None:
        if not 100 <= boot_disk_gb <= 64_000:
            raise InputError(f"--boot_disk_gb: expected 100 to 64000, found {boot_disk_gb}")
        pool["diskSpec"] = {"bootDiskSizeGb": boot_disk_gb}
    # The only worker is the job.
    scheduling: dict[str, Any] = {"restartJobOnWorkerRestart": True, "strategy": "SPOT" if spot else "STANDARD"}
    if timeout_hours is not None:
        if not 0 < timeout_hours <= 24 * 365:
            raise InputError(f"--timeout_hours: expected more than 0 and at most 8760, found {timeout_hours}")
        scheduling["timeout"] = f"{round(timeout_hours * 3600)}s"
    spec: dict[str, Any] = {"workerPoolSpecs": [pool], "scheduling": scheduling}
    if service_account:
        spec["serviceAccount"] = check("--service_account", service_account)
    if network:
        spec["network"] = check("--network", network)
    bucket = re.fullmatch(r"(?:gs://|/gcs/)(.+)", job_dir)
    if bucket:  # the console shows it as the job's output
        spec["baseOutputDirectory"] = {"outputUriPrefix": f"gs://{bucket[1]}"}
    given = {"labels": _checked_labels(labels)} if labels else {}
    display_name = check("--name", name or posixpath.basename(job_dir.rstrip("/")))
    return {"displayName": display_name, "jobSpec": spec, **given}


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise InputError(
                f"--labels: expected key=value of lower-case letters, digits, _ and -, at most 63 each, "
                f"found {key}={value}"
            )
    return dict(labels)


def gcloud_config(job: Mapping[str, Any], project: str, region: str) -> str:
    """YAML that `gcloud ai custom-jobs create --config` takes; what does not fit into it stands in a comment."""
    import yaml

    labels = ",".join(f"{key}={value}" for key, value in job.get("labels", {}).items())
    command = ["gcloud", "ai", "custom-jobs", "create", f"--project={project}", f"--region={region}"]
    command += [f"--display-name={job['displayName']}", *([f"--labels={labels}"] if labels else []), "--config=FILE"]
    return f"# {shlex.join(command)}\n{yaml.safe_dump(dict(job['jobSpec']), sort_keys=False, allow_unicode=True)}"


def signposts(name: str, api_endpoint: str | None = None) -> dict[str, str]:
    """Where to look and what to do, of a job's resource name projects/…/locations/…/customJobs/…."""
    _, project, _, region, _, number = name.split("/")
    endpoint = f" --api_endpoint {api_endpoint}" if api_endpoint else ""
    return {
        "console": f"https://console.cloud.google.com/ai/platform/locations/{region}/training/{number}?project={project}",
        "logs": f"gcloud ai custom-jobs stream-logs {name}",
        "follow": f"python -m trainer.submit --follow {name}{endpoint}",
        "cancel": f"gcloud ai custom-jobs cancel {name}",
    }
