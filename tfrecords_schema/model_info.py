"""`model_info.json`: what an exported decoder is and which features it expects."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from tfrecords_schema.dataset_info import FeatureSpec, feature_spec, parse_versioned
from tfrecords_schema.errors import InputError

SCHEMA_VERSION = 4  # the SavedModel has the signatures `caption` and `sample`, with constraints
MODEL_INFO = "model_info.json"


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """The whole of model_info.json. Its schema version also stands for the signatures of the SavedModel beside it.

    Attributes:
      decoder: the decoder's configuration, enough to build it again; of an ensemble a list of them under "ensemble".
      features: what the decoder was trained on and must be fed with.
      max_caption_length: of the training captions, START and END counted.
      vocabulary_digest: of the vocabulary.txt beside this file.
      digest: SHA-256 of weights, configuration and vocabulary; names this model in every table it makes.
      metrics: of the exported epoch on the validation images, e.g. {"val_loss": 2.98, "cider": 48.1}.
      search: beam_width and length_penalty that they were captioned with, for whoever does not say otherwise.
    """

    decoder: dict[str, Any]
    features: FeatureSpec
    max_caption_length: int
    vocabulary_digest: str
    digest: str
    metrics: dict[str, Any]
    search: dict[str, float]
    schema_version: int = SCHEMA_VERSION

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def loads(cls, text: str, where: str = MODEL_INFO) -> ModelInfo:
        """Reads what `dumps` wrote. Raises InputError naming `where`."""
        values = parse_versioned(text, where, SCHEMA_VERSION)
        try:
            info = cls(features=feature_spec(values.pop("features")), **values)
            info.search["beam_width"], info.search["length_penalty"]
            return info
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{where}: does not have the keys of schema version {SCHEMA_VERSION}: {error}") from None
