"""What a feature directory holds, in words (`python -m tfrecords_schema.show DIR`)."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

from tfrecords_schema import command_line
from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError, told_in_one_line
from tfrecords_schema.manifests.features_info import FeaturesInfo, open_features
from tfrecords_schema.storage import files
from tfrecords_schema.text import on_screen

_WIDTH = 12


ABOUT = {
    "prog": "python -m tfrecords_schema.show",
    "usage": "%(prog)s DIR [--n N]",
    "description": "Print what a feature directory of pipelines.features holds, and some of its records.",
    "examples": """
        python -m tfrecords_schema.show demo/features --n 1
    """,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowConfig(Settings):
    """The whole of `python -m tfrecords_schema.show`."""

    directory: str = setting("feature directory to print", metavar="DIR", reads="folder", positional=True)
    n: int = setting("number of records to print from each split", 3, least=0)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    with told_in_one_line():
        config = command_line.parse(ShowConfig, argv, **ABOUT)
        try:
            for line in describe(config.directory, config.n):
                print(on_screen(line))
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe(directory: str, n: int) -> Iterator[str]:
    """The lines to print: the directory, its splits, its words, and `n` records of each split.

    Raises:
      InputError: it is no feature directory, or a shard is not what features_info.json says.
    """
    info, words = open_features(directory, files.read_text, "DIR")
    f = info.features
    yield _line("features", f"{f.extractor}, layer {f.layer}: {f.dtype} {list(f.shape)}, computed in {f.precision}")
    yield _line("weights", f"{f.weights} (SHA-256 {f.weights_digest[:12]}…)")
    yield _line("resize", f.resize)
    if info.images:
        yield _line("images", f"JPEGs, short side {info.images.short_side}, quality {info.images.quality}")
    commonest = ", ".join(words.words[4:12])
    yield _line("words", f"{len(words):,} ids; {commonest} …; captions of at most {info.max_caption_length} ids")
    for name, split in info.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        rejects = f", {split.rejects:,} rejected" if split.rejects else ""
        shards = f"{len(split.shards)} shard{'s' if len(split.shards) > 1 else ''}"
        yield _line(
            name, f"{split.images:,} images, {split.captions:,} captions{rejects}; {shards}, {size / 1e6:,.1f} MB"
        )
    for name in info.splits:
        for record in itertools.islice(records(directory, info, name), n):
            yield ""
            yield from _record(record, name, words)


def records(directory: str, info: FeaturesInfo, split: str) -> Iterator[dict]:
    """The records of a split, decoded, in the order of its shards. Raises InputError where one is damaged."""
    from tfrecords_schema import record, shards
    from tfrecords_schema.quiet import import_tensorflow

    import_tensorflow()  # whose protocol buffers records are made of
    f = info.features
    for shard in info.splits[split].shards:
        path = os.path.join(directory, shard.name)
        try:
            with files.open_binary(path) as handle:
                for data in shards.read_framed(handle):
                    yield record.decode(data, f.shape, f.dtype, info.max_caption_length, info.images is not None)
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{path}: expected {shard.records} records, found it damaged: {error}") from None


def _record(record: dict, split: str, words) -> Iterator[str]:
    feature = record["image/feature"].astype("float32")
    yield _line(split, f"{record['image/id']}: {record['image/width']} x {record['image/height']} pixels")
    yield _line("", record["image/uri"])
    yield _line("", f"feature: mean {feature.mean():.3f}, from {feature.min():.3f} to {feature.max():.3f}")
    for text, ids, length in zip(record["caption/text"], record["caption/ids"], record["caption/length"], strict=True):
        yield _line("", text)
        yield _line("", "  " + " ".join(f"{words.words[i]}:{i}" for i in ids[:length]))


def _line(name: str, value: str) -> str:
    return f"{name:<{_WIDTH}}{value}".rstrip()


if __name__ == "__main__":
    main()
