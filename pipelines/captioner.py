"""From features to captions: an export directory, loaded and run."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from pipelines import files
from tfrecords_schema.dataset_info import VOCABULARY
from tfrecords_schema.errors import InputError
from tfrecords_schema.model_info import MODEL_INFO, ModelInfo
from tfrecords_schema.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Search:
    """How captions are searched for; see trainer.beam_search, which runs inside the exported graph.

    Attributes:
      beam_width: hypotheses kept, and captions given, for each image.
      max_length: START and END counted.
      length_penalty: 0 ranks by log probability alone; larger values favour longer captions.
    """

    beam_width: int = 3
    max_length: int = 25
    length_penalty: float = 0.0

    def __post_init__(self):
        for name, value, smallest in (("beam_width", self.beam_width, 1), ("max_length", self.max_length, 3)):
            if value < smallest:
                raise InputError(f"--{name}: expected at least {smallest}, found {value}")
        if not 0 <= self.length_penalty < math.inf:
            raise InputError(f"--length_penalty: expected a number from 0 up, found {self.length_penalty}")


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption and its log probability: the natural logarithm, summed over its words and END."""

    text: str
    log_prob: float


def open_model(directory: str) -> tuple[ModelInfo, Vocabulary]:
    """Reads what an export directory says of itself, without loading the model.

    Raises:
      InputError: it is no export directory, or its parts do not belong together.
    """
    texts = {}
    for name in (MODEL_INFO, VOCABULARY, "saved_model.pb"):
        path = files.join(directory, name)
        if not files.exists(path):
            raise InputError(
                f"--model: expected an export directory with {name}, found none in {directory}; "
                "the trainer writes one at <job_dir>/export"
            )
        if name != "saved_model.pb":
            texts[name] = files.read_bytes(path).decode("utf-8")
    info = ModelInfo.loads(texts[MODEL_INFO], files.join(directory, MODEL_INFO))
    vocabulary = Vocabulary.loads(texts[VOCABULARY], files.join(directory, VOCABULARY))
    if vocabulary.digest != info.vocabulary_digest:
        raise InputError(
            f"--model: {files.join(directory, VOCABULARY)} is not the vocabulary of this model: its digest is "
            f"{vocabulary.digest[:12]}…, {MODEL_INFO} says {info.vocabulary_digest[:12]}…; export the model again"
        )
    return info, vocabulary


class Captioner:
    """features float32 `[batch_size, *shape]` -> for each image its captions, best first.

    `load` reads the SavedModel; before it, a Captioner is small and can be pickled.
    """

    def __init__(self, directory: str, search: Search):
        self.directory, self.search = directory, search
        self._signature = None

    def load(self) -> Captioner:
        """Loads the model, from a local copy where the directory is remote; returns self."""
        import tensorflow as tf

        local = files.local_copy(self.directory)
        _, self._vocabulary = open_model(local)
        self._model = tf.saved_model.load(local)
        self._signature = self._model.signatures["caption"]
        return self

    def __call__(self, features: np.ndarray) -> list[list[Caption]]:
        """At most `beam_width` different captions an image; fewer where the model knows no more."""
        import tensorflow as tf

        found = self._signature(
            features=tf.constant(features, tf.float32),
            beam_width=tf.constant(self.search.beam_width),
            max_length=tf.constant(self.search.max_length),
            length_penalty=tf.constant(self.search.length_penalty, tf.float32),
        )
        ids, log_prob = found["ids"].numpy(), found["log_prob"].numpy()  # [B, K, T], [B, K]
        if not np.isfinite(log_prob[:, 0]).all():
            raise ValueError(f"{self.directory}: the model gives no finite log probability; train and export it again")
        return [
            [
                Caption(self._vocabulary.decode(caption_ids), float(score))
                for caption_ids, score in zip(image_ids, scores, strict=True)
                if np.isfinite(score)  # an empty place: there were fewer different captions than beams
            ]
            for image_ids, scores in zip(ids, log_prob, strict=True)
        ]
