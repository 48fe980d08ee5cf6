"""Scores as people and programs read them: the table on the screen, metrics.json, scores.parquet, examples.md."""

from __future__ import annotations

import dataclasses
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.vocabulary import tokenise
from trainer.scoring.metrics import METRICS, Scores
from trainer.scoring.references import Matched, Reference

_PREDICTED = 60  # letters of a column of captions, at most


@dataclasses.dataclass(frozen=True)
class Card:
    """One set of predictions with its scores.

    Attributes:
      name: in tables.
      path: where the captions are.
      results: the file of its captions in the form of COCO's evaluation server.
      listed: the number of images with references, also those without a prediction.
    """

    name: str
    path: str
    results: str
    matched: Matched
    listed: int
    scores: Scores

    @property
    def images(self) -> list[str]:
        """The keys of the references of the images that were scored."""
        return list(self.scores.per_image["cider"])

    def statistics(self) -> dict[str, float]:
        """Figures of the captions' words, as our own tokeniser cuts them."""
        captions = [self.matched.predictions[key].caption for key in self.images]
        words = [tokenise(caption) for caption in captions]
        return {
            "mean_words": sum(map(len, words)) / len(words),
            "distinct_captions": len({" ".join(caption) for caption in words}),
            "distinct_words": len({word for caption in words for word in caption}),
        }

    def counts(self) -> dict[str, int]:
        """What became of every caption and of every image with references."""
        return {
            "images": len(self.images),
            "captions_without_references": self.matched.without_references,
            "captions_ambiguous": self.matched.ambiguous,
            "references_without_caption": self.listed - len(self.matched.predictions),
        }


def summary(
    cards: Sequence[Card], references: Mapping[str, Any], known: Mapping[str, Reference], written: Sequence[str]
) -> dict[str, Any]:
    """The content of metrics.json."""
    notes = [note for card in cards for note in card.scores.notes]
    if any(set(card.images) != set(cards[0].images) for card in cards):
        notes.append("the predictions are of different images: compare their figures with care")
    if len({card.scores.comparable for card in cards}) > 1:
        notes.append("Java failed between two predictions: their figures cannot be compared with each other")
    captions = sum(len(reference.captions) for reference in known.values())
    return {
        "predictions": [
            {
                "name": card.name,
                "path": card.path,
                "results": card.results,
                "metrics": card.scores.corpus,
                "comparable": card.scores.comparable,
                **card.counts(),
                **card.statistics(),
            }
            for card in cards
        ],
        "references": {**references, "images": len(known), "captions": captions},
        "comparable": all(card.scores.comparable for card in cards),
        "notes": list(dict.fromkeys(notes)),
        "files": list(written),
    }


def as_json(value: Any) -> bytes:
    """JSON for people to read, as a file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def parse_files(text: str | None) -> list[str]:
    """The files that a metrics.json of ours lists; none where it is somebody else's, or not there."""
    try:
        return typed_json.decode(text or "", _Written, "metrics.json").files
    except InputError:
        return []


@dataclasses.dataclass(frozen=True)
class _Written:
    files: list[str]


def table(cards: Sequence[Card], content: Mapping[str, Any]) -> Iterator[str]:
    """The lines that the command prints; `content` is `summary`'s.

    Behind the metrics: words in a caption, different captions, different words in all of them.
    """
    heads = ["images", *METRICS.values(), "length", "distinct", "words"]
    width = max(len(card.name) for card in cards)
    yield " " * width + "".join(f"  {head:>8}" for head in heads)
    for card, row in zip(cards, content["predictions"], strict=True):
        figures = [f"{row['metrics'][key]:.1f}" if key in row["metrics"] else "-" for key in METRICS]
        words = [f"{row['mean_words']:.1f}", f"{row['distinct_captions']:,}", f"{row['distinct_words']:,}"]
        cells = [f"{row['images']:,}", *figures, *words]
        yield f"{card.name:<{width}}" + "".join(f"  {cell:>8}" for cell in cells)
    yield ""
    references = content["references"]
    yield f"references  {references['captions']:,} captions of {references['images']:,} images"
    tokeniser = "Stanford PTB 3.4.1, as for published figures" if content["comparable"] else "our own"
    yield f"tokeniser   {tokeniser}"
    for row in content["predictions"]:
        where = f"{row['name']}: " if len(cards) > 1 else ""
        left_out = [
            (row["captions_without_references"], "captions of images without references"),
            (row["captions_ambiguous"], "captions that fit several images, or share one"),
            (row["references_without_caption"], "images with references but without a caption"),
        ]
        found = [f"{count:,} {what}" for count, what in left_out if count]
        if found:
            yield f"left out    {where}{'; '.join(found)}: scored over the {row['images']:,} images that have both"
    for note in content["notes"]:
        yield f"note        {note}"


