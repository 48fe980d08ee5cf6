"""An output directory when a run begins: whose it is, and what is in it.

`begin` decides what an earlier run left may be built upon; `publishing` ends it. Between the two, `.work/` holds the
options, the listing, and in a local directory the finished shards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from pipelines.output import ownership, places, sidecars
from pipelines.output.names import Names, Present
from pipelines.output.ownership import LOCK, OPTIONS
from pipelines.output.report import Report, read_report
from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.storage import files, finding, paths
from tfrecords_schema.text import digest_cut, is_digest, shortened

_TEXT = re.compile(r'"([^"\\]+)"')  # in JSON, and in what is left of it: the names of files are among them
_SHOWN = 80  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Options:
    """What an output follows from, besides its images and captions: JSON values by flag.

    Attributes:
      image: what features follow from.
      other: everything else.
      flags: of the command, to name them in messages.
    """

    image: dict[str, Any]
    other: dict[str, Any]
    flags: frozenset[str] = frozenset()

    @property
    def every(self) -> dict[str, Any]:
        """Both, as they stand in report.json."""
        return {**self.image, **self.other}


@contextlib.contextmanager
def begin(
    directory: str, options: Options, names: Names, overwrite: bool = False, update: bool | None = None
) -> Iterator[Present]:
    """Makes `directory` ready for a run with `options`, and keeps other runs on this machine out until it ends.

    A complete output in it stays as it is: gives what it is made of.

    Args:
      overwrite: take nothing over from an earlier run.
      update: let `options.other` differ from an earlier run's; None where the pipeline cannot do that.

    Raises:
      InputError: it cannot be written to, another run is writing to it, or it holds what this run must not replace.
    """
    found = check(directory, options, names, overwrite, update)
    try:
        if paths.is_local(directory):
            os.makedirs(paths.join(directory, files.WORK), exist_ok=True)
        lock = _lock(directory)
    except OSError as error:
        raise _unwritable(directory, error) from None
    with lock:
        try:
            present = _present(directory, found, names, overwrite)
            if overwrite:  # nor from one that did not end
                keep = {sidecars.name_of(name) for name in present.used}
                files.delete(*(path for path in _sidecars(directory) if path not in keep))
            _clear_work(directory, everything=overwrite)
            files.write_text(directory, paths.join(files.WORK, OPTIONS), json.dumps(options.every))
        except OSError as error:
            raise _unwritable(directory, error) from None
        yield present


_Found = tuple[Report, list[str] | None]


def _present(directory: str, found: _Found | None, names: Names, overwrite: bool) -> Present:
    report, shards_ = found or (None, [])
    if shards_ is None:  # what looks like a shard may be one
        shards_ = [name for name in finding.names(directory) if names.is_shard(name)]
    current = {role: report.files[role] for role in names.roles() if role in report.files} if report else {}
    used = {*shards_, *current.values()}
    for name in names.manifests:  # it may be newer than the report, of a run that was killed between the two
        with contextlib.suppress(UnicodeDecodeError):  # a damaged one says nothing
            used |= set(_TEXT.findall(files.read_text(paths.join(directory, name)) or ""))
    return Present.of([] if overwrite else shards_, current, frozenset(used))


def check(
    directory: str, options: Options, names: Names, overwrite: bool = False, update: bool | None = None
) -> _Found | None:
    """What `begin` refuses, without writing anything; gives the report of the complete output that is there."""
    found, earlier = _earlier(directory, names, overwrite)
    if earlier:
        _require_same(directory, earlier, options, update)
    return found


def recorded(directory: str, names: Names, overwrite: bool = False) -> dict[str, Any]:
    """The options of an earlier run whose work is kept, or nothing; what follows from them may take long to find out.

    Raises:
      InputError: as `check`, or a local directory that cannot be written to.
    """
    earlier = _earlier(directory, names, overwrite)[1]
    if paths.is_local(directory):
        there = os.path.abspath(directory)
        while not os.path.exists(there):
            there = os.path.dirname(there)
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            raise _unwritable(directory, error) from None
    return earlier


def _earlier(directory: str, names: Names, overwrite: bool) -> tuple[_Found | None, dict[str, Any]]:
    try:
        ownership.check(directory, names)
        found = read_report(directory, names, overwrite)
        begun = _begun_options(directory)
        if found is None and begun is None:
            ownership.check_nothing_of_ours(directory, names, overwrite)
    except OSError as error:
        raise _unwritable(directory, error) from None
    earlier = found[0].options if found else begun
    return found, {} if overwrite else earlier or {}


def _unwritable(directory: str, error: OSError) -> InputError:
    found = f"a file, {directory}" if os.path.isfile(directory) else f"{directory}: {error}"
    return InputError(f"--output: expected a directory that can be written to, found {found}")


def _lock(directory: str) -> contextlib.AbstractContextManager:
    """A lock that the operating system takes back when the process ends, however it ends; local directories only."""
    if not paths.is_local(directory):
        return contextlib.nullcontext()
    busy = f"--output: another run is writing to {directory}; wait for it, or give another --output"
    return machine.hold(paths.join(directory, files.WORK, LOCK), busy)


def _sidecars(directory: str) -> list[str]:
    place = paths.join(directory, places.SIDECARS)
    return [paths.join(place, name) for name in finding.names(place)]


def _clear_work(directory: str, everything: bool) -> None:
    """Deletes what a run that was killed left half done, or all that it left."""
    work = paths.join(directory, files.WORK)
    folders = ["progress", "listing", *["finished"] * everything]
    half = [name for name in finding.names(work) if name.endswith(".tmp")]
    files.delete(*(paths.join(work, name) for name in (*half, *folders)))


def _begun_options(directory: str) -> dict[str, Any] | None:
    """The options of a run that was not completed; empty where it finished no shard, and so has nothing to lose."""
    path = paths.join(directory, files.WORK, OPTIONS)
    with contextlib.suppress(ValueError):  # a damaged file: what is taken over is told by fingerprints anyway
        text = files.read_text(path)
        if text is None:
            return None
        return typed_json.decode(text, dict[str, Any], path) if _sidecars(directory) else {}
    return {}


def _require_same(directory: str, earlier: dict[str, Any], options: Options, update: bool | None) -> None:
    now = options.every
    both = {name: (earlier.get(name), now.get(name)) for name in sorted({*earlier, *now})}
    names = [name for name, (before, is_now) in both.items() if before != is_now and (_shown(before) or _shown(is_now))]
    if update:
        names = [name for name in names if name in options.image]
    if names:
        changes = "; ".join(_change(name, *both[name], options.flags) for name in names)
        updatable = update is not None and not any(name in options.image for name in names)
        ways = "--update (features of images that stay the same are kept), --overwrite" if updatable else "--overwrite"
        raise InputError(
            f"--output: {directory} was made with other options ({changes}); give {ways}, or another --output"
        )


def _change(name: str, before: Any, now: Any, flags: frozenset[str]) -> str:
    """What is said of an option that differs; a digest stands for what a flag named, and is not its value."""
    has_digest = any(isinstance(value, str) and is_digest(value) for value in (before, now))
    known = [flag for flag in (name, name.removeprefix("feature_")) if flag in flags and not has_digest]
    was, is_now = (shortened(_shown(value) or "not given", _SHOWN) for value in (before, now))
    return f"{f'--{known[0]}' if known else name} was {was}, now {is_now}"


def _shown(value: Any) -> str:
    """An option's value as a person would write it; empty for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_shown, value)))
    return digest_cut(" ".join(str(value).split()))
