"""From images, or stored features of them, to captions: one way, for tables, for the screen and for Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pipelines.captions.captioner import BATCH, Caption, Captioner
from pipelines.captions.given_columns import NO_GIVEN_COLUMNS, GivenColumns
from pipelines.clock import StageClock
from pipelines.items import ImageError, Item, Reject, printable
from pipelines.vision.extraction import FeatureBatch, extract, regrouped
from pipelines.vision.extractors import Extractor
from pipelines.vision.reading import Reading, some_can_be_read
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.vocabulary import END, SPECIAL_WORDS

_NO_CAPTION = ImageError(
    "caption", "NoCaption", "the model has no caption of finite probability that the rules for its words allow"
)


class FeatureMaker(Protocol):
    """Where features come from. Small and picklable; `load` returns one that holds what is heavy."""

    def load(self) -> Any:
        """A FeatureMaker of the same features that holds what is heavy, such as the network."""

    def batches(self, items: list[Item], clock: StageClock, load: Callable[[], Any]) -> Iterator[FeatureBatch | Reject]:
        """Every item once, in a batch of features or as a Reject; `load` gives the loaded one."""

    def some_can_be_read(self, items: list[Item]) -> bool:
        """Whether any of these items, whose reading failed before, can be read by now."""


@dataclasses.dataclass(frozen=True)
class ExtractedFeatures:
    """Features of images, by a network.

    Attributes:
      dtype: that features were stored in for training. They are rounded to it here too, so that the decoder is given
        the very numbers that a feature directory of the same images would hold.
    """

    extractor: Extractor
    reading: Reading
    dtype: str

    def load(self) -> ExtractedFeatures:
        """With the network's weights."""
        return dataclasses.replace(self, extractor=self.extractor.load())

    def batches(
        self, items: list[Item], clock: StageClock, load: Callable[[], ExtractedFeatures]
    ) -> Iterator[FeatureBatch | Reject]:
        """Reads, decodes and extracts."""
        return extract(items, self.extractor, lambda: load().extractor, self.reading, clock, self.dtype)

    def some_can_be_read(self, items: list[Item]) -> bool:
        """Whether any of these items, whose reading failed before, can be read by now."""
        return some_can_be_read(items)


@dataclasses.dataclass(frozen=True)
class Captioned:
    """An image with its captions.

    Attributes:
      height, width: in pixels, after EXIF orientation, before resizing.
      captions: different ones, best first; one at least.
      given: (log probability, how many ids it has, END counted) of a caption that came with the image; None where none
        came, or nobody asked.
    """

    item: Item
    height: int
    width: int
    captions: list[Caption]
    given: tuple[float, int] | None = None


@dataclasses.dataclass(frozen=True)
class Captioning:
    """Items -> their captions. Small and picklable until it is loaded.

    Attributes:
      features, captioner: the captioner was trained on these features.
      given: columns that shape or judge captions.
    """

    features: FeatureMaker
    captioner: Captioner
    given: GivenColumns = NO_GIVEN_COLUMNS

    def load(self) -> Captioning:
        """Both models, loaded."""
        return dataclasses.replace(self, features=self.features.load(), captioner=self.captioner.load())

    def batches(
        self, items: list[Item], clock: StageClock, load: Callable[[], Captioning]
    ) -> Iterator[Reject | list[tuple[Item, Captioned | Reject]]]:
        """Every item once, those with captions in their order; rejects as they come.

        Args:
          load: gives the same, loaded; called when the first image is there, so that bad images alone load nothing.
        """
        for outcome in regrouped(self.features.batches(items, clock, lambda: load().features), BATCH):
            if isinstance(outcome, Reject):
                yield outcome
                continue
            with clock.stage("caption"):
                yield self.captioned(outcome, load().captioner)

    def captioned(self, batch: FeatureBatch, captioner: Captioner) -> list[tuple[Item, Captioned | Reject]]:
        """Each image with its captions, or with why it has none."""
        items, prefixes = batch.items, []
        problems: dict[int, ImageError] = {}
        if self.given.prefix is not None:
            found = self.given.prefixes(items, captioner.vocabulary, captioner.search.max_length)
            problems = {row: one for row, one in enumerate(found) if isinstance(one, ImageError)}
            prefixes = [() if isinstance(one, ImageError) else one for one in found]
        captions = captioner(batch.features, [item.id for item in items], prefixes)
        scores: list[tuple[float, int] | None] = [None] * len(items)
        if self.given.score is not None:
            scores = captioner.score(batch.features, self.given.scored(items))
        made: list[tuple[Item, Captioned | Reject]] = []
        for row, (item, size, said, score) in enumerate(zip(items, batch.sizes, captions, scores, strict=True)):
            problem = problems.get(row) or (None if said else _NO_CAPTION)
            made.append((item, problem.of(item.id, item.uri) if problem else Captioned(item, *size, said, score)))
        return made


def as_row(made: Captioned, word_scores: bool, further: Sequence[str] = ()) -> dict[str, Any]:
    """An image's row of the caption table, by column.

    Args:
      word_scores: whether captions are told word by word.
      further: the names of the columns that its metadata are the values of.
    """
    item, best = made.item, made.captions[0]
    row = {
        "image_id": printable(item.id),
        "image_uri": printable(item.uri),
        "height": made.height,
        "width": made.width,
        "caption": best.text,
        "log_prob": best.log_prob,
        "captions": [_entry(caption, word_scores) for caption in made.captions],
        **dict(zip(further, item.metadata if further else (), strict=True)),
        **(dict(zip(caption_table.SCORES, made.given, strict=True)) if made.given else {}),
    }
    if best.attention is not None:
        pairs = zip(best.words, best.attention, strict=True)
        row[caption_table.ATTENTION] = [{"word": word, "weights": weights} for word, weights in pairs]
    return row


def _entry(caption: Caption, word_scores: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"caption": caption.text, "log_prob": caption.log_prob}
    if word_scores:
        # One that was cut has no END, which zip leaves out then.
        pairs = zip((*caption.words, SPECIAL_WORDS[END]), caption.word_log_probs, strict=False)
        entry[caption_table.WORDS] = [{"word": word, "log_prob": log_prob} for word, log_prob in pairs]
    return entry
