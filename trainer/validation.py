"""How good a decoder is on the validation images: loss, perplexity, and the metrics of the captions that it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf

from trainer import dataset
from trainer.caption_module import CaptionModule
from trainer.config import TrainConfig
from trainer.metrics import Scorer, Scores

_BATCH = 64  # images captioned at a time


class Captioned(NamedTuple):
    """A validation image: what the decoder says, and what people said."""

    id: str
    uri: str
    caption: str
    references: tuple[str, ...]


class Validation:
    """Captions a split's images, with the beam search that is exported, and scores them."""

    def __init__(self, directory: dataset.FeatureDirectory, split: str, config: TrainConfig):
        self._directory, self._split, self._config = directory, split, config
        self._scorer: Scorer | None = None

    def scores(self, module: CaptionModule, check: Callable[[], None]) -> tuple[Scores, list[Captioned]]:
        """BLEU to CIDEr, and the captioned images. `check` is called between batches, and may raise to stop."""
        captioned = []
        for batch in self._captioned(module):
            check()
            captioned += batch
        if self._scorer is None:
            self._scorer = Scorer({image.id: image.references for image in captioned})
        check()
        return self._scorer({image.id: image.caption for image in captioned}), captioned

    def close(self) -> None:
        """Ends the processes that scoring started."""
        if self._scorer:
            self._scorer.close()

    def _captioned(self, module: CaptionModule) -> Iterator[list[Captioned]]:
        config, vocabulary = self._config, self._directory.vocabulary
        keys = ("image/id", "image/uri", "image/feature", "caption/text")
        records = dataset.images(self._directory, self._split).map(lambda r: {key: r[key] for key in keys})
        for batch in records.ragged_batch(_BATCH).prefetch(1):
            found = module.caption(
                tf.cast(batch["image/feature"], tf.float32),
                tf.constant(config.beam_width),
                tf.constant(self._directory.info.max_caption_length),
                tf.constant(config.length_penalty),
            )
            best = found["ids"].numpy()[:, 0]  # [B, T]
            names = zip(batch["image/id"].numpy(), batch["image/uri"].numpy(), strict=True)
            yield [
                Captioned(_text(id_), _text(uri), vocabulary.decode(ids), tuple(map(_text, texts)))
                for (id_, uri), ids, texts in zip(names, best, batch["caption/text"].to_list(), strict=True)
            ]


def mean_figures(sums: dict[str, tuple[float, float]], prefix: str = "") -> dict[str, float]:
    """{name: (sum, divisor)} -> {prefix + name: mean}, and the perplexity where there is a loss."""
    means = {name: total / divisor if divisor else math.nan for name, (total, divisor) in sums.items()}
    if "loss" in means:
        means["perplexity"] = math.exp(min(means["loss"], 700))
    return {f"{prefix}{name}": value for name, value in means.items()}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
