"""A decoder that begins with the weights of an earlier model (`--init_from`), word by word."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import FeatureSpec
from tfrecords_schema.manifests.model_info import open_export
from tfrecords_schema.storage import files
from tfrecords_schema.vocabulary import PAD, Vocabulary
from trainer.config import DecoderConfig
from trainer.model.decoder import Decoder
from trainer.model.exported import load_export

_FLAG = "--init_from"
# What the weights' shapes and meaning follow from; the other settings may differ.
_SAME = ("cell", "layers", "units", "embedding_dim", "image_input", "attention", "tie_embeddings", "feature_scaling")

_OF_ATTENTION = {"none": (), "bahdanau": ("attention_units",), "luong": ("attention_units", "attention_heads")}


class Earlier:
    """The weights of an export, for a decoder of another vocabulary.

    A word's numbers (its embedding, its column of the output layer, its bias) go with it. Words that the export lacks
    begin as the mean of all its words, which gives none of them more probability than a word has on average (Hewitt
    2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html); those that are gone go. The scaling of features stays
    the export's: the other weights are used to it.
    """

    def __init__(self, path: str, features: FeatureSpec, vocabulary: Vocabulary, config: DecoderConfig, data: str):
        """Reads it. Raises InputError where it is no export, or does not fit the settings, or the data at `data`."""
        info, known = open_export(path, files.read_text, _FLAG)
        if "ensemble" in info.decoder:
            raise InputError(f"{_FLAG}: expected an export of trainer.task, found an ensemble in {path}")
        # In which type they are stored matters to nobody who learns on: an export of im2txt says float32.
        features = dataclasses.replace(features, dtype=info.features.dtype)
        try:
            info.features.require_same(features, path, data)
        except InputError as error:
            raise InputError(f"{_FLAG}: features: {error}; make --data with the network of the export") from None
        self._decoder = load_export(path, info)
        for name in (*_SAME, *_OF_ATTENTION[config.attention]):
            expected, found = getattr(self._decoder.config, name), getattr(config, name)
            if found != expected:
                raise InputError(f"--{name}: expected {expected}, as the model in {_FLAG} {path} has, found {found}")
        self._path, self._earlier_words = path, len(known.ids)
        self._places = np.array([known.ids.get(word, -1) for word in vocabulary.words])  # [V]; -1: new

    def begin(self, decoder: Decoder) -> str:
        """Sets the weights of a decoder of the new vocabulary; returns what is to be told of it."""
        by_word = {id(decoder.word_embedding.embeddings): 0}
        if decoder.config.tie_embeddings:
            by_word[id(decoder.bias)] = 0
        else:
            by_word |= {id(decoder.logits.kernel): 1, id(decoder.logits.bias): 0}
        for weight, earlier in zip(decoder.weights, self._decoder.weights, strict=True):
            value = earlier.numpy()
            axis = by_word.get(id(weight))
            weight.assign(value if axis is None else self._of_words(value, axis))
        known = int((self._places >= 0).sum())
        return (
            f"begins with the weights of {self._path}: {known:,} words are known, {len(self._places) - known:,} new, "
            f"{self._earlier_words - known:,} gone"
        )

    def _of_words(self, value: np.ndarray, axis: int) -> np.ndarray:
        """Numbers of the earlier words -> those of the new ones, both along `axis`."""
        mean = np.delete(value, PAD, axis).mean(axis, keepdims=True)  # PAD is no word, and may be far below all
        with_mean = np.concatenate([value, mean], axis)  # -1 is the last
        return np.take(with_mean, self._places, axis)
