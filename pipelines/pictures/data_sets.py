"""A data set with the captions that people gave it, as a gallery shows it; before anything is trained.

Each image's caption is the first that people gave, and what was said of it the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pipelines.items import Item, printable
from pipelines.pictures.choice import Chosen
from tfrecords_schema import show
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import open_features
from tfrecords_schema.record import IMAGE
from tfrecords_schema.storage import files


def of_features(directory: str, n: int, split: str | None) -> Chosen:
    """The first `n` images of a feature directory's split, or of its first one; shards are in a random order.

    Raises:
      InputError: it is no feature directory, is damaged, or has no such split.
    """
    info, _ = open_features(directory, files.read_text, "--features")
    name = split or next(iter(info.splits), "")
    if name not in info.splits:
        raise InputError(f"--split: expected {', '.join(info.splits)}, found {name!r} in --features {directory}")
    found = list(itertools.islice(show.records(directory, info, name), n))
    rows = [
        {
            "image_id": record["image/id"],
            "image_uri": record["image/uri"],
            "height": record["image/height"],
            "width": record["image/width"],
            "caption": record["caption/text"][0],
        }
        for record in found
    ]
    places = [record.get(IMAGE) or record["image/uri"] for record in found]
    said = [tuple(record["caption/text"][1:]) for record in found]
    return _chosen(rows, places, said, info.splits[name].images)


def of_items(items: Sequence[Item], total: int) -> Chosen:
    """Images that a source lists."""
    rows = [
        {
            "image_id": printable(item.id),
            "image_uri": printable(item.uri),
            "caption": item.captions[0] if item.captions else None,
        }
        for item in items
    ]
    return _chosen(rows, [item.uri for item in items], [item.captions[1:] for item in items], total)


def _chosen(rows, places, said, total: int) -> Chosen:
    return Chosen(rows, places, said, [None] * len(rows), total, options={})
