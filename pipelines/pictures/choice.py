"""What a gallery shows, and which images of a caption table, with what people said of them.

The table is read several times, and never held: at first only the columns to choose by.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pipelines.sources import captions_files
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.storage import files
from tfrecords_schema.vocabulary import normalise

_LIGHT_COLUMNS = ("image_id", "image_uri", "caption", "log_prob")  # enough to choose by


class Chosen(NamedTuple):
    """What is shown, image by image.

    Attributes:
      rows: of a caption table, or like those of one.
      places: of each image its URI or its bytes; None where nobody knows.
      said: of each what people said.
      cider: of each its caption's CIDEr, times 100, or None.
      total: how many images there are to choose from.
      options: what the captions were made with, by report.json.
      rejects: how many further images could not be captioned.
      name, facts: what the page says of all of them; facts by their names.
    """

    rows: list[dict[str, Any]]
    places: list[str | bytes | None]
    said: list[tuple[str, ...]]
    cider: list[float | None]
    total: int
    options: dict[str, Any]
    rejects: int = 0
    name: str = ""
    facts: dict[str, Any] = {}  # noqa: RUF012


def of_table(captions: str, n: int, sort: str, references: str | None, needs_attention: bool) -> Chosen:
    """At most `n` rows of a caption table, in the order of `sort`.

    Raises:
      InputError: there is no complete table, or references, or the attention that is needed, are not there.
    """
    said = find_references(captions, references) if references else {}
    cider = score(captions, said)
    if sort == "worst" and not cider:
        raise InputError(
            "--sort worst: expected references for at least two images, since CIDEr weighs words by them; found one"
        )
    numbers, total = choose(captions, n, sort, cider)
    rows = fetch(captions, numbers)
    if needs_attention and not any(row.get(caption_table.ATTENTION) for row in rows):
        raise InputError(
            f"--attention_pictures: expected a column {caption_table.ATTENTION} in {captions}, found none; make it "
            "with pipelines.caption --attention and a model that has attention"
        )
    report = caption_table.read_report(captions, files.read_text)
    places = [row["image_uri"] for row in rows]
    of_each = [said.get(number, ()) for number in numbers], [cider.get(number) for number in numbers]
    return Chosen(rows, places, *of_each, total, report.options, report.rejects)


def read_rows(directory: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a caption table. Raises InputError where there is no whole one."""
    return caption_table.read_rows(directory, files.read_text, files.open_binary, columns)


def choose(captions: str, n: int, sort: str, cider: dict[int, float]) -> tuple[list[int], int]:
    """(the numbers of at most `n` rows in the order of `sort`, how many rows there are)."""

    def rank(number: int, row: dict[str, Any]) -> Any:
        if sort == "random":
            return hashlib.sha256(str(row["image_id"]).encode("utf-8")).digest()
        if sort == "worst":
            return cider.get(number)  # None: without references it is neither good nor bad
        known = row["log_prob"] is not None and not math.isnan(row["log_prob"])
        return -row["log_prob"] if known else math.inf

    total = 0

    def ranked() -> Iterator[tuple[Any, int]]:
        nonlocal total
        for total, row in enumerate(read_rows(captions, _LIGHT_COLUMNS), start=1):
            yield rank(total - 1, row), total - 1

    chosen = heapq.nsmallest(n, (pair for pair in ranked() if pair[0] is not None))
    return [number for _, number in chosen], total


def fetch(captions: str, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """All columns of some rows, in the order of their numbers in `chosen`."""
    wanted = set(chosen)
    found = {number: row for number, row in enumerate(read_rows(captions)) if number in wanted}
    return [found[number] for number in chosen]


def find_references(captions: str, path: str) -> dict[int, tuple[str, ...]]:
    """By the numbers of the rows that references are found for; tells how many these are.

    Raises InputError as `captions_files.find_references` does.
    """
    rows = enumerate(read_rows(captions, _LIGHT_COLUMNS))
    images = ((number, row["image_id"] or "", row["image_uri"] or "") for number, row in rows)
    found, total = captions_files.find_references(path, images, captions)
    print(f"{len(found)} of {total} images have references in {path}")
    return found


def score(captions: str, said: dict[int, tuple[str, ...]]) -> dict[int, float]:
    """CIDEr-D of each caption, times 100 (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726).

    Words are weighed by the images here; of a single one all would weigh nothing, so it has no figure.
    """
    if len(said) < 2:
        return {}
    from pycocoevalcap.cider.cider import Cider

    rows = enumerate(read_rows(captions, _LIGHT_COLUMNS))
    found = {number: [normalise(row["caption"] or "")] for number, row in rows if number in said}
    _, scores = Cider().compute_score({number: list(map(normalise, said[number])) for number in said}, found)
    return {number: 100 * float(score) for number, score in zip(said, scores, strict=True)}
