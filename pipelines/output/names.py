"""What the files of a pipeline's output are called, and under which names a rerun puts theirs beside them."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import sys
from collections.abc import Callable, Iterable, Sequence

from tfrecords_schema import shards
from tfrecords_schema.manifests.caption_table import SHARD_LIST
from tfrecords_schema.manifests.features_info import is_carried
from tfrecords_schema.storage import paths

_MUCH = 2  # times as many images in a shard as were asked for


def rejects_table(prefix: str) -> str:
    """The name of the rejects table of a split."""
    return paths.join("rejects", f"{prefix}.parquet")


@dataclasses.dataclass(frozen=True)
class Names:
    """What the files of a pipeline's output are called.

    Attributes:
      prefixes, suffixes: of shards, "captions" and ".parquet", and of what is made of a shard, ".csv".
      texts: the names of further files that a rerun replaces.
      manifests: of those that readers trust, beside report.json; what they name is not written over.
      carries: whether weights may lie in it, see `features_info.is_carried`.
    """

    prefixes: Sequence[str]
    suffixes: Sequence[str]
    texts: Sequence[str] = ()
    manifests: Sequence[str] = ()
    carries: bool = False

    def has(self, name: str) -> bool:
        """Whether a file is called like one of ours, or nearly so: better to stop for one too many."""
        shards_ = (f"{prefix}-*{suffix}" for prefix in self.prefixes for suffix in self.suffixes)
        return name in (*self.texts, *self.manifests) or any(fnmatch.fnmatch(name, pattern) for pattern in shards_)

    def is_ours(self, name: str) -> bool:
        """Whether a file in an output of ours is a shard, or one of `roles` under any of its names."""
        if self.carries and is_carried("/".join(name.split("/")[:2])):
            return True
        parsed = shards.parse_shard_name(name)
        if parsed:
            return parsed[0] in self.prefixes and parsed[3] in self.suffixes
        return any(shards.is_named(name, role) for role in self.roles())

    def is_shard(self, name: str) -> bool:
        """Whether a file is called like a shard, and not like what is made of one."""
        parsed = shards.parse_shard_name(name)
        return parsed is not None and parsed[0] in self.prefixes and parsed[3] == self.suffixes[0]

    def roles(self) -> list[str]:
        """The files of which an output has one each, by their first names."""
        return [*self.texts, SHARD_LIST, *map(rejects_table, self.prefixes)]


def all_there(names: Iterable[str]) -> dict[tuple[str, int, int], str]:
    """By (split, number, count), the names of shards; only of splits of which each is there.

    A name alone is not to be believed: to that of one shard of a million belong all others.
    """
    found = {parsed[:3]: name for name in names if (parsed := shards.parse_shard_name(name))}
    have = collections.Counter((split, count) for split, number, count in found if number < count)
    whole = {split: count for (split, count), there in have.items() if there == count}
    return {key: name for key, name in found.items() if whole.get(key[0]) == key[2]}


@dataclasses.dataclass(frozen=True)
class Present:
    """The complete output that is there when a run begins, which is not to be touched until the next one is complete.

    Attributes:
      shards: by (split, number), the name of each; none where there is no output, or it is to be replaced as a whole.
      counts: how many shards each split has.
      current: the names of its `Names.roles`.
      used: names that must not be written over.
    """

    shards: dict[tuple[str, int], str]
    counts: dict[str, int]
    current: dict[str, str]
    used: frozenset[str]

    @classmethod
    def of(cls, names: Iterable[str], current: dict[str, str], used: frozenset[str]) -> Present:
        """From the names of its shards."""
        found = all_there(names)
        numbers = {(split, number): name for (split, number, _), name in found.items()}
        return cls(numbers, {split: count for split, _, count in found}, current, used)

    def shard_counts(self, images: dict[str, int], images_per_shard: int) -> dict[str, int]:
        """How many shards each split is to have: as many as it has, so that images that were added move no others."""
        wanted = {split: shards.shard_count(count, images_per_shard) for split, count in images.items()}
        kept = {split: self.counts.get(split, count) for split, count in wanted.items()}
        for split, count in kept.items():
            if not 1 / _MUCH < wanted[split] / count < _MUCH and wanted[split] != count:
                print(
                    f"{split}: {images[split]:,} images stay in {count:,} files, the number that the first run chose; "
                    f"--overwrite would make {wanted[split]:,}",
                    file=sys.stderr,
                    flush=True,
                )
        return kept

    def names(self, counts: dict[str, int], suffix: str) -> Callable[[str, int], tuple[str, str | None]]:
        """Split and number of a shard -> its name if it is made, and that of the present one."""

        def names(split: str, number: int) -> tuple[str, str | None]:
            name = shards.shard_name(split, number, counts[split], suffix)
            return shards.free_name(name, self.used), self.shards.get((split, number))

        return names

    def free(self, roles: Sequence[str]) -> dict[str, str]:
        """A name for each role that is not in use."""
        return {role: shards.free_name(role, self.used) for role in roles}
