"""`python -m tests.support.tuning_step OUT.npz REPLICAS BATCH_NORM`: two real updates of CNN and decoder together.

A process of its own, since devices are fixed when TensorFlow begins; over one device `steps` can be called anywhere.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import numpy as np
import tensorflow as tf

from tests.support import decoders, tunable
from tfrecords_schema.manifests.features_info import RESIZE, FeatureSpec
from tfrecords_schema.networks import registry
from tfrecords_schema.vocabulary import PAD, START
from trainer.config import TrainConfig
from trainer.data.image_batches import ImageBatch
from trainer.model.cnn import Cnn
from trainer.training import fine_tuning
from trainer.training.schedules import SideBySide, make_optimizer
from trainer.training.update import make_update

SPEC = FeatureSpec(tunable.NAME, "map, average-pooled", "given", "00", (10,), "float32", "float32", RESIZE)


def batch(images: int = 6) -> ImageBatch:
    """Images with one to three captions each."""
    generator = np.random.default_rng(5)
    pixels = generator.integers(0, 256, (images, 32, 32, 3), np.uint8)
    words = decoders.batch(images * 3, shape=(10,)).ids.reshape(images, 3, -1)
    for place in range(images):
        words[place, 1 + place % 3 :] = PAD
    words[:, :, 0] = START
    return ImageBatch((pixels,), words, np.arange(images, dtype=np.int32))


def learner(first: str = "joined", batch_norm: bool = False) -> fine_tuning.Learner:
    """A tiny CNN and decoder with seeded weights."""
    with tempfile.TemporaryDirectory() as directory:
        path = tunable.save(pathlib.Path(directory) / "given.weights.h5")
        cnn = Cnn(SPEC, path, first, batch_norm=batch_norm)
    return fine_tuning.Learner(cnn, decoders.make(feature_shape=(10,), feature_scaling="none"))


def steps(batch_norm: bool = False, rates: tuple[float, float] = (0.1, 0.01), first: str = "joined") -> dict:
    """Loss and norm of the last of two steps, and the weights after it, over all devices of this process."""
    registry.NETWORKS[tunable.NAME] = tunable.NETWORK
    strategy, config = tf.distribute.MirroredStrategy(), TrainConfig()
    with strategy.scope():
        made = learner(first, batch_norm)
        optimizer = SideBySide(
            *(make_optimizer("sgd", rate, momentum=0.0) for rate in rates), len(made.decoder.trainable_variables)
        )
        optimizer.build(made.trainable_variables)
    batches = tf.data.Dataset.from_tensors(batch()).unbatch().batch(6)

    def objective(learner, batch, seed, progress):
        return fine_tuning.objective(learner, batch, seed, progress, config)

    update = make_update(made, optimizer, objective, strategy, batches, seed=0, clip_norm=5.0)
    (given,) = strategy.experimental_distribute_dataset(batches)
    for step in range(2):
        reported, tokens, norm = update(given, tf.constant(step, tf.int64), tf.constant(0.0))
    total, divisor = reported["loss"]
    weights = [*made.decoder.weights, *made.cnn.weights]
    return {
        "loss": float(total) / float(divisor),
        "norm": float(norm),
        "tokens": float(tokens),
        "replicas": strategy.num_replicas_in_sync,
        **{f"weight_{place}": weight.value.numpy() for place, weight in enumerate(weights)},
    }


if __name__ == "__main__":
    out, replicas, batch_norm = sys.argv[1:]
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * int(replicas))
    np.savez(out, **steps(batch_norm == "True"))
