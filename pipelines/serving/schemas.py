"""What goes in and out as JSON: the types behind the OpenAPI page. Options of the search are the command's flags."""

from __future__ import annotations

import base64
import binascii
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from pipelines.settings.search import Search
from tfrecords_schema import command

_SERVER_FILES = ("forbid_words",)  # a path on the server is none of a client's
_LONGEST, _LONGEST_TEXT = 100, 1000  # ids of a caption, letters of a prefix: the time of a search grows with both
_IDS = ("max_length", "min_length", "no_repeat_ngram")
_WIDTHS = ("beam_width", "captions_per_image", "beam_groups")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    word_scores: bool = Field(False, description="the log probability of each word too")
    attention: bool = Field(False, description="where an attention model looked, by word of the best caption")

    def search(self) -> dict[str, Any]:
        """The options of the search that were given."""
        return self.model_dump(exclude_unset=True, exclude_none=True, exclude={"word_scores", "attention"})


def options(max_beam_width: int) -> type[_Asked]:
    """The options of a request, with the types, ranges and help texts of the command's flags.

    Args:
      max_beam_width: that a request may ask for.
    """
    fields: dict[str, Any] = {}
    for flag in command.flags(Search):
        if flag.name in _SERVER_FILES:
            continue
        about = flag.about
        most = max_beam_width if flag.name in _WIDTHS else _LONGEST if flag.name in _IDS else about.most
        limits: dict[str, Any] = {}
        if flag.type is int:
            limits = {"ge": -(1 << 31) if about.least is None else about.least, "le": most or (1 << 31) - 1}
        elif flag.type is float:
            limits = {"ge": about.least, "gt": about.above, "le": most, "allow_inf_nan": False}
        elif flag.type is str:
            limits = {"max_length": _LONGEST_TEXT}
        given = {name: value for name, value in limits.items() if value is not None}
        kind = flag.type | None if flag.default is None else flag.type
        told = f"{about.help} (default: {about.unset})" if about.unset else about.help
        fields[flag.name] = (kind, Field(flag.default, description=told, **given))
    return create_model("Options", __base__=_Asked, **fields)


class Image(BaseModel):
    """An image of a request: its file, or where it is."""

    model_config = ConfigDict(extra="forbid")

    content: str | None = Field(None, description="the file's bytes in base64")
    url: str | None = Field(None, max_length=4000, description="http(s); only where the service runs with --allow_urls")

    @model_validator(mode="after")
    def _one_of_both(self) -> Image:
        if (self.content is None) == (self.url is None):
            raise ValueError("expected content or url")
        return self

    def given(self) -> bytes | str:
        """The bytes, or the URL. Raises ValueError where it is no base64."""
        if self.content is None:
            return cast(str, self.url)
        try:
            return base64.b64decode(self.content, validate=True)
        except binascii.Error as error:
            raise ValueError(f"expected base64, found something else: {error}") from None


def requests(asked: type[_Asked]) -> tuple[type[BaseModel], type[BaseModel]]:
    """(JSON of `/v1/captions`, JSON of Vertex AI), with these options."""
    strict = ConfigDict(extra="forbid")
    options_field: Any = (asked, Field(default_factory=asked))
    images: Any = (list[Image], Field(min_length=1))
    own = create_model("CaptionsRequest", __config__=strict, images=images, options=options_field)
    vertex = create_model("PredictRequest", __config__=strict, instances=images, parameters=options_field)
    return own, vertex


class Word(BaseModel):
    """A word, or the end of a caption, with its log probability given the words before it."""

    word: str
    log_prob: float


class Caption(BaseModel):
    """A caption; `log_prob` is the natural logarithm of its probability."""

    caption: str
    log_prob: float
    words: list[Word] | None = None


class Looked(BaseModel):
    """Where the model looked for a word: a weight for each position of a square grid, row by row."""

    word: str
    weights: list[float]


class Captioned(BaseModel):
    """An image with its captions, best first; height and width in pixels, after EXIF orientation."""

    height: int
    width: int
    captions: list[Caption]
    attention: list[Looked] | None = None


class Problem(BaseModel):
    """Why an image cannot be used, as in the batch job's table of rejects."""

    stage: str
    error: str
    message: str


class Rejected(BaseModel):
    """An image that cannot be used."""

    error: Problem


class Timing(BaseModel):
    """Milliseconds: until the request had arrived, until its images were read, until they were captioned."""

    upload_ms: float
    decode_ms: float
    caption_ms: float


class CaptionsAnswer(BaseModel):
    """`images` are those of the request, in its order; `model` is the digest of the model."""

    model: str
    images: list[Captioned | Rejected]
    timing: Timing


class PredictAnswer(BaseModel):
    """The answer in Vertex AI's form: a prediction for each instance, in their order."""

    predictions: list[Captioned | Rejected]
    model: str


class ModelAnswer(BaseModel):
    """What is served: the model's digest, whether it tells where it looks, and what a request may hold."""

    model: str
    attention: bool
    urls: bool
    max_images: int
    max_request_mb: int


class Refusal(BaseModel):
    """Why a request was refused: `code` is a short name, `message` for a person."""

    code: str
    message: str


class RefusedAnswer(BaseModel):
    """The answer to a request without captions."""

    error: Refusal
