"""Best weights -> a SavedModel that needs no Python of ours, with vocabulary.txt and model_info.json."""

from __future__ import annotations

import hashlib
import json
import os

import tensorflow as tf

from tfrecords_schema.dataset_info import VOCABULARY
from tfrecords_schema.model_info import MODEL_INFO, ModelInfo
from tfrecords_schema.vocabulary import END, PAD, START, UNK
from trainer.beam_search import beam_search
from trainer.config import DecoderConfig
from trainer.dataset import FeatureDirectory
from trainer.decoder import ShowAndTell
from trainer.train import BEST_WEIGHTS, TeacherForcing


class CaptionModule(tf.Module):
    """A decoder with beam search as one TensorFlow function, ready to be saved."""

    def __init__(self, decoder: ShowAndTell):
        super().__init__(name="captioner")
        self.decoder = decoder
        features = tf.TensorSpec([None, *decoder.config.feature_shape], tf.float32, name="features")
        scalars = {"beam_width": tf.int32, "max_length": tf.int32, "length_penalty": tf.float32}
        self.caption = tf.function(
            self._caption,
            input_signature=[features, *(tf.TensorSpec([], dtype, name=name) for name, dtype in scalars.items())],
        )

    def _caption(self, features, beam_width, max_length, length_penalty):
        """features `[B, ...]` -> ids `[B, K, T]`, log_prob `[B, K]`, length `[B, K]`; see beam_search.Hypotheses.

        `max_length` counts START and END, as in training, so that T is max_length - 1. UNK is never said.
        """
        found = beam_search(
            self.decoder.step,
            self.decoder.initial_state(features),
            tf.shape(features)[0],
            beam_width,
            max_length - 1,
            length_penalty,
            start=START,
            end=END,
            pad=PAD,
            forbidden=(UNK,),
        )
        return found._asdict()


def load_decoder(job_dir: str, config: DecoderConfig) -> ShowAndTell:
    """The decoder of a run with its best weights, outside any strategy."""
    model = TeacherForcing(ShowAndTell(config), clip_norm=1.0)
    model.build()
    model.load_weights(os.path.join(job_dir, BEST_WEIGHTS))
    return model.decoder


def export(decoder: ShowAndTell, directory: FeatureDirectory, metrics: dict[str, float], export_dir: str) -> ModelInfo:
    """Writes `export_dir`, in one step: it is there whole or not at all.

    Its `caption` signature takes features `[B, ...]` float32, beam_width and max_length int32, length_penalty float32.
    """
    module = CaptionModule(decoder)
    info = ModelInfo(
        decoder={**vars(decoder.config), "feature_shape": list(decoder.config.feature_shape)},
        features=directory.info.features,
        max_caption_length=directory.info.max_caption_length,
        vocabulary_digest=directory.vocabulary.digest,
        digest=_digest(decoder, directory.vocabulary.digest),
        metrics=metrics,
    )
    making = _making(export_dir)
    if tf.io.gfile.exists(making):
        tf.io.gfile.rmtree(making)
    tf.saved_model.save(module, making, signatures={"caption": module.caption})
    for name, text in ((VOCABULARY, directory.vocabulary.dumps()), (MODEL_INFO, info.dumps())):
        with tf.io.gfile.GFile(os.path.join(making, name), "w") as file:
            file.write(text)
    if tf.io.gfile.exists(export_dir):
        tf.io.gfile.rmtree(export_dir)
    tf.io.gfile.rename(making, export_dir)
    return info


def delete_earlier_export(export_dir: str) -> None:
    """Deletes an export, and what a killed one left."""
    for path in (export_dir, _making(export_dir)):
        if tf.io.gfile.exists(path):
            tf.io.gfile.rmtree(path)


def _making(export_dir: str) -> str:
    return export_dir.rstrip("/") + ".tmp"


def _digest(decoder: ShowAndTell, vocabulary_digest: str) -> str:
    """SHA-256 of configuration, vocabulary and weights."""
    digest = hashlib.sha256(json.dumps([vars(decoder.config), vocabulary_digest], sort_keys=True).encode())
    for weight in decoder.weights:
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()
