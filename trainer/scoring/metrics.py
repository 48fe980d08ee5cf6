"""How good captions are: BLEU, METEOR, ROUGE-L and CIDEr as published figures are computed, by pycocoevalcap."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import normalise
from trainer.scoring import java

# Keys of scores, and what papers call them.
METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
}


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of one set of captions, times 100, as papers print them.

    Attributes:
      corpus: by metric, of all images together. BLEU and METEOR are no means over images.
      per_image: by metric, then by image id.
      comparable: whether captions were cut into words as for published figures.
      notes: one line each, of what a reader of the figures must know.
    """

    corpus: dict[str, float]
    per_image: dict[str, dict[str, float]]
    comparable: bool
    notes: tuple[str, ...]


class Scorer:
    """Scores captions against references, many times over: `with Scorer(references) as scorer: scorer(captions)`.

    References are tokenised once. METEOR's process starts with the first call and goes on until `close()`. Where Java
    is missing or fails, the rest is scored, and the notes tell. The figures are those of Chen et al. 2015
    (https://arxiv.org/abs/1504.00325): Stanford's tokens, BLEU with the closest reference length, and CIDEr-D, whose
    weights of words come from the references of the images that are scored; of a single image it is always 0.
    """

    def __init__(self, references: Mapping[str, Sequence[str]], *, meteor: bool = True):
        """Tokenises.

        Args:
          references: image id -> one caption or more, as people wrote them.
          meteor: whether to compute METEOR too, which takes by far the most time and memory.

        Raises:
          InputError: an image has no references, or not a list of texts.
        """
        if not references:
            raise InputError("references: expected images with captions, found none")
        for image_id, captions in references.items():
            if isinstance(captions, str) or not captions or not all(isinstance(text, str) for text in captions):
                raise InputError(f"references: image {image_id}: expected a list of captions, found {captions!r:.100}")
        self._given = {image_id: tuple(captions) for image_id, captions in references.items()}
        self._meteor: java.Meteor | None = None
        self._meteor_wanted = meteor
        self._failures: list[str] = []
        self._tokenise: Callable[[Sequence[str]], list[str]] = java.stanford_tokens
        try:
            self._references = self._tokenised_references()
        except java.JavaError as error:
            self._use_own_tokeniser(error)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends METEOR's process; a later call starts it again."""
        if self._meteor:
            self._meteor.close()
        self._meteor = None

    @property
    def comparable(self) -> bool:
        """Whether captions are cut into words as for published figures."""
        return self._tokenise is java.stanford_tokens

    def __call__(self, captions: Mapping[str, str]) -> Scores:
        """Scores captions by image id; the images without a caption are left out.

        Raises:
          InputError: there is no caption, or one of an image that has no references.
        """
        if not captions:
            raise InputError("captions: expected at least one, found none")
        for image_id in captions:
            if image_id not in self._given:
                raise InputError(f"captions: expected ids of images with references, found {image_id!r}")
        try:
            tokens = self._tokenise(list(captions.values()))
        except java.JavaError as error:
            self._use_own_tokeniser(error)
            tokens = self._tokenise(list(captions.values()))
        # Words alone count as a reference: no words against no words would be a perfect match to ROUGE.
        found = {i: [words] for i, words in zip(captions, tokens, strict=True) if self._references[i]}
        if not found:
            raise InputError("references: expected captions with words, found none of the images that are to be scored")
        references = {image_id: self._references[image_id] for image_id in found}
        by_metric = {**_compute(references, found), **self._compute_meteor(references, found)}
        return Scores(
            corpus={name: 100 * float(by_metric[name][0]) for name in METRICS if name in by_metric},
            per_image={
                name: {i: 100 * float(score) for i, score in zip(found, by_metric[name][1], strict=True)}
                for name in METRICS
                if name in by_metric
            },
            comparable=self.comparable,
            notes=(*self._failures, *_notes(len(captions), len(found))),
        )

    def _tokenised_references(self) -> dict[str, list[str]]:
        """image id -> its references in tokens, without those that have none."""
        tokens = iter(self._tokenise([text for captions in self._given.values() for text in captions]))
        each = ((image_id, [next(tokens) for _ in captions]) for image_id, captions in self._given.items())
        return {image_id: [words for words in found if words] for image_id, found in each}

    def _use_own_tokeniser(self, error: java.JavaError) -> None:
        """From here on, for references too: words that were cut in two ways would not meet."""
        self.close()
        self._meteor_wanted = False
        self._failures = [
            "NOT comparable with published figures: our own tokeniser takes the place of Stanford's, and METEOR is "
            f"left out, because both need Java: {error}"
        ]
        self._tokenise = lambda captions: [normalise(caption) for caption in captions]
        self._references = self._tokenised_references()

    def _compute_meteor(self, references: dict[str, list[str]], found: dict[str, list[str]]) -> dict[str, tuple]:
        if not self._meteor_wanted:
            return {}
        try:
            meteor, self._meteor = self._meteor or java.Meteor(), None  # after an exception it is closed
            scores = meteor([words for (words,) in found.values()], list(references.values()))
            self._meteor = meteor
            return {"meteor": scores}
        except java.JavaError as error:
            self._meteor_wanted = False  # it would fail again, and cost its start every time
            self._failures.append(f"METEOR is left out: {error}")
            return {}


def _compute(references: dict[str, list[str]], found: dict[str, list[str]]) -> dict[str, tuple]:
    """The metrics that are Python: metric -> (of all, of each image in order), from 0 to 1; CIDEr to 10."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    all_bleu, each_bleu = Bleu(4).compute_score(references, found, verbose=0)
    bleu = {f"bleu_{n}": scores for n, scores in enumerate(zip(all_bleu, each_bleu, strict=True), start=1)}
    rouge, cider = (metric.compute_score(references, found) for metric in (Rouge(), Cider()))
    return {**bleu, "rouge_l": rouge, "cider": cider}


def _notes(asked: int, scored: int) -> list[str]:
    notes = []
    if asked > scored:
        notes.append(f"{asked - scored} of {asked} images are left out: none of their references holds a word")
    if scored == 1:
        notes.append("CIDEr of a single image is 0 by definition: it weighs words by how few of the images have them")
    return notes
