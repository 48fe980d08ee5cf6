"""The commands at sizes for tests: a network that loads in no time, and a decoder that learns in seconds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import commands
from tfrecords_schema.networks import registry


def _tiny_model(weights):
    """Mean colours of an 4 x 4 grid, by one fixed layer: a network whose result can be computed by hand."""
    import keras

    inputs = keras.Input([32, 32, 3])
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.AveragePooling2D(8, name="pool")(inputs)))


TINY = registry.Network(
    build=_tiny_model,
    preprocess=lambda pixels: pixels / 255,
    size=32,
    pooled=registry.Endpoint("means", (48,)),
    grid=registry.Endpoint("pool", (16, 3), layer="pool"),
    keras_file=("none.h5", "none"),
)


def write_features(output, extractor, coco_dir, **flags) -> dict[str, Any]:
    """Runs the real feature pipeline, with settings for tiny data; `flags` are further flags of it."""
    given = {
        "coco_dir": coco_dir and str(coco_dir),
        "weights": "random",
        "min_word_count": 1,
        "max_caption_length": 16,
        **flags,
    }
    return commands.features(output=str(output), extractor=extractor, **given)


# Training flags for a decoder small enough to learn something in seconds.
SMALL = {
    "units": 16,
    "embedding_dim": 16,
    "batch_size": 8,
    "learning_rate": 0.02,
    "embedding_dropout": 0.0,
    "output_dropout": 0.0,
    "patience": 99,
}

# Training that has something to be stopped in: two phases, a checkpoint after every step, dropout that must go on.
STOPPABLE = {
    **SMALL,
    "embedding_dropout": 0.3,
    "epochs": 4,
    "checkpoint_steps": 1,
    "self_critical": 2,
    "monitor": "bleu_4",
}


def train(data, job_dir, **flags) -> dict[str, Any]:
    """Runs the real trainer at small sizes; the figures of the best epoch."""
    return commands.task(data=str(data), job_dir=str(job_dir), **{**SMALL, **flags})


def train_without_java(data, job_dir, **flags) -> dict[str, Any]:
    """As `train`, but nothing is scored by Java's programs, which take longer than the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        return train(data, job_dir, **flags)
