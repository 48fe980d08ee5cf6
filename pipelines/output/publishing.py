"""The last step of a run: everything that was finished becomes the output, by one file that readers trust.

Nothing that the present output's manifest names is written over, so that readers find the old one whole until the new
manifest is there. Each step can be repeated, and the run be killed before or after any: the same comes of it.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from pipelines.items import Reject
from pipelines.output import editions, places, rejects, sidecars
from pipelines.output.names import Names, rejects_table
from pipelines.output.report import make_report
from pipelines.output.sidecars import ShardResult, write_shard_list
from tfrecords_schema import shards
from tfrecords_schema.manifests.caption_table import REPORT, SHARD_LIST
from tfrecords_schema.manifests.features_info import CARRIED
from tfrecords_schema.storage import files, finding, paths

_THREADS = 16
_DELETED_TOGETHER = 500  # files


@dataclasses.dataclass(frozen=True)
class Publication:
    """What a run publishes, known when it begins. Small and picklable.

    Attributes:
      directory: the output.
      options: as they are to stand in the report.
      expected: how many images each prefix ("train", "captions") has.
      started: when the run began, `time.time()`.
      names: of files like those of this pipeline.
      current: names that the present output has for files such as "vocabulary.txt".
      free: names for those of the next.
    """

    directory: str
    options: dict[str, Any]
    expected: dict[str, int]
    started: float
    names: Names
    current: dict[str, str]
    free: dict[str, str]

    def settle(self, role: str, write: Callable[[BinaryIO], Any]) -> str:
        """Writes a file under a name that is free, unless the present output has the same; returns its name."""
        with tempfile.TemporaryFile() as made:
            write(made)
            if role in self.current and _is_same(paths.join(self.directory, self.current[role]), made):
                return self.current[role]
            made.seek(0)
            with files.replacing(self.directory, self.free[role]) as handle:
                shutil.copyfileobj(made, handle)
        return self.free[role]

    def settle_text(self, role: str, text: str) -> str:
        """Writes a text in the same way; returns the name of its file."""
        return self.settle(role, lambda handle: handle.write(text.encode("utf-8")))


def _is_same(path: str, made: BinaryIO) -> bool:
    made.seek(0)
    return files.read_if_there(path) == made.read()


def publish(
    publication: Publication,
    results: Sequence[ShardResult],
    following: Sequence[str],
    manifests: Callable[[Sequence[ShardResult]], tuple[Mapping[str, str | None], dict[str, str]]] | None = None,
    beside: Sequence[str] = (),
    carried: str = "",
    alike: bool = False,
) -> Iterator[list[str]]:
    """Checks and publishes a finished run; yields the paths of files that nothing names any more, some at a time.

    Args:
      results: of all shards, by name.
      following: the command to run next.
      manifests: all shards -> the files that readers trust beside report.json, in order, once all else is in place:
        their texts by name (None: there is to be none), and the names of files that they speak of.
      beside: the names of files that were made of shards.
      carried: the name of weights that are in the output already.
      alike: whether the names of a split's shards must all end alike; see editions.py.
    """
    directory, named = publication.directory, {}
    by_prefix: dict[str, list[ShardResult]] = {prefix: [] for prefix in publication.expected}
    for result in results:
        by_prefix[shards.prefix_of(result.name)].append(result)
    reasons: dict[str, collections.Counter] = {prefix: collections.Counter() for prefix in by_prefix}
    for prefix, made in by_prefix.items():
        inputs = sum(result.inputs for result in made)
        if inputs != publication.expected[prefix]:
            raise AssertionError(f"{prefix}: {publication.expected[prefix]} images were listed, {inputs} accounted for")
    for name in [*(result.name for result in results), *beside]:
        places.appear(directory, name)
    if alike:
        by_prefix = {prefix: editions.alike(directory, made) for prefix, made in by_prefix.items()}
        results = [result for made in by_prefix.values() for result in made]
    for prefix, made in by_prefix.items():
        table = rejects_table(prefix)
        named[table] = publication.settle(table, _rejects_writer(directory, made, reasons[prefix]))
    named[SHARD_LIST] = publication.settle(SHARD_LIST, lambda handle: write_shard_list(results, handle))
    if manifests:
        texts, spoken_of = manifests(results)
        named |= spoken_of
        for name, text in texts.items():
            if text is None:
                files.delete(paths.join(directory, name))
            else:
                files.write_text(directory, name, text)
    report = make_report(by_prefix, publication.options, publication.started, reasons, following, named)
    files.write_text(directory, REPORT, report.dumps())
    kept = {*(result.name for result in results), *beside, *named.values()}
    kept |= {sidecars.name_of(result.name) for result in results}
    stale = list(_stale(directory, kept, carried, publication.names))
    yield from (stale[at : at + _DELETED_TOGETHER] for at in range(0, len(stale), _DELETED_TOGETHER))


def _rejects_writer(directory: str, made: list[ShardResult], reasons: collections.Counter) -> Callable[[BinaryIO], Any]:
    def write(handle: BinaryIO | io.RawIOBase) -> None:
        reasons.clear()
        written = rejects.write_parquet(_counted(_gather(directory, made), reasons), handle)
        rejected = sum(result.rejects for result in made)
        if written != rejected:
            raise AssertionError(f"{rejected} images were rejected, {written} are in the sidecars")

    return write


def _gather(directory: str, results: Sequence[ShardResult]) -> Iterator[Reject]:
    """The rejects of all shards in order, their sidecars read side by side, a few ahead."""
    having = [result.name for result in results if result.rejects]
    with ThreadPoolExecutor(_THREADS) as pool:
        for at in range(0, len(having), 8 * _THREADS):
            for found in pool.map(lambda name: sidecars.read(directory, name), having[at : at + 8 * _THREADS]):
                yield from found.rejects if found else ()


def _counted(found: Iterator[Reject], reasons: collections.Counter) -> Iterator[Reject]:
    for reject in found:
        reasons[f"{reject.stage}/{reject.error}"] += 1
        yield reject


def _stale(directory: str, kept: set[str], carried: str, names: Names) -> Iterator[str]:
    """Files of the output before, and of runs that did not end; and all that was needed only while this one ran."""
    for folder in ("", places.SIDECARS, "rejects"):
        for name in finding.names(paths.join(directory, folder) if folder else directory):
            whole = paths.join(folder, name) if folder else name
            if whole not in kept and (folder == places.SIDECARS or names.is_ours(whole)):
                yield paths.join(directory, whole)
    for name in finding.names_below(paths.join(directory, CARRIED)) if names.carries else ():
        whole = paths.join(CARRIED, name)
        if names.is_ours(whole) and not (carried and (whole == carried or whole.startswith(f"{carried}/"))):
            yield paths.join(directory, whole)
    work = paths.join(directory, files.WORK)
    if paths.is_local(directory):
        yield work
    else:
        yield from (path for path, _ in finding.versions_below(work))