def side_by_side(cards: Sequence[Card], known: Mapping[str, Reference]) -> Iterator[str]:
    """Lines of a few captions beside what people said of the same image: the worst by CIDEr, the middle, the best."""
    rows = []
    for card in cards:
        cider = card.scores.per_image["cider"]
        ranked = sorted(card.images, key=cider.__getitem__)
        for key in dict.fromkeys(ranked[place] for place in (0, len(ranked) // 2, -1)):
            predicted = " ".join(card.matched.predictions[key].caption.split())
            rows.append((card.name, f"{cider[key]:.1f}", predicted, " ".join(known[key].captions[0].split())))
    heads = ("", "CIDEr", "predicted", "what people said")
    first, _, widest, _ = (max(map(len, column)) for column in zip(heads, *rows, strict=True))
    for name, figure, predicted, person in (heads, *rows):
        yield f"{name:<{first}}  {figure:>8}  {predicted:<{min(widest, _PREDICTED)}}  {person}"


def scores_parquet(cards: Sequence[Card], known: Mapping[str, Reference]) -> bytes:
    """A row for each image of each card: its caption, references and scores, null for a metric that was left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [("image_id", pa.string()), ("image_uri", pa.string()), ("predictions", pa.string())]
    columns = [*texts, ("caption", pa.string()), ("references", pa.list_(pa.string()))]
    schema = pa.schema([*columns, *((metric, pa.float64()) for metric in METRICS)])
    rows = [
        {
            "image_id": key,
            "image_uri": card.matched.predictions[key].image_uri,
            "predictions": card.name,
            "caption": card.matched.predictions[key].caption,
            "references": list(known[key].captions),
            **{metric: each[key] for metric, each in card.scores.per_image.items()},
        }
        for card in cards
        for key in card.images
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")
    return file.getvalue()


def results_json(card: Card, known: Mapping[str, Reference]) -> bytes:
    """The captions in COCO's results format (https://cocodataset.org/#format-results), with the references' ids."""
    found = card.matched.predictions
    return as_json([{"image_id": known[key].id, "caption": found[key].caption} for key in found])


def examples(cards: Sequence[Card], known: Mapping[str, Reference], n: int) -> str:
    """Markdown: of each card the worst and the best `n` images by CIDEr, with what people said of them."""
    lines = ["# Captions and what people said of the same images"]
    for card in cards:
        ranked = sorted(card.images, key=lambda key: card.scores.per_image["cider"][key])
        for title, keys in (("worst", ranked[:n]), ("best", ranked[::-1][:n])):
            lines += ["", f"## {_plain(card.name)}: the {title} by CIDEr", ""]
            for number, key in enumerate(keys, start=1):
                prediction = card.matched.predictions[key]
                figures = (f"{METRICS[name]} {each[key]:.1f}" for name, each in card.scores.per_image.items())
                place = _plain(prediction.image_uri or known[key].name)
                lines += [f"{number}. **{_plain(prediction.caption) or '(no words)'}**", ""]
                lines += [f"   {_plain(key)}, {place}: {', '.join(figures)}", ""]
                lines += [*(f"   - {_plain(text)}" for text in known[key].captions), ""]
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    """A text as one line that Markdown shows as it is."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{character}" if character in "\\`*_[]#|~" else character for character in escaped)
