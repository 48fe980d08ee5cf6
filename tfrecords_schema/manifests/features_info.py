"""`features_info.json`: what a feature directory holds, by which extractor, with which vocabulary.

Readers trust this file, not a glob; whoever opens a directory checks versions and digests here first.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from tfrecords_schema import shards
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.manifests.typed_json import Count
from tfrecords_schema.vocabulary import Vocabulary

SCHEMA_VERSION = 2
FEATURES_INFO = "features_info.json"
_EARLIER_NAME = "dataset_info.json"  # in version 0.1.0; what is called so now is TFDS' (see tfds.py)
VOCABULARY = "vocabulary.txt"
CARRIED = "extractor"  # below a feature directory or an export: the weights that features are made with
MOST_IDS = 10_000  # in a caption
_Shape = Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 24)], ...], msgspec.Meta(min_length=1, max_length=4)]
CaptionLength = Annotated[int, msgspec.Meta(ge=3, le=MOST_IDS)]
RESIZE = (
    "bilinear, antialiased, aspect ratio not kept; JPEGs by libjpeg-turbo, those of 8 times the size at reduced scale"
)
IM2TXT_RESIZE = (
    "im2txt: bilinear to 346/299 of the size, not antialiased, not rounded; its middle; JPEGs by the fast DCT"
)
IM2TXT_CROP = 346 / 299  # the side of what im2txt resizes to, over the side of what it crops from that
# What earlier versions wrote, of which features agree to a cosine of 0.9999 (benchmarks/README.md, Decoding).
_AGREEING = (
    RESIZE,
    "pillow bilinear, antialiased, aspect ratio not kept; JPEGs of 8 times the size decoded at reduced scale",
)
_FEATURE_DIRECTORY = ("a feature directory", "pipelines.features writes one when it is done")


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """Everything that must be equal for two features to mean the same.

    Attributes:
      extractor: registry name of the network, "inception_v3".
      layer: which of its outputs.
      weights: what was asked for: "imagenet", "random", or where the file or SavedModel was, an absolute path or URI.
      weights_digest: SHA-256 of the weights file (of the recipe, for "random").
      shape: of one image's feature, `(2048,)`.
      dtype: what it is stored in, "float16" or "float32".
      precision: of the forward pass, "float32", "bfloat16" or "float16".
      resize: how an image of any size becomes the extractor's input.
    """

    extractor: str
    layer: str
    weights: str
    weights_digest: str
    shape: _Shape
    dtype: Annotated[str, msgspec.Meta(pattern=r"^float(16|32)\Z")]
    precision: Annotated[str, msgspec.Meta(pattern=r"^(float32|bfloat16|float16)\Z")]
    resize: str

    def require_same(self, other: FeatureSpec, mine: str, theirs: str) -> None:
        """Raises InputError that names the first difference.

        `weights` is only a label, its digest counts; and precisions may differ, since features then are nearly equal,
        as may ways to resize that agree.
        """
        for field in dataclasses.fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            if field.name == "resize" and {a, b} <= set(_AGREEING):
                continue
            if field.name not in ("weights", "precision") and a != b:
                raise InputError(f"{field.name} differs: {mine} has {a}, {theirs} has {b}")


def check_carried(name: str, spec: FeatureSpec) -> None:
    """Raises InputError where a description names weights, which readers will open, that are not carried ones."""
    if name and not (is_carried(name) and name.startswith(f"{CARRIED}/{spec.weights_digest[:16]}")):
        raise InputError(f"extractor: expected {CARRIED}/ and the weights' digest, found {name[:100]!r}")


def is_carried(name: str) -> bool:
    """Whether a path below a directory of ours may be that of carried weights, a file or a SavedModel."""
    return re.fullmatch(CARRIED + r"/[0-9a-f]{16}(\.h5|\.weights\.h5)?", name) is not None


@dataclasses.dataclass(frozen=True)
class StoredImages:
    """How images stand in the records, as `image/encoded`: JPEGs, upright, for networks to be trained on.

    Attributes:
      short_side: in pixels, of those that were larger; smaller ones are as large as they were.
      quality: of the JPEGs, as libjpeg counts it; a small upright JPEG is stored as it was.
    """

    short_side: Annotated[int, msgspec.Meta(ge=1, le=4000)]
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)]


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One file: its name, records, captions, bytes, and the SHA-256 of these bytes."""

    name: str
    records: Count
    captions: Count
    bytes: Count
    sha256: str


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """One split: images written, captions, rejected images, and the shards in order."""

    images: Count
    captions: Count
    rejects: Count
    shards: tuple[ShardInfo, ...]

    def __post_init__(self):
        records = sum(shard.records for shard in self.shards)
        if records != self.images:
            raise InputError(f"expected shards of {self.images} records, found {records}")


