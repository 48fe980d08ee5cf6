"""Flags of the trainer -> a training job on Vertex AI (`python -m trainer.submit`)."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tfrecords_schema.errors import ArgumentParser, InputError, told_in_one_line
from trainer import config, task
from trainer.vertex import spec

_FOLLOW_SUBMITTED = "the job that is submitted"  # --follow without a value


def parser() -> ArgumentParser:
    """The flags of this command; all others are the trainer's."""
    p = ArgumentParser(
        prog="python -m trainer.submit",
        description="Train on Vertex AI: submits a CustomJob that runs trainer.task on one machine.",
        epilog="Every other flag is the trainer's: see python -m trainer.task --help.",
    )
    p.add_argument("--data", metavar="DIR", help="feature directory, gs://…")
    p.add_argument("--job_dir", metavar="DIR", help="for checkpoints, logs and export/, gs://…")
    p.add_argument("--project", metavar="ID", help="Google Cloud project that the job runs in and is paid by")
    p.add_argument("--region", metavar="NAME", help="such as us-central1; best where the data is")
    p.add_argument("--image", metavar="URI", help="container image that was made of Dockerfile.trainer")
    p.add_argument(
        "--accelerator",
        metavar="NAME:COUNT",
        help=f"such as nvidia-l4:4; one of {', '.join(spec.MACHINES)} (default: none, a {spec.CPU_MACHINE})",
    )
    p.add_argument("--machine_type", metavar="NAME", help="another machine than the one that fits --accelerator")
    p.add_argument("--spot", action="store_true", help="on a cheaper machine that may be taken away at any time")
    p.add_argument("--name", help="of the job in the console (default: the last part of --job_dir)")
    p.add_argument("--labels", nargs="+", default=[], metavar="KEY=VALUE", help="labels of the job, as for billing")
    p.add_argument("--service_account", metavar="EMAIL", help="what the job runs as (default: Vertex AI's own)")
    p.add_argument("--network", metavar="NAME", help="VPC to peer with, projects/NUMBER/global/networks/NAME")
    p.add_argument("--timeout_hours", type=float, metavar="X", help="the job is stopped after so long (default 7 days)")
    p.add_argument("--boot_disk_gb", type=int, metavar="N", help="disk, which a copy of --data lies on (default 100)")
    p.add_argument(
        "--api_endpoint", metavar="HOST", help="a private endpoint, or http://HOST:PORT: without TLS and credentials"
    )
    p.add_argument(
        "--poll_seconds", type=float, default=15.0, metavar="X", help="between two looks with --follow (default 15)"
    )
    way = p.add_mutually_exclusive_group()
    way.add_argument("--dry_run", action="store_true", help="print the job as YAML for gcloud, and submit nothing")
    way.add_argument("--local", action="store_true", help="run what the job would run, here and now")
    way.add_argument(
        "--follow",
        nargs="?",
        const=_FOLLOW_SUBMITTED,
        metavar="JOB",
        help="print its states until it ends; with a resource name, of a job that was submitted before",
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-submit`.

    Exits with 0, 1 for a job that failed or could not be submitted, 2 for bad input, 130 for Ctrl-C; with --local as
    the trainer does.
    """
    own, others = parser().parse_known_args(argv)
    try:
        with told_in_one_line():
            status = run(trainer_flags=others, **vars(own))
    except KeyboardInterrupt:
        print("error: interrupted; gcloud ai custom-jobs list says whether the job was submitted", file=sys.stderr)
        sys.exit(130)
    if status:
        sys.exit(status)


def run(*, trainer_flags: Sequence[str] = (), **flags: Any) -> int:
    """Submits a job, prints it, runs it here or follows it; the arguments are the command's flags.

    Returns:
      An exit status.

    Raises:
      InputError: a flag does not fit; nothing was sent.
      RunError: the job failed, or the service refused it.
    """
    args = argparse.Namespace(**{**vars(parser().parse_args([])), **flags})
    if not args.poll_seconds > 0:
        raise InputError(f"--poll_seconds: expected more than 0, found {args.poll_seconds:g}")
    if args.follow not in (None, _FOLLOW_SUBMITTED):
        return _follow_earlier(args, trainer_flags)
    if not args.local:
        spec.check("--project", args.project)
        spec.check("--region", args.region)
        spec.check("--image", args.image)
    all_trainer_flags = [f"--data={args.data or ''}", f"--job_dir={args.job_dir or ''}", *trainer_flags]
    _check_trainer_flags(all_trainer_flags, remote=not args.local)
    fitting = ("job_dir", "image", "accelerator", "machine_type", "spot", "name", "service_account", "network")
    job = spec.custom_job(
        trainer_flags=all_trainer_flags,
        labels=_labels(args.labels),
        timeout_hours=args.timeout_hours,
        boot_disk_gb=args.boot_disk_gb,
        **{name: getattr(args, name) for name in fitting},
    )
    if args.local:
        return _run_here(job)
    if args.dry_run:
        print(spec.gcloud_config(job, args.project, args.region), end="")
        return 0
    return _submit(job, args)


def _follow_earlier(args: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    spec.check("--follow", args.follow)
    defaults = vars(parser().parse_args([]))
    others = [f"--{k}" for k, v in vars(args).items() if v != defaults[k]] + list(trainer_flags)
    useless = [flag for flag in others if flag not in ("--follow", "--api_endpoint", "--poll_seconds")]
    if useless:
        raise InputError(f"{useless[0]}: expected no such flag beside --follow JOB, which submits nothing")
    return _follow(args.follow, args)


def _check_trainer_flags(flags: Sequence[str], remote: bool) -> None:
    """Has the trainer's own parser and configs look at them. Raises InputError, or exits with 2 as the trainer does."""
    _, unknown = task.parser().parse_known_args(flags)
    if unknown:
        raise InputError(
            f"{unknown[0]}: expected a flag of this command or of the trainer; see python -m trainer.submit --help "
            "and python -m trainer.task --help"
        )
    given = task.parse(flags)
    config.from_flags(config.TrainConfig, given)
    # Sizes that only the data can tell do not matter here: these fit every other setting.
    config.from_flags(config.DecoderConfig, given, vocabulary_size=1, max_length=1, feature_shape=(1, 1))
    if given["overwrite"]:
        raise InputError("--overwrite: expected another --job_dir: a job that is restarted would begin anew every time")
    for name in ("data", "job_dir", "pretrained_embeddings"):
        if not given[name] and name != "pretrained_embeddings":
            raise InputError(f"--{name}: expected a directory, found nothing")
        if remote and given[name]:
            spec.check(f"--{name}", given[name])


def _labels(pairs: Sequence[str]) -> Mapping[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise InputError(f"--labels: expected KEY=VALUE, found {pair}")
    return dict(pair.split("=", 1) for pair in pairs)


def _submit(job: Mapping[str, Any], args: argparse.Namespace) -> int:
    from trainer.vertex.client import Jobs

    jobs = Jobs(args.region, args.api_endpoint)
    name = jobs.create(job, args.project, args.region)
    print(f"{'job':<11} {name}")
    for what, where in spec.signposts(name, args.api_endpoint).items():
        print(f"{what:<11} {where}", flush=True)
    return _follow(name, args, jobs) if args.follow else 0


def _follow(name: str, args: argparse.Namespace, jobs: Any = None) -> int:
    from trainer.vertex.client import Jobs

    try:
        (jobs or Jobs(name.split("/")[3], args.api_endpoint)).follow(name, args.poll_seconds)
    except KeyboardInterrupt:
        signs = spec.signposts(name, args.api_endpoint)
        print(f"error: interrupted; the job runs on: {signs['follow']} follows it again", file=sys.stderr)
        print(f"       {signs['cancel']} ends it", file=sys.stderr)
        return 130
    return 0


def _run_here(job: Mapping[str, Any]) -> int:
    """Runs the container's command as a process of this machine; signals are passed on to it, once each."""
    container = job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    command = [*container["command"], *container["args"]]
    # Out of reach of the terminal's Ctrl-C, which would come twice: a second one tells the trainer to stop at once.
    process = subprocess.Popen([sys.executable, *command[1:]], start_new_session=True)
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
