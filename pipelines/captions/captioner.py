"""From features to captions: an export directory, loaded and run."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.captions.detokenise import detokenise
from pipelines.captions.exports import open_model
from pipelines.captions.word_ids import NO_WORDS, WordIds
from pipelines.settings.search import Search
from pipelines.storage import saved_models
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import CARRIED
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import copies
from tfrecords_schema.vocabulary import PAD, Vocabulary, tokenise

# Images captioned together; a forward pass has fewer. Each step of the search has a cost that does not depend on them.
BATCH = 128
_MULTIPLE = 32  # fewer images, at a shard's end, are padded to such a number: few sizes, known from the start

_MOST_SCORED = 1000  # words of a caption that is given


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption and its log probability.

    Attributes:
      log_prob: the natural logarithm, summed over its words and END, in the model's own words of probability: whatever
        was forbidden, and at whatever temperature it was drawn.
      words: that the text is made of.
      word_log_probs: of each word, and of END if it has one, given those before it; their sum is `log_prob`.
      attention: float32 `[len(words), P]`, where on the feature grid the model looked for each word; None where it has
        no attention, or nobody asked.
    """

    text: str
    log_prob: float
    words: tuple[str, ...] = ()
    word_log_probs: tuple[float, ...] = ()
    attention: np.ndarray | None = None


