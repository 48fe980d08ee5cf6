"""How good a decoder is on the validation images: loss, perplexity, and the metrics of the captions that it gives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf

from tfrecords_schema.manifests.model_info import LEAST_LENGTH
from trainer.config import TrainConfig
from trainer.data import dataset
from trainer.data.batches import Batches
from trainer.model.decoder import Decoder
from trainer.scoring.metrics import Scorer, Scores
from trainer.search.caption_module import CaptionModule
from trainer.training import objectives
from trainer.training.update import make_measure

_BATCH = 64  # images captioned at a time


class Captioned(NamedTuple):
    """A validation image: what the decoder says, and what people said."""

    id: str
    uri: str
    caption: str
    references: tuple[str, ...]


class Validation:
    """Measures a decoder on a split; captions with the beam search that is exported, as a table's are.

    `check` is called between batches, and may raise to stop.
    """

    def __init__(self, batches: Batches, config: TrainConfig, decoder: Decoder, strategy: tf.distribute.Strategy):
        self._batches, self._config, self._strategy = batches, config, strategy
        self._module = CaptionModule(decoder)
        objective = functools.partial(objectives.cross_entropy, config=config)
        self._measure = make_measure(decoder, objective, strategy, batches.dataset(0))
        self._scorer: Scorer | None = None

    def losses(self, check: Callable[[], None]) -> dict[str, tuple[float, float]]:
        """{name: (sum, divisor)} of the captions that people wrote."""
        sums: dict[str, tuple[float, float]] = {}
        for batch in self._strategy.experimental_distribute_dataset(self._batches.dataset(0)):
            check()
            add(sums, self._measure(batch))
        return sums

    def scores(self, check: Callable[[], None]) -> tuple[Scores, list[Captioned]]:
        """BLEU to CIDEr, and the captioned images."""
        captioned = []
        for batch in self._captioned():
            check()
            captioned += batch
        # By their places: of ids that are no UTF-8, several may be shown alike.
        by_place = {str(place): image for place, image in enumerate(captioned)}
        if self._scorer is None:
            self._scorer = Scorer({place: image.references for place, image in by_place.items()})
        check()
        return self._scorer({place: image.caption for place, image in by_place.items()}), captioned

    def forget(self) -> None:
        """Has features read again, since they are others now."""
        self._batches.forget()

    def close(self) -> None:
        """Ends the processes that scoring started."""
        if self._scorer:
            self._scorer.close()

    def _captioned(self) -> Iterator[list[Captioned]]:
        config, directory = self._config, self._batches.directory
        keys = ("image/id", "image/uri", "image/feature", "caption/text")
        records = dataset.images(directory, self._batches.split).map(lambda r: {key: r[key] for key in keys})
        for batch in records.ragged_batch(_BATCH).prefetch(1):
            found = self._module.caption(
                tf.cast(batch["image/feature"], tf.float32),
                tf.constant(config.beam_width),
                tf.constant(directory.info.max_caption_length),
                tf.constant(config.length_penalty),
                min_length=tf.constant(LEAST_LENGTH),
            )
            best = found["ids"].numpy()[:, 0]  # [B, T]
            names = zip(batch["image/id"].numpy(), batch["image/uri"].numpy(), strict=True)
            yield [
                Captioned(_text(id_), _text(uri), directory.vocabulary.decode(ids), tuple(map(_text, texts)))
                for (id_, uri), ids, texts in zip(names, best, batch["caption/text"].to_list(), strict=True)
            ]


def add(sums: dict[str, tuple[float, float]], reported) -> None:
    """Adds what one step reported; in double precision, one step after the other, so that a stop changes no digit."""
    for name, (total, divisor) in reported.items():
        earlier = sums.get(name, (0.0, 0.0))
        sums[name] = (earlier[0] + float(total), earlier[1] + float(divisor))


def mean_figures(sums: dict[str, tuple[float, float]], prefix: str = "") -> dict[str, float]:
    """{name: (sum, divisor)} -> {prefix + name: mean}, and the perplexity where there is a loss."""
    means = {name: total / divisor if divisor else math.nan for name, (total, divisor) in sums.items()}
    if "loss" in means:
        means["perplexity"] = math.exp(min(means["loss"], 700))
    return {f"{prefix}{name}": value for name, value in means.items()}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
