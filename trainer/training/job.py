"""The job directory: what a run writes there, whose it is, and whether a run may go on in it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.storage import files, paths
from tfrecords_schema.text import digest_cut
from trainer.config import FREE_SETTINGS, GROWING_SETTINGS, PHASES, defaults
from trainer.training import journal
from trainer.training.checkpoints import numbered
from trainer.training.mirror import Local, Mirror, mirrored

*_, SELF_CRITICAL = PHASES
CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
BEST = "best"
EXPORT = "export"
_LOCK = ".lock"
_FILES = (journal.HISTORY, journal.LOSS, journal.SAMPLES)
REMADE = ".remade"  # features that a fine-tuned network makes while training goes on; deleted at its end
_DIRECTORIES = (CHECKPOINTS, BEST, journal.TENSORBOARD, REMADE)
_SENT = (CONFIG, journal.TENSORBOARD, *_FILES, BEST, CHECKPOINTS)  # in this order: checkpoints say how good the best is
# What is written into the directories; what else lies there is somebody else's.
_WRITTEN = re.compile(r"(ckpt-[0-9]+|checkpoint|events\.out\.tfevents)([._].*)?|(train|val)\.features")
_GROUPS = ("DecoderConfig", "TrainConfig", "Data")  # of config.json


@contextlib.contextmanager
def opened(job_dir: str) -> Iterator[Local | Mirror]:
    """The directory to work in, which is made, with other runs of this machine kept out of it. Raises InputError."""
    if paths.is_remote(job_dir):
        with mirrored(job_dir, _SENT, functools.partial(_unusable, job_dir)) as mirror:
            yield mirror
        return
    _require_no_links(job_dir)
    try:
        os.makedirs(job_dir, exist_ok=True)
        busy = f"--job_dir: another run is writing to {job_dir}; wait for it, or give another --job_dir"
        held = machine.hold(os.path.join(job_dir, _LOCK), busy)
    except OSError as error:
        raise _unusable(job_dir, error) from None
    with held:
        yield Local(job_dir)


def check(job_dir: str, settings: dict[str, dict[str, Any]], overwrite: bool) -> bool:
    """Whether there is a run to go on with; writes nothing.

    Raises:
      InputError: the directory holds something that we did not write, or a run with other settings and no `overwrite`.
    """
    has_checkpoints = any(map(numbered, pathlib.Path(job_dir, CHECKPOINTS).glob("*")))
    earlier = _settings(job_dir, is_overwritten=overwrite and has_checkpoints)
    there = [name for name in (*_FILES, *_DIRECTORIES) if os.path.exists(os.path.join(job_dir, name))]
    if there and earlier is None:
        raise InputError(
            f"--job_dir: {job_dir} holds {there[0]}, but no {CONFIG} of a run that wrote it; give another --job_dir"
        )
    for name in there:
        if os.path.isdir(os.path.join(job_dir, name)) != (name in _DIRECTORIES):
            expected = "directory" if name in _DIRECTORIES else "file"
            raise InputError(f"--job_dir: {job_dir}/{name}: expected a {expected}; give another --job_dir")
    if earlier is None or overwrite or not has_checkpoints:
        return False
    _require_same(job_dir, settings, earlier)
    return True


def _require_same(job_dir: str, settings: dict[str, dict[str, Any]], earlier: dict[str, dict[str, Any]]) -> None:
    """Raises InputError where a run of the settings `earlier` cannot go on with others."""
    known = defaults()  # a setting that an earlier version did not have counts as its default, which is what it did
    changed = {
        key: (before, value)
        for group, values in settings.items()
        for key, value in values.items()
        if key not in FREE_SETTINGS and (before := earlier[group].get(key, known.get(key))) != value
    }
    order = list(PHASES)
    latest = max((phase for phase in PHASES if has_begun(job_dir, phase)), key=order.index, default=order[0])
    for length in (PHASES[phase] for phase in order[: order.index(latest)]):
        if length in changed:
            before, now = changed[length]
            raise InputError(
                f"--{length}: expected {before}, since the {latest.replace('_', '-')} epochs that follow them in "
                f"{job_dir} have begun, found {now}; give a larger --{PHASES[latest]}, or another --job_dir"
            )
    # A phase that has not begun may get other settings; --fine_tune not, since all checkpoints have its network.
    is_free = "" if latest == SELF_CRITICAL else SELF_CRITICAL
    other = [
        f"{key} was {_told(before)}, now {_told(value)}"
        for key, (before, value) in changed.items()
        if not (key in GROWING_SETTINGS and type(before) is int and value > before)
        and not (is_free and key.startswith(is_free))
    ]
    if other:
        raise InputError(
            f"--job_dir: {job_dir} holds a run with other settings ({'; '.join(other)}); "
            "give another --job_dir, or --overwrite to delete that run"
        )


def _told(value: Any) -> str:
    """A setting as people read it, digests cut short."""
    return digest_cut(str(value) or "none")


def has_begun(job_dir: str, phase: str) -> bool:
    """Whether the phase of this name has left a checkpoint."""
    return bool(numbered(os.path.join(job_dir, CHECKPOINTS, phase)))


def begin(place: Local | Mirror, settings: dict[str, dict[str, Any]], anew: bool) -> None:
    """Writes config.json; first deletes, if `anew`, what an earlier run wrote, and nothing else. Call `check` before.

    Raises:
      InputError: the directory cannot be written to.
    """
    job_dir = place.directory
    try:
        if anew:
            files.delete(*(os.path.join(job_dir, name) for name in _FILES))
            for name in _DIRECTORIES:
                clear(os.path.join(job_dir, name))
        place.send()  # before the new settings: they must never stand beside the checkpoints of others
        files.replace(job_dir, {CONFIG: (json.dumps(settings, indent=2) + "\n").encode()})
        place.send()
    except OSError as error:
        raise _unusable(job_dir, error) from None


def _require_no_links(job_dir: str) -> None:
    """Raises InputError where a name of ours is a link: what it leads to is not of this job, and would be changed."""
    root = pathlib.Path(job_dir)
    ours = [root / name for name in (_LOCK, EXPORT, CONFIG, *_FILES, *_DIRECTORIES)]
    for path in [*ours, *(root / CHECKPOINTS).glob("*")]:
        if path.is_symlink():
            raise InputError(
                f"--job_dir: {path}: expected no link, found one to {os.readlink(path)}; put what it leads to in its "
                "place, or give another --job_dir"
            )


def clear(directory: str) -> None:
    """Deletes what a run wrote into a directory, and the directory where nothing else is in it."""
    for folder, folders, names in os.walk(directory, topdown=False):
        files.delete(*(os.path.join(folder, name) for name in (*names, *folders) if _WRITTEN.fullmatch(name)))
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _settings(job_dir: str, is_overwritten: bool) -> dict[str, dict[str, Any]] | None:
    """The settings of the run in `job_dir`; None where there is none.

    Raises:
      InputError: config.json is another's, or damaged and not to be overwritten with the checkpoints beside it.
    """
    path = os.path.join(job_dir, CONFIG)
    if not os.path.exists(path):
        return None
    try:
        found = typed_json.decode(files.read_text(path) or "", dict[str, dict[str, Any]], path)
        if missing := [group for group in _GROUPS if group not in found]:
            raise ValueError(missing)
    except (ValueError, OSError):
        if is_overwritten:
            return {}
        raise InputError(
            f"--job_dir: {path}: expected the settings of an earlier run, found something else; put it back, or give "
            "--overwrite (if the trainer's checkpoints are still beside it) or another --job_dir"
        ) from None
    return found


def _unusable(job_dir: str, error: Exception) -> InputError:
    told = files.reason(error)
    return InputError(f"--job_dir: expected a directory that can be written to, found {job_dir}: {told}")