class Captioner:
    """features `[n, *shape]` and the images' ids, n at most BATCH -> for each image its captions, best first.

    `load` reads the SavedModel; before it, a Captioner is small and can be pickled.

    Args:
      words: ids of what every caption begins with, and of what none says.
      attention: captions are to have it.
      capitalise: texts begin with a capital letter.
      at_once: for a few images now and then, whoever waits for them: calls may be small.
    """

    def __init__(
        self,
        directory: str,
        search: Search,
        words: WordIds = NO_WORDS,
        attention: bool = False,
        capitalise: bool = False,
        at_once: bool = False,
    ):
        self.directory, self.search, self.words = directory, search, words
        self.attention, self.capitalise, self.at_once = attention, capitalise, at_once
        self._signatures: dict[str, Any] = {}

    def load(self) -> Captioner:
        """Loads the model, from a local copy where the directory is remote; returns self."""
        tf = import_tensorflow()
        local = copies.local_copy(self.directory, but=CARRIED)
        info, self._vocabulary = open_model(local)
        # Whatever the image: a model that cannot say a word here is broken.
        anything = dataclasses.replace(self.search, min_length=2, no_repeat_ngram=0, forbid_unk=False)

        def load() -> dict[str, np.ndarray]:
            self._model = tf.saved_model.load(local)
            self._signatures = dict(self._model.signatures)
            # Traces, which is part of loading.
            rows = 1 if self.at_once else BATCH
            return self._run(np.zeros([rows, *info.features.shape], np.float32), [""], anything, NO_WORDS)

        found = saved_models.told(load, f"--model: {self.directory}")
        if not np.isfinite(found["log_prob"][0, 0]):
            raise ValueError(f"{self.directory}: the model gives no finite log probability; train and export it again")
        return self

    def __call__(
        self, features: np.ndarray, image_ids: Sequence[str], prefixes: Sequence[tuple[int, ...]] = ()
    ) -> list[list[Caption]]:
        """At most `captions_per_image` different captions an image; fewer, or none, where the model knows no more.

        Args:
          prefixes: ids that the captions of each image begin with; by default those of `words` for all.
        """
        padded = self._padded(features)
        found = self._run(padded, image_ids, self.search, self.words, prefixes)
        return [self._captions({name: array[row] for name, array in found.items()}) for row in range(len(features))]

    def with_search(self, search: Search, words: WordIds) -> Captioner:
        """A captioner of the same model, loaded or not, with other options of the search."""
        other = copy.copy(self)
        other.search, other.words = search, words
        return other

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the loaded model."""
        return self._vocabulary

    def score(self, features: np.ndarray, texts: Sequence[str | None]) -> list[tuple[float, int] | None]:
        """(log probability, how many ids it has, END counted) of a caption of each image.

        Words that the model does not know count as UNK. None for a text that has no words, or more than _MOST_SCORED.
        """
        import tensorflow as tf

        words = [tokenise(text) if text else [] for text in texts]
        words = [each if len(each) <= _MOST_SCORED else [] for each in words]
        longest = max(map(len, words), default=0) + 2
        padded = self._padded(features)
        ids = np.full((len(padded), longest), PAD, np.int32)
        for row, each in zip(ids, words, strict=False):
            row[:], _ = self._vocabulary.encode(" ".join(each), longest)
        found = self._signatures["score"](features=tf.constant(padded), ids=tf.constant(ids[:, 1:]))
        totals = found["word_log_prob"].numpy().sum(axis=1)
        return [(float(total), len(each) + 1) if each else None for total, each in zip(totals, words, strict=False)]

    def _run(
        self,
        features: np.ndarray,
        image_ids: Sequence[str],
        search: Search,
        words: WordIds,
        prefixes: Sequence[tuple[int, ...]] = (),
    ) -> dict[str, np.ndarray]:
        """The signature's outputs."""
        import tensorflow as tf

        inputs = {
            "features": tf.constant(features, tf.float32),
            "min_length": tf.constant(search.min_length),
            "no_repeat_ngram": tf.constant(search.no_repeat_ngram),
            "forbid_unk": tf.constant(search.forbid_unk),
            "forbidden": tf.constant(words.forbidden, tf.int32),
            "prefix": tf.constant(_rows(prefixes or [words.prefix] * len(features), len(features)), tf.int32),
        }
        if search.sample:
            signature, flag = "sample", "captions_per_image"
            inputs |= {
                "uniform": tf.constant(self._uniform(image_ids, len(features))),
                "temperature": tf.constant(search.temperature, tf.float32),
                "top_p": tf.constant(search.top_p, tf.float32),
            }
        else:
            signature, flag = "caption", "beam_width"
            inputs |= {
                "beam_width": tf.constant(search.beam_width),
                "max_length": tf.constant(search.max_length),
                "length_penalty": tf.constant(search.length_penalty, tf.float32),
                "beam_groups": tf.constant(search.beam_groups),
                "diversity_penalty": tf.constant(search.diversity_penalty, tf.float32),
            }
        try:
            return {name: tensor.numpy() for name, tensor in self._signatures[signature](**inputs).items()}
        except tf.errors.ResourceExhaustedError:
            raise InputError(
                f"--{flag} {getattr(search, flag)}: a search over {BATCH} images does not fit into memory; give a "
                "smaller value, or use a machine with more memory"
            ) from None

    def _padded(self, features: np.ndarray) -> np.ndarray:
        """With zeros up to one of the few sizes that the graph sees."""
        count = len(features)
        rows = 1 << (count - 1).bit_length() if self.at_once else -(-count // _MULTIPLE) * _MULTIPLE
        return np.concatenate([features, np.zeros((rows - count, *features.shape[1:]), np.float32)], dtype=np.float32)

    def _uniform(self, image_ids: Sequence[str], size: int) -> np.ndarray:
        """The numbers that words are drawn with, float32 `[size, K, T]`: of an image's id, and of nothing else."""
        search = self.search
        numbers = np.zeros((size, search.captions_per_image, search.max_length - 1), np.float32)
        for row, image_id in enumerate(image_ids):
            key = hashlib.blake2b(f"{search.seed}:{image_id}".encode("utf-8", "surrogateescape"), digest_size=16)
            generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key.digest(), "big")))
            numbers[row] = generator.random(numbers.shape[1:], np.float32)
        return numbers

    def _captions(self, found: dict[str, np.ndarray]) -> list[Caption]:
        """The captions of one image, from ids `[K, T]`, log_prob `[K]` and attention `[K, T, P]`."""
        ranks = np.argsort(-found["log_prob"], kind="stable") if self.search.sample else range(len(found["log_prob"]))
        captions: dict[str, Caption] = {}
        for k in ranks:
            if not np.isfinite(found["log_prob"][k]):  # an empty place: there are fewer captions than were asked for
                continue
            words = tuple(self._vocabulary.words_of(found["ids"][k]))
            weights = found["attention"][k, : len(words)] if self.attention else None
            text = detokenise(words, self.capitalise)
            each = tuple(found["word_log_prob"][k, : found["length"][k]].tolist())
            captions.setdefault(text, Caption(text, float(found["log_prob"][k]), words, each, weights))
        return list(captions.values())[: self.search.captions_per_image]


def _rows(given: Sequence[tuple[int, ...]], count: int) -> np.ndarray:
    """int32 `[count, P]` of as many ids or fewer, PAD behind them."""
    rows = np.full((count, max(map(len, given), default=0)), PAD, np.int32)
    for row, ids in zip(rows, given, strict=False):
        row[: len(ids)] = ids
    return rows
