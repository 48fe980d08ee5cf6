"""Flags of the trainer -> a training job on Vertex AI (`python -m trainer.submit`)."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tfrecords_schema import command, command_line
from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError, told_in_one_line
from trainer import task
from trainer.config import DecoderConfig
from trainer.vertex import spec

_FOLLOW_SUBMITTED = "the job that is submitted"  # --follow without a value


ABOUT = {
    "prog": "python -m trainer.submit",
    "usage": "%(prog)s --data DIR --job_dir DIR\n"
    "                                --project ID --region NAME --image URI\n"
    "                                [flags] [flags of trainer.task]\n"
    "       %(prog)s --data DIR --job_dir DIR --local\n"
    "                                [flags of trainer.task]\n"
    "       %(prog)s --follow JOB",
    "description": "Train on Vertex AI: submit a CustomJob that runs trainer.task on one machine.",
    "epilog": "Any other flag is passed on to trainer.task; see python -m trainer.task --help.",
    "examples": """
        python -m trainer.submit --local --data demo/features \\
          --job_dir demo/local-job --epochs 2
        python -m trainer.submit --dry_run --project my-project --region us-central1 \\
          --image us-docker.pkg.dev/my-project/captioning/trainer:1 \\
          --data gs://my-bucket/features --job_dir gs://my-bucket/jobs/1 \\
          --accelerator nvidia-l4:4 --spot --epochs 20
    """,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubmitConfig(Settings):
    """The flags of this command; all others are the trainer's."""

    data: str | None = setting("feature directory to train on, gs://…", None, heading="training", metavar="DIR")
    job_dir: str | None = setting("directory to write checkpoints, logs and export/ to, gs://…", None, metavar="DIR")
    project: str | None = setting(
        "Google Cloud project that the job runs in",
        None,
        heading="job (needs --project, --region and --image)",
        metavar="ID",
    )
    region: str | None = setting("region of the job, such as us-central1; best where --data is", None, metavar="NAME")
    image: str | None = setting("container image, built from Dockerfile.trainer", None, metavar="URI")
    accelerator: str | None = setting(
        f"GPUs of the machine, such as nvidia-l4:4; NAME is one of {', '.join(spec.MACHINES)}",
        None,
        unset=f"none, on a {spec.CPU_MACHINE}",
        metavar="NAME:COUNT",
    )
    machine_type: str | None = setting(
        "machine type, such as g2-standard-48", None, unset="one that fits --accelerator", metavar="NAME"
    )
    spot: bool = setting("use a cheaper Spot machine, which may be taken away at any time", False)
    name: str | None = setting("name of the job in the console", None, unset="the last part of --job_dir")
    labels: tuple[str, ...] = setting("labels of the job, for example for billing", (), metavar="KEY=VALUE")
    service_account: str | None = setting(
        "service account that the job runs as", None, unset="Vertex AI's own", metavar="EMAIL"
    )
    network: str | None = setting(
        "VPC network to peer with: projects/NUMBER/global/networks/NAME", None, metavar="NAME"
    )
    timeout_hours: float | None = setting("hours after which the job is stopped", None, unset="168, which is 7 days")
    boot_disk_gb: int | None = setting(
        "size of the machine's disk in GB; it must hold a copy of --data", None, unset="100"
    )
    api_endpoint: str | None = setting(
        "host of a private endpoint of Vertex AI, or http://HOST:PORT without TLS and credentials",
        None,
        unset="the region's own",
        metavar="HOST",
    )
    dry_run: bool = setting("print the job as YAML for gcloud, and submit nothing", False, heading="what to do with it")
    local: bool = setting("run the job's command on this machine instead", False)
    follow: str | None = setting(
        "print the job's states until it ends; with a resource name: those of a job submitted before",
        None,
        metavar="JOB",
        bare=_FOLLOW_SUBMITTED,
    )
    poll_seconds: float = setting("seconds between two looks at the job with --follow", 15.0, above=0)

    def __post_init__(self):
        super().__post_init__()
        ways = [name for name in ("dry_run", "local", "follow") if getattr(self, name)]
        if len(ways) > 1:
            raise InputError(f"--{ways[1]}: expected it without --{ways[0]}; leave one of them out")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-submit`.

    Exits with 0, 1 for a job that failed or could not be submitted, 2 for bad input, 130 for Ctrl-C; with --local as
    the trainer does.
    """
    try:
        with told_in_one_line():
            status = run(*command_line.parse_known(SubmitConfig, argv, **ABOUT))
    except KeyboardInterrupt:
        print("error: interrupted; gcloud ai custom-jobs list says whether the job was submitted", file=sys.stderr)
        sys.exit(130)
    if status:
        sys.exit(status)


def run(config: SubmitConfig, trainer_flags: Sequence[str] = ()) -> int:
    """Submits a job, prints it, runs it here or follows it.

    Returns:
      An exit status.

    Raises:
      InputError: a flag does not fit; nothing was sent.
      RunError: the job failed, or the service refused it.
    """
    if config.follow not in (None, _FOLLOW_SUBMITTED):
        return _follow_earlier(config, trainer_flags)
    project, region = config.project or "", config.region or ""
    if not config.local:
        spec.check("--project", project)
        spec.check("--region", region)
        spec.check("--image", config.image)
    all_trainer_flags = [f"--data={config.data or ''}", f"--job_dir={config.job_dir or ''}", *trainer_flags]
    _check_trainer_flags(all_trainer_flags, remote=not config.local)
    fitting = ("job_dir", "image", "accelerator", "machine_type", "spot", "name", "service_account", "network")
    job = spec.custom_job(
        trainer_flags=all_trainer_flags,
        labels=_labels(config.labels),
        timeout_hours=config.timeout_hours,
        boot_disk_gb=config.boot_disk_gb,
        **{name: getattr(config, name) for name in fitting},
    )
    if config.local:
        return _run_here(job)
    if config.dry_run:
        print(spec.gcloud_config(job, project, region), end="")
        return 0
    return _submit(job, project, region, config)


def _follow_earlier(config: SubmitConfig, trainer_flags: Sequence[str]) -> int:
    name = spec.check("--follow", config.follow)
    defaults = command.values(SubmitConfig())
    others = [f"--{k}" for k, v in command.values(config).items() if v != defaults[k]] + list(trainer_flags)
    useless = [flag for flag in others if flag not in ("--follow", "--api_endpoint", "--poll_seconds")]
    if useless:
        raise InputError(f"{useless[0]}: expected without --follow JOB, which submits nothing; leave it out")
    return _follow(name, config)


def _check_trainer_flags(flags: Sequence[str], remote: bool) -> None:
    """Has the trainer's own parser and configs look at them. Raises InputError, or exits with 2 as the trainer does."""
    given, unknown = command_line.given(task.TaskConfig, flags, **task.ABOUT)
    if unknown:
        raise InputError(
            f"{unknown[0]}: expected a flag of this command or of the trainer; see python -m trainer.submit --help "
            "and python -m trainer.task --help"
        )
    config = task.with_preset(given)
    # Sizes that only the data can tell do not matter here: these fit every other setting.
    DecoderConfig(**vars(config.decoder), vocabulary_size=1, max_length=1, feature_shape=(1, 1))
    if config.overwrite:
        raise InputError(
            "--overwrite: expected without it, since a restarted job would delete its own checkpoints; give another "
            "--job_dir"
        )
    for name, place in command.places(config).items():
        if not place and name in ("data", "job_dir"):
            raise InputError(f"--{name}: expected a directory, found nothing")
        if remote and place:
            spec.check_place(f"--{name}", place)


def _labels(pairs: Sequence[str]) -> Mapping[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise InputError(f"--labels: expected KEY=VALUE, found {pair}")
    return dict(pair.split("=", 1) for pair in pairs)


def _submit(job: Mapping[str, Any], project: str, region: str, config: SubmitConfig) -> int:
    from trainer.vertex.client import Jobs

    jobs = Jobs(region, config.api_endpoint)
    name = jobs.create(job, project, region)
    print(f"{'job':<11} {name}")
    for what, where in spec.signposts(name, config.api_endpoint).items():
        print(f"{what:<11} {where}", flush=True)
    return _follow(name, config, jobs) if config.follow else 0


def _follow(name: str, config: SubmitConfig, jobs: Any = None) -> int:
    from trainer.vertex.client import Jobs

    try:
        (jobs or Jobs(name.split("/")[3], config.api_endpoint)).follow(name, config.poll_seconds)
    except KeyboardInterrupt:
        signs = spec.signposts(name, config.api_endpoint)
        print(f"error: interrupted; the job runs on: {signs['follow']} follows it again", file=sys.stderr)
        print(f"       {signs['cancel']} ends it", file=sys.stderr)
        return 130
    return 0


def _run_here(job: Mapping[str, Any]) -> int:
    """Runs the container's command as a process of this machine; signals are passed on to it, once each."""
    container = job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    arguments = [*container["command"][1:], *container["args"]]
    # Out of reach of the terminal's Ctrl-C, which would come twice: a second one tells the trainer to stop at once.
    process = subprocess.Popen([sys.executable, *arguments], start_new_session=True)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {n: signal.signal(n, lambda number, frame: process.send_signal(number)) for n in numbers}
    try:
        status = process.wait()
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    main()
