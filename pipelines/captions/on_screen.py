"""Captions on the screen: of a few images, without an output; and some of those that a run has written."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipelines.captions.captioning import Captioned, Captioning, as_row
from pipelines.captions.image_captioner import caption
from pipelines.captions.plan import Plan
from pipelines.items import Item, Reject
from pipelines.output import start
from pipelines.output.progress import LOADING, waiting
from pipelines.settings.caption import ON_SCREEN
from pipelines.sources import captions_files
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.storage import files
from tfrecords_schema.text import fitted, on_screen, shown_names

MOST = 300  # images; whoever captions more wants to keep the captions
_CAPTIONING = "captioning"
_EXAMPLES = 3  # of a run's captions
_EXAMPLE_COLUMNS = ("image_uri", "caption", "log_prob")
_NAME, _TEXT = 40, 60  # letters, of a column at most
_PEOPLE = "people:"


def print_captions(plan: Plan) -> dict[str, int]:
    """Captions all images and prints what the model says of them; those that cannot be used are told on stderr.

    Returns:
      images, rejects: how many there were.

    Raises:
      InputError: there are too many, or there is a mistake in what they came with.
    """
    config = plan.config
    flag = "features" if config.what.features else "images"
    with start.listed(plan.source) as catalogue:
        count = sum(catalogue.counts().values())
        if not count:
            raise InputError(f"--{flag}: expected images, found a table without any")
        if count > MOST:
            raise InputError(
                f"--output: expected a directory for more than {MOST} images, found none, and {count:,} images; give "
                "--output DIR, or --limit N"
            )
        items, captioning = catalogue.sample(count), plan.captioning(catalogue.metadata)
    said = _references(plan, items) if flag == "images" else {}  # a mistake is told before any model is loaded
    outcomes = _captioned(captioning, items)
    used = [one for one in outcomes if isinstance(one, Captioned)]
    if flag == "features":  # only whoever read the records knows their images
        said = _references(plan, [one.item for one in used])
    if ON_SCREEN in config.table.format:
        for one in outcomes:
            print(_json_line(_object(one, config.table.word_scores, said)))
    else:
        for line in _lines(used, said):
            print(on_screen(line))
    sys.stdout.flush()
    for reject in (one for one in outcomes if isinstance(one, Reject)):
        told = f"{reject.image_uri}: {reject.stage}/{reject.error}: {reject.message}"
        print(on_screen(told), file=sys.stderr, flush=True)
    return {"images": count, "rejects": count - len(used)}


def _captioned(captioning: Captioning, items: list[Item]) -> list[Captioned | Reject]:
    doing = LOADING

    @functools.cache
    def load() -> Captioning:
        nonlocal doing
        loaded = captioning.load()
        doing = _CAPTIONING
        return loaded

    with waiting(lambda: doing):
        return caption(captioning, items, load)


def _references(plan: Plan, items: Sequence[Item]) -> dict[int, tuple[str, ...]]:
    """What people said of images, by position: as --references says, or the JSON that lists them, or their records."""
    images = [(item.position, item.id, item.uri) for item in items]
    what, given = plan.config.what, plan.config.references
    if given:
        return captions_files.find_references(given, images, "--features" if what.features else "--images")[0]
    found = {item.position: item.captions for item in items if item.captions}
    for path in (path for path in what.images if path.lower().endswith(".json")):
        with contextlib.suppress(InputError):  # a list of images without captions
            found |= captions_files.find_references(path, images, "--images")[0]
    return found


def _lines(used: Sequence[Captioned], said: dict[int, tuple[str, ...]]) -> Iterator[str]:
    """Each image's captions, and below them what people said, in columns."""
    names = shown_names([one.item.uri for one in used])
    width = min(_NAME, max(map(len, [*names.values(), _PEOPLE if said else ""]), default=0))
    text_width = min(_TEXT, max((len(found.text) for one in used for found in one.captions), default=0))
    for one in used:
        name = fitted(names[one.item.uri], width)
        for found in one.captions:
            yield f"{name:<{width}}  {found.text:<{text_width}}  p={math.exp(found.log_prob):.3g}"
            name = ""
        for text in said.get(one.item.position, ()):
            yield f"{_PEOPLE:>{width}}  {' '.join(text.split())}"


def _object(one: Captioned | Reject, word_scores: bool, said: dict[int, tuple[str, ...]]) -> dict[str, Any]:
    """An image as JSON: its row of a table, with what people said of it if that is known; or of a rejects table."""
    if isinstance(one, Reject):
        return one.printable()
    people = said.get(one.item.position)
    return as_row(one, word_scores) | ({"references": list(people)} if people else {})


def _json_line(row: dict[str, Any]) -> str:
    """JSON in one line, whoever cuts it into lines; what gives a terminal orders, or cannot be seen, is escaped."""
    text = json.dumps(row, ensure_ascii=False, default=np.ndarray.tolist)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def print_examples(directory: str) -> None:
    """Prints some captions of a table that a run has completed."""
    rows = caption_table.read_rows(directory, files.read_text, files.open_binary, _EXAMPLE_COLUMNS)
    shown: list[dict[str, Any]] = []
    with contextlib.suppress(InputError):  # it is complete, whether or not it can be read again just now
        shown += itertools.islice(rows, _EXAMPLES)
    names = shown_names([row["image_uri"] for row in shown])
    width = min(_NAME, max((len(names[row["image_uri"]]) for row in shown), default=0))
    for row, head in zip(shown, ("examples", *[""] * _EXAMPLES), strict=False):
        probability = math.exp(row["log_prob"])
        name = fitted(names[row["image_uri"]], width)
        print(on_screen(f"{head:<12}{name:<{width}}  {row['caption']}  p={probability:.3g}"))