@dataclasses.dataclass(frozen=True)
class FeaturesInfo:
    """The whole of features_info.json. `max_caption_length` counts START and END.

    `vocabulary_file` is another name than usual where a later run has changed the words of a complete directory.
    `extractor` is the name of the weights that the directory carries, a file or a SavedModel; "" where it has none.
    `images` says how images are stored; None: they are not, and records have no `image/encoded`.
    """

    features: FeatureSpec
    max_caption_length: CaptionLength
    vocabulary_size: Count
    vocabulary_digest: str
    splits: dict[str, SplitInfo]
    vocabulary_file: str = VOCABULARY
    extractor: str = ""
    images: StoredImages | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self):
        # Names are joined to the directory: one that leads out of it must never be followed.
        check_carried(self.extractor, self.features)
        if not shards.is_named(self.vocabulary_file, VOCABULARY):
            raise InputError(f"vocabulary_file: expected {VOCABULARY}, found {self.vocabulary_file[:100]!r}")
        for split, info in self.splits.items():
            if split not in shards.SPLITS:
                raise InputError(f"splits: expected {', '.join(shards.SPLITS)}, found {split[:100]!r}")
            for number, shard in enumerate(info.shards):
                first = shards.shard_name(split, number, len(info.shards))
                if not shards.is_named(shard.name, first):
                    raise InputError(f"splits.{split}.shards[{number}]: expected {first}, found {shard.name[:100]!r}")

    def dumps(self) -> str:
        """As JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        # A shard a line: there may be a hundred thousand.
        return re.sub(r'\{\s+("name": [^{}]*?)\s+\}', lambda found: "{" + " ".join(found[1].split()) + "}", text) + "\n"

    @classmethod
    def loads(cls, text: str, where: str = FEATURES_INFO) -> FeaturesInfo:
        """Reads what `dumps` wrote.

        Raises:
          InputError: not JSON, another schema version, or a field that does not fit; names `where`.
        """
        return parse_versioned(text, where, SCHEMA_VERSION, cls)

    def require_vocabulary(self, digest: str, where: str) -> None:
        """Raises InputError unless `where` holds the vocabulary that the records were made with."""
        if digest != self.vocabulary_digest:
            raise InputError(
                f"{where}: its digest is {digest[:12]}…, but {FEATURES_INFO} says {self.vocabulary_digest[:12]}…; put "
                "the vocabulary back that the records were made with, or make the features again"
            )


def open_info(directory: str, read_text: Callable[[str], str | None], flag: str) -> FeaturesInfo:
    """What a feature directory says of itself.

    Args:
      directory: that pipelines.features wrote.
      read_text: path -> all of a UTF-8 file; None where there is none. May raise OSError or ValueError.
      flag: that named the directory.

    Raises:
      InputError: it is no feature directory, or another version's.
    """
    path = posixpath.join(directory, FEATURES_INFO)

    def text_there(path: str) -> str | None:
        text = read_text(path)
        if text is None:
            earlier = read_text(posixpath.join(directory, _EARLIER_NAME)) or ""
            text = earlier if '"schema_version"' in earlier else None
        return text

    return FeaturesInfo.loads(text_of(path, text_there, flag, *_FEATURE_DIRECTORY), path)


def open_features(directory: str, read_text: Callable[[str], str | None], flag: str) -> tuple[FeaturesInfo, Vocabulary]:
    """The same, with the vocabulary of the captions, checked against its recorded digest."""
    info = open_info(directory, read_text, flag)
    path = posixpath.join(directory, info.vocabulary_file)
    vocabulary = Vocabulary.loads(text_of(path, read_text, flag, *_FEATURE_DIRECTORY), path)
    info.require_vocabulary(vocabulary.digest, path)
    return info, vocabulary


def text_of(path: str, read_text: Callable[[str], str | None], flag: str, what: str, made_by: str) -> str:
    """A text file of a directory that the user gave: `what` it should be, and who makes such. Raises InputError."""
    directory, name = posixpath.split(path)
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{flag}: expected {what}, found {path}: {told}") from None
    if text is None:
        raise InputError(f"{flag}: expected {what} with {name}, found none in {directory}; {made_by}")
    return text


@dataclasses.dataclass(frozen=True)
class _Versioned:
    schema_version: Any = None


def parse_versioned(text: str, where: str, version: int, kind: type[Any]) -> Any:
    """A `kind` from a JSON object whose `schema_version` must be `version`. Raises InputError naming `where`."""
    found = typed_json.decode(text, _Versioned, where).schema_version
    if found != version:
        raise InputError(
            f"{where}: expected schema_version {version}, found {str(found)[:100]}; it was written by another version "
            "of this program: make it again, or use that version"
        )
    return typed_json.decode(text, kind, where)
