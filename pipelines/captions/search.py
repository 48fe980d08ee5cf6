"""How captions are searched for, or drawn: the flags, their checks, and what a later run is compared with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tfrecords_schema.errors import InputError
from tfrecords_schema.model_info import ModelInfo

_WIDEST = 1000  # more would not fit into memory for the images that are searched together
_LARGEST_PENALTY = 10  # of which a caption of twice the length counts for a thousandth of its log probability
_BEAM, _SAMPLE = ("beam_width", "length_penalty"), ("temperature", "top_p", "seed")


@dataclasses.dataclass(frozen=True)
class Search:
    """What the model is asked for; see trainer.search, whose functions run inside the exported graph.

    Attributes:
      beam_width: hypotheses kept for each image.
      captions_per_image: given for each image, at most; the best of the beam, or as many as are drawn.
      max_length, min_length: ids in a caption, START and END counted: 3 asks for a word.
      length_penalty: GNMT's alpha: 0 ranks by log probability alone; larger values favour longer captions.
      no_repeat_ngram: so many words never stand twice in the same order in a caption; 0 for no such rule.
      forbid_unk: never says that a word is unknown.
      sample: draws captions in place of searching for the most probable ones.
      temperature: of drawing; lower is nearer to the most probable caption.
      top_p: draws each word from the most probable ones that together have this probability.
      seed: of drawing, with the image's id.
    """

    beam_width: int = 3
    captions_per_image: int = 3
    max_length: int = 25
    min_length: int = 3
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0
    forbid_unk: bool = True
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        least = {"beam_width": 1, "captions_per_image": 1, "max_length": 3, "min_length": 2, "no_repeat_ngram": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"--{name}: expected at least {smallest}, found {getattr(self, name)}")
        for name in ("beam_width", "captions_per_image"):
            if getattr(self, name) > _WIDEST:
                raise InputError(f"--{name}: expected at most {_WIDEST}, found {getattr(self, name)}")
        if not 0 <= self.length_penalty <= _LARGEST_PENALTY:
            raise InputError(
                f"--length_penalty: expected a number from 0 to {_LARGEST_PENALTY}, found {self.length_penalty}"
            )
        if self.min_length > self.max_length:
            raise InputError(
                f"--min_length: expected at most the greatest length, {self.max_length}, found {self.min_length}"
            )
        if not 0 < self.temperature < math.inf:
            raise InputError(f"--temperature: expected a number above 0, found {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--top_p: expected a number above 0, and at most 1, found {self.top_p}")
        if not self.sample and self.captions_per_image > self.beam_width:
            raise InputError(
                f"--captions_per_image: expected at most the beam's width, {self.beam_width}, found "
                f"{self.captions_per_image}; give --beam_width {self.captions_per_image}"
            )

    def describe(self) -> dict[str, Any]:
        """What the captions follow from, by flag."""
        without = _BEAM if self.sample else _SAMPLE
        return {name: value for name, value in vars(self).items() if name not in without}


def resolve(given: dict[str, Any], info: ModelInfo) -> Search:
    """The search of a command line: what it does not say is as the model was validated.

    Args:
      given: Search's attributes, None where the flag was not given.

    Raises:
      InputError: a value is out of range, or flags contradict each other.
    """
    found = {name: value for name, value in given.items() if value is not None}
    sample = found.get("sample", False)
    for name in _BEAM if sample else _SAMPLE:
        if name in found:
            raise InputError(
                f"--{name}: expected it without --sample, which draws captions and has no beam; leave one of them out"
                if sample
                else f"--{name}: expected --sample beside it, found none; beam search draws nothing"
            )
    width = found.get("beam_width")
    if sample:
        defaults = {"captions_per_image": 1}
    else:  # who asks for ten captions, and says nothing of the beam, is given a beam of ten
        width = width or max(int(info.search["beam_width"]), found.get("captions_per_image", 1))
        defaults = {
            "beam_width": width,
            "captions_per_image": width,
            "length_penalty": float(info.search["length_penalty"]),
        }
    return Search(**{"max_length": info.max_caption_length, **defaults, **found})
