"""`model_info.json`: what an exported decoder is and which features it expects."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import posixpath
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import (
    VOCABULARY,
    CaptionLength,
    FeatureSpec,
    check_carried,
    parse_versioned,
    text_of,
)
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.text import one_line
from tfrecords_schema.vocabulary import Vocabulary

SCHEMA_VERSION = 5  # the SavedModel has the signatures `caption`, `sample` and `score`
MODEL_INFO = "model_info.json"
# TensorFlow's name for a variable by its place in the saved object (its guide to checkpoints has it).
_WEIGHT = "weights/{}/.ATTRIBUTES/VARIABLE_VALUE"
_SEARCH = {"beam_width": (1, 1000), "length_penalty": (0, 10)}  # the bounds that the flags have
LEAST_LENGTH = 3  # ids of a caption, START and END counted: a word at least, for whoever does not say otherwise
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
      search: beam_width and length_penalty that they were captioned with, for whoever does not say otherwise. Models
        of others also have min_length and forbid_unk, for the same, and `ends_each`, which the signature `caption` was
        made with; see `beam_search`.
      extractor: the name of the weights for these features, below the export, a file or a SavedModel; "" for none.
    """

    decoder: dict[str, Any]
    features: FeatureSpec
    max_caption_length: CaptionLength
    vocabulary_digest: str
    digest: str
    metrics: dict[str, Any]
    search: dict[str, float | bool]
    extractor: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self):
        check_carried(self.extractor, self.features)
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


def model_digest(weights: Iterable[np.ndarray], decoder: dict[str, Any], vocabulary_digest: str) -> str:
    """SHA-256 of configuration, vocabulary and weights, these in the decoder's order."""
    digest = hashlib.sha256(json.dumps([decoder, vocabulary_digest], sort_keys=True).encode())
    for weight in weights:
        digest.update(weight.tobytes())
    return digest.hexdigest()


def read_weights(local: str, info: ModelInfo, where: str) -> list[np.ndarray]:
    """The weights in a local export directory, in the decoder's order; no device is used.

    Raises:
      InputError: they cannot be read, or are not those whose digest `info` has; names `where` and the file.
    """
    tf = import_tensorflow()
    file = posixpath.join(where, "variables", "variables.index")
    try:
        saved = tf.train.load_checkpoint(os.path.join(local, "variables", "variables"))
        # All of them, since reading compares with checksums, and what loads the model reads all.
        tensors = {name: saved.get_tensor(name) for name in saved.get_variable_to_shape_map()}
    except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        told = one_line(error)
        raise InputError(
            f"{file}: expected the weights of a model, found something unreadable: {told}; export it again"
        ) from None
    names = map(_WEIGHT.format, range(len(tensors)))
    weights = [tensors[name] for name in itertools.takewhile(tensors.__contains__, names)]
    if model_digest(weights, info.decoder, info.vocabulary_digest) != info.digest:
        raise InputError(f"{file}: expected the weights that {MODEL_INFO} names, found others; export the model again")
    return weights
