"""An output directory from its first to its last moment: whose it is, and what is in it.

`begin` decides what an earlier run left may be built upon; `complete` checks that nothing was lost, and writes what
readers trust. Between the two, `.work/` holds the options and the sidecars of finished shards.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fnmatch
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from pipelines.output import rejects
from pipelines.output.report import REPORT, make_report, read_report
from pipelines.output.sidecars import ShardResult, read_sidecar, write_sidecar
from tfrecords_schema import machine, shards
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files, finding, paths

_OPTIONS = "options.json"
_LOCK = "lock"
_SHOWN = 80  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Options:
    """What an output follows from, besides its images and captions: JSON values by flag.

    Attributes:
      image: what features follow from.
      other: everything else.
    """

    image: dict[str, Any]
    other: dict[str, Any]

    @property
    def every(self) -> dict[str, Any]:
        """Both, as they stand in report.json."""
        return {**self.image, **self.other}


@dataclasses.dataclass(frozen=True)
class Names:
    """What the files of a pipeline's output are called.

    Attributes:
      prefixes, suffixes: of shards, "captions" and ".parquet", and of what is made of a shard, ".csv".
      texts: the names of further files.
    """

    prefixes: Sequence[str]
    suffixes: Sequence[str]
    texts: Sequence[str] = ()

    def has(self, name: str) -> bool:
        """Whether a file is called like one of ours, or nearly so: better to stop for one too many."""
        shards_ = (f"{prefix}-*{suffix}" for prefix in self.prefixes for suffix in self.suffixes)
        return name in self.texts or any(fnmatch.fnmatch(name, pattern) for pattern in shards_)


@contextlib.contextmanager
def begin(
    directory: str, options: Options, names: Names, overwrite: bool = False, update: bool | None = None
) -> Iterator[None]:
    """Makes `directory` ready for a run with `options`, and keeps other runs on this machine out until it ends.

    Args:
      overwrite: delete what an earlier run left.
      update: let `options.other` differ from an earlier run's; None where the pipeline cannot do that.

    Raises:
      InputError: it cannot be written to, another run is writing to it, or it holds what this run must not replace.
    """
    report, earlier, ours = check(directory, options, names, overwrite, update)
    try:
        if paths.is_local(directory):
            os.makedirs(paths.join(directory, files.WORK), exist_ok=True)
        lock = _lock(directory)
    except OSError as error:
        raise _unwritable(directory, error) from None
    with lock:
        try:
            if overwrite and earlier is not None:
                tables = [_rejects_table(prefix) for prefix in names.prefixes]
                files.delete(*(paths.join(directory, name) for name in [*ours, *tables, REPORT]))
                _clear_work(directory, gone=lambda name: name != _LOCK)
                report = None
            else:  # only what a run that was killed left half done
                _clear_work(directory, gone=lambda name: name.endswith((".progress", ".tmp")))
            files.write_text(directory, paths.join(files.WORK, _OPTIONS), json.dumps(options.every))
            if report:
                _reopen(directory, report, names.texts)
        except OSError as error:
            raise _unwritable(directory, error) from None
        yield


def check(
    directory: str, options: Options, names: Names, overwrite: bool = False, update: bool | None = None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[str]]:
    """What `begin` refuses, without writing anything: (an earlier run's report, its options, names of its files)."""
    if not directory:
        raise InputError("--output: expected a directory, found an empty name")
    try:
        report = read_report(directory)
        begun = _begun_options(directory)
        ours = [name for name in finding.names(directory) if names.has(name)]
    except OSError as error:
        raise _unwritable(directory, error) from None
    if ours and report is None and begun is None:
        raise InputError(
            f"--output: {directory} holds {ours[0]}, but no {REPORT} of a run that made it; give another --output"
        )
    earlier = begun or (report or {}).get("options")
    if earlier is not None and not overwrite:
        _require_same(directory, earlier, options, update)
    return report, earlier, ours


def _unwritable(directory: str, error: OSError) -> InputError:
    return InputError(f"--output: expected a directory that can be written to, found {directory}: {error}")


def _lock(directory: str) -> contextlib.AbstractContextManager:
    """A lock that the operating system takes back when the process ends, however it ends; local directories only."""
    if not paths.is_local(directory):
        return contextlib.nullcontext()
    busy = f"--output: another run is writing to {directory}; wait for it, or give another --output"
    return machine.hold(paths.join(directory, files.WORK, _LOCK), busy)


def _rejects_table(prefix: str) -> str:
    return paths.join("rejects", f"{prefix}.parquet")


def _clear_work(directory: str, gone: Callable[[str], bool]) -> None:
    work = paths.join(directory, files.WORK)
    files.delete(*(paths.join(work, name) for name in finding.names(work) if gone(name)))


def _begun_options(directory: str) -> dict[str, Any] | None:
    """The options of a run that was not completed, if it finished a shard; before that it has nothing to lose."""
    work = paths.join(directory, files.WORK)
    if not any(shards.parse_shard_name(name.removesuffix(".json")) for name in finding.names(work)):
        return None
    return json.loads(files.read_text(paths.join(work, _OPTIONS)) or "{}")


def _require_same(directory: str, earlier: dict[str, Any], options: Options, update: bool | None) -> None:
    def shown(value: Any) -> str:
        text = str(value)
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

    now = options.every
    names = sorted(name for name in {*earlier, *now} if earlier.get(name) != now.get(name))
    if update:
        names = [name for name in names if name in options.image]
    if names:
        changes = "; ".join(f"{name} was {shown(earlier.get(name))}, now {shown(now.get(name))}" for name in names)
        updatable = update is not None and not any(name in options.image for name in names)
        ways = (
            "--update (features are kept where a shard's images stay the same), --overwrite"
            if updatable
            else "--overwrite"
        )
        raise InputError(
            f"--output: {directory} was made with other options ({changes}); give {ways}, or another --output"
        )


def _reopen(directory: str, report: dict[str, Any], texts: Sequence[str]) -> None:
    """Turns a complete output back into finished shards with sidecars: what did not change is not made again.

    The rejects table has the shards' rejects in the order of the shards. Where it is gone, shards with rejects are made
    again.
    """
    for prefix, results in itertools.groupby(report["shard_list"], key=lambda result: shards.prefix_of(result.name)):
        table = paths.join(directory, _rejects_table(prefix))
        rows = None
        if files.exists(table):
            with files.open_binary(table) as handle:
                rows = iter(rejects.read_parquet(handle))
        for result in results:
            if rows is not None or not result.rejects:
                write_sidecar(directory, result, list(itertools.islice(rows or (), result.rejects)))
    files.delete(*(paths.join(directory, name) for name in (*texts, REPORT)))


def complete(
    directory: str,
    results: Sequence[ShardResult],
    options: dict[str, Any],
    expected: dict[str, int],
    started: float,
    texts: dict[str, str],
    following: Sequence[str],
    names: Names,
    beside: Sequence[str] = (),
) -> None:
    """Checks and publishes a finished run.

    Args:
      results: of all shards, by name.
      options: as they are to stand in the report.
      expected: how many inputs each prefix ("train", "captions") has.
      started: when the run began, `time.time()`.
      texts: further files to write by name, such as dataset_info.json.
      following: the command to run next.
      names: as of `begin`.
      beside: the names of files that were made of shards, and are to stay.
    """
    by_prefix = {
        prefix: [result for result in results if shards.prefix_of(result.name) == prefix] for prefix in expected
    }
    reasons: dict[str, collections.Counter] = {prefix: collections.Counter() for prefix in expected}
    for prefix, made in by_prefix.items():
        inputs, rejected = (sum(getattr(r, key) for r in made) for key in ("inputs", "rejects"))
        if inputs != expected[prefix]:
            raise AssertionError(
                f"{prefix}: {expected[prefix]} images were listed, {inputs} found again: did they change?"
            )
        with files.replacing(directory, _rejects_table(prefix)) as handle:
            written = rejects.write_parquet(_counted(_gather(directory, made), reasons[prefix]), handle)
            if written != rejected:
                raise AssertionError(f"{prefix}: {rejected} images were rejected, {written} are in the sidecars")
    for name, text in texts.items():
        files.write_text(directory, name, text)
    _delete_stale(directory, {*(result.name for result in results), *texts, *beside}, names)
    report = make_report(by_prefix, options, started, reasons, following)
    files.write_text(directory, REPORT, json.dumps(report, indent=2) + "\n")
    files.delete(paths.join(directory, files.WORK))


def _delete_stale(directory: str, kept: Collection[str], names: Names) -> None:
    """Deletes shards of an earlier run with another number of them: names like ours, which `begin` found to be ours."""
    for name in finding.names(directory):
        parsed = shards.parse_shard_name(name)
        if parsed and parsed[0] in names.prefixes and parsed[3] in names.suffixes and name not in kept:
            files.delete(paths.join(directory, name))


def _gather(directory: str, results: Iterable[ShardResult]) -> Iterable[rejects.Reject]:
    for result in results:
        if result.rejects:
            found = read_sidecar(directory, result.name)
            yield from found[1] if found else ()


def _counted(found: Iterable[rejects.Reject], reasons: collections.Counter) -> Iterable[rejects.Reject]:
    for reject in found:
        reasons[f"{reject.stage}/{reject.error}"] += 1
        yield reject
