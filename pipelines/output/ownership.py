"""Whose the files in an output directory are: what is not ours is never written over, followed or deleted."""

from __future__ import annotations

import os
import re
from collections.abc import Container

from pipelines.output import places
from pipelines.output.names import Names
from tfrecords_schema import shards
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import tfds
from tfrecords_schema.manifests.caption_table import REPORT, SHARD_LIST
from tfrecords_schema.manifests.features_info import CARRIED, FEATURES_INFO
from tfrecords_schema.manifests.model_info import MODEL_INFO
from tfrecords_schema.storage import files, finding, paths

OPTIONS = "options.json"  # below .work: those of the run that goes on
LOCK = "lock"
_MANIFESTS = {
    FEATURES_INFO: "a feature directory",
    tfds.DATASET_INFO: "a feature directory",
    MODEL_INFO: "an export directory",
}
_REJECTS = "rejects"
# Below .work, what a folder holds; shards that wait and their like are told by their names.
_IN_WORK = {
    "": re.compile(rf"{OPTIONS}|{LOCK}|error\.txt|.+\.[0-9a-f]{{32}}\.tmp", re.DOTALL),
    "listing": re.compile(r"[a-z]+-\d{5,}\.parquet"),
    "progress": re.compile(r"[0-9a-f]{32}"),
    "finished": None,
}
_NOTHING = re.compile("(?!)")


def check(directory: str, names: Names) -> None:
    """Raises InputError where something that a run would write to, or delete, is another's. Whatever the flags."""
    folders = [
        *([CARRIED] if names.carries else []),
        files.WORK,
        places.SIDECARS,
        _REJECTS,
        *(paths.join(files.WORK, name) for name in _IN_WORK if name),
    ]
    for name in folders:
        if paths.is_local(directory) and os.path.islink(paths.join(directory, name)):
            raise InputError(
                f"--output: expected {paths.join(directory, name)} to be a directory, found a link, which is "
                "not followed; remove it, or give another --output"
            )
    there = set(finding.names(directory))
    for name, kind in _MANIFESTS.items():
        if name in there and name not in names.manifests:
            raise InputError(f"--output: {directory} is {kind}, by its {name}; give another --output")
    for name in _foreign(directory, names):
        raise InputError(
            f"--output: {paths.join(directory, name)} was not written by this command; move it away, or give another "
            "--output"
        )


def check_nothing_of_ours(directory: str, names: Names, overwrite: bool) -> None:
    """Raises InputError where files are called like ours, and nothing tells of a run that made them."""
    has_sidecars = bool(finding.names(paths.join(directory, places.SIDECARS)))
    if overwrite and has_sidecars:
        return
    below = [paths.join(_REJECTS, name) for name in finding.names(paths.join(directory, _REJECTS))]
    below += [paths.join(CARRIED, name) for name in finding.names_below(paths.join(directory, CARRIED))]
    there = [name for name in finding.names(directory) if names.has(name)]
    for name in there + [name for name in below if names.is_ours(name)]:
        ways = "--overwrite or another --output" if has_sidecars else "another --output"
        raise InputError(f"--output: {directory} holds {name}, but no {REPORT} of a run that made it; give {ways}")


def _foreign(directory: str, names: Names) -> list[str]:
    """What stands in the folders that we make, and is not called like a file of ours."""
    found = []
    for place in _names_in(paths.join(directory, files.WORK), _IN_WORK):
        folder, _, name = place.rpartition("/")
        ours = _IN_WORK.get(folder, _NOTHING)
        if not (ours.fullmatch(name) if ours else names.is_ours(name)):
            found.append(paths.join(files.WORK, place))
    for name in _names_in(paths.join(directory, places.SIDECARS), ()):
        whole = paths.join(places.SIDECARS, name)
        if not shards.is_named(whole, SHARD_LIST) and not names.is_shard(name.removesuffix(".parquet")):
            found.append(whole)
    return found


def _names_in(directory: str, made: Container[str]) -> list[str]:
    """Every file below a directory, and each directory in it that is not one we make, with a slash behind its name."""
    if not paths.is_local(directory):
        return finding.names_below(directory)
    found = []
    for folder, folders, names in os.walk(directory):
        place = os.path.relpath(folder, directory).removeprefix(".")
        found += [os.path.join(place, name) for name in names]
        found += [os.path.join(place, name, "") for name in folders if os.path.join(place, name) not in made]
    return sorted(found)
