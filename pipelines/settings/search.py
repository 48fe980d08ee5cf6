"""How captions are searched for, or drawn: the flags, their checks, and what a later run is compared with."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.model_info import LEAST_LENGTH, ModelInfo

_WIDEST = 1000  # more would not fit into memory for the images that are searched together
_LONGEST = 1000  # ids; no caption has a hundred
_LARGEST_PENALTY = 10  # of which a caption of twice the length counts for a thousandth of its log probability
_BEAM = ("beam_width", "length_penalty", "beam_groups", "diversity_penalty")
_SAMPLE = ("temperature", "top_p", "seed")


@dataclasses.dataclass(frozen=True)
class Search(Settings):
    """What the model is asked for; see trainer.search, whose functions run inside the exported graph.

    Attributes that are None by default follow from the model: `resolved` fills them in.

    Attributes:
      beam_width: hypotheses kept for each image.
      captions_per_image: given for each image, at most; the best of the beam, or as many as are drawn.
      max_length, min_length: ids in a caption, START and END counted: 3 asks for a word.
      length_penalty: GNMT's alpha: 0 ranks by log probability alone; larger values favour longer captions.
      beam_groups: parts of the beam that keep away from each other's words; the beam's width is a multiple of it.
      diversity_penalty: how far they do: taken off the log probability of a word for each time that it was chosen.
      no_repeat_ngram: so many words never stand twice in the same order in a caption; 0 for no such rule.
      forbid_unk: never says that a word is unknown.
      forbid_words: a file of words that are never said.
      prefix: what every caption begins with.
      sample: draws captions in place of searching for the most probable ones.
      temperature: of drawing; lower is nearer to the most probable caption.
      top_p: draws each word from the most probable ones that together have this probability.
      seed: of drawing, with the image's id.
    """

    beam_width: int = setting(
        "hypotheses kept for each image; 1 without a length penalty is greedy search",
        None,
        unset="as the model was validated",
        least=1,
        most=_WIDEST,
    )
    captions_per_image: int = setting(
        "captions to give for each image at most",
        None,
        unset="--beam_width, or 1 with --sample",
        least=1,
        most=_WIDEST,
    )
    max_length: int = setting(
        "longest caption in tokens, counting START and END",
        None,
        unset="as the model was trained",
        least=3,
        most=_LONGEST,
    )
    min_length: int | None = setting(
        "shortest caption in tokens, counting START and END: 3 is one word",
        None,
        unset="as the model says, mostly 3",
        least=2,
        most=_LONGEST,
    )
    length_penalty: float = setting(
        "exponent of the length penalty; larger values favour longer captions",
        None,
        unset="as the model was validated",
        least=0,
        most=_LARGEST_PENALTY,
    )
    beam_groups: int = setting(
        "groups of the beam in diverse beam search, each kept away from the words of the others; must divide "
        "--beam_width",
        1,
        least=1,
        most=_WIDEST,
    )
    diversity_penalty: float = setting(
        "how strongly the groups of --beam_groups keep away from each other's words", 0.5, least=0, most=1000
    )
    no_repeat_ngram: int = setting(
        "never repeat N words in the same order within a caption; 0 switches the rule off", 0, least=0, most=_LONGEST
    )
    forbid_unk: bool | None = setting(
        "never put <unk> for an unknown word into a caption", None, unset="as the model says, mostly yes"
    )
    forbid_words: str | None = setting(
        "text file of words that captions must not have, one a line", None, metavar="FILE", reads="file"
    )
    prefix: str = setting("words that every caption begins with", "", metavar="TEXT")
    sample: bool = setting(
        "draw captions at random instead of searching; an image gets the same ones whenever it is done again",
        False,
        heading="sampling",
    )
    temperature: float = setting(
        "temperature of --sample; lower values keep to more probable words", 1.0, above=0, most=1e9
    )
    top_p: float = setting(
        "nucleus sampling: draw each word from the most probable ones that together have this probability",
        1.0,
        above=0,
        most=1,
    )
    seed: int = setting("random seed of --sample", 0)

    def __post_init__(self):
        super().__post_init__()
        for name in _BEAM if self.sample else _SAMPLE:
            if getattr(self, name) != getattr(Search, name):
                raise InputError(
                    f"--{name}: expected it without --sample, which draws captions and has no beam; leave one out"
                    if self.sample
                    else f"--{name}: expected --sample beside it, found none; beam search draws nothing"
                )
        if self.beam_groups == 1 and self.diversity_penalty != Search.diversity_penalty:
            raise InputError("--diversity_penalty: expected --beam_groups 2 or more beside it, found 1")
        if self.beam_width is not None and self.beam_width % self.beam_groups:
            raise InputError(
                f"--beam_groups: expected a number that divides the beam's width, {self.beam_width}, found "
                f"{self.beam_groups}"
            )
        if self.max_length is not None and self.min_length is not None and self.min_length > self.max_length:
            raise InputError(
                f"--min_length: expected at most the greatest length, {self.max_length}, found {self.min_length}"
            )
        if None not in (self.beam_width, self.captions_per_image) and self.captions_per_image > self.beam_width:
            raise InputError(
                f"--captions_per_image: expected at most the beam's width, {self.beam_width}, found "
                f"{self.captions_per_image}; give --beam_width {self.captions_per_image}"
            )

    def resolved(self, info: ModelInfo) -> Search:
        """These options, the others as the model has them. Raises InputError where they do not fit it."""
        if self.sample:
            follows: dict[str, Any] = {"captions_per_image": 1}
        else:  # who asks for ten captions, and says nothing of the beam, is given a beam of ten
            width = self.beam_width or max(int(info.search["beam_width"]), self.captions_per_image or 1)
            width = -(-width // self.beam_groups) * self.beam_groups
            penalty = float(info.search["length_penalty"])
            follows = {"beam_width": width, "captions_per_image": width, "length_penalty": penalty}
        said = {name: value for name, value in vars(self).items() if value is not None}
        follows["max_length"] = info.max_caption_length
        follows["min_length"] = int(info.search.get("min_length", LEAST_LENGTH))
        follows["forbid_unk"] = bool(info.search.get("forbid_unk", True))
        return Search(**{**follows, **said})

    def describe(self) -> dict[str, Any]:
        """What the captions follow from, by flag."""
        without = _BEAM if self.sample else _SAMPLE
        return {name: value for name, value in vars(self).items() if name not in without}
