"""`model_info.json`: what an exported decoder is and which features it expects."""

from __future__ import annotations

import dataclasses
import json
import posixpath
from collections.abc import Callable
from typing import Any

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.dataset_info import VOCABULARY, CaptionLength, FeatureSpec, parse_versioned, text_of
from tfrecords_schema.vocabulary import Vocabulary

SCHEMA_VERSION = 4  # the SavedModel has the signatures `caption` and `sample`, with constraints
MODEL_INFO = "model_info.json"
_SEARCH = {"beam_width": (1, 1000), "length_penalty": (0, 10)}  # the bounds that the flags have
_EXPORT_DIRECTORY = ("an export directory", "the trainer writes one at <job_dir>/export")


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
    max_caption_length: CaptionLength
    vocabulary_digest: str
    digest: str
    metrics: dict[str, Any]
    search: dict[str, float]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self):
        for name, (least, most) in _SEARCH.items():
            found = self.search.get(name)
            if found is None or not least <= found <= most:
                raise InputError(f"search.{name}: expected a number from {least} to {most}, found {found}")

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def loads(cls, text: str, where: str = MODEL_INFO) -> ModelInfo:
        """Reads what `dumps` wrote. Raises InputError naming `where`."""
        return parse_versioned(text, where, SCHEMA_VERSION, cls)


def open_export(directory: str, read_text: Callable[[str], str | None], flag: str) -> tuple[ModelInfo, Vocabulary]:
    """What an export directory says of itself, without loading the model.

    Args:
      directory: that trainer.task or trainer.export wrote.
      read_text: path -> all of a UTF-8 file; None where there is none. May raise OSError or ValueError.
      flag: that named the directory.

    Raises:
      InputError: it is no export directory, or its parts do not belong together.
    """
    path = posixpath.join(directory, MODEL_INFO)
    info = ModelInfo.loads(text_of(path, read_text, flag, *_EXPORT_DIRECTORY), path)
    path = posixpath.join(directory, VOCABULARY)
    vocabulary = Vocabulary.loads(text_of(path, read_text, flag, *_EXPORT_DIRECTORY), path)
    if vocabulary.digest != info.vocabulary_digest:
        raise InputError(
            f"{flag}: {path} is not the vocabulary of this model: its digest is {vocabulary.digest[:12]}…, "
            f"{MODEL_INFO} says {info.vocabulary_digest[:12]}…; export the model again"
        )
    return info, vocabulary
