"""`python -m tests.support.one_step REPLICAS INITIAL.npz OUT.npz`: one real update over that many devices.

A process of its own, since devices are fixed when TensorFlow starts, and its collectives keep their group's size.
"""

import functools
import json
import sys

import keras
import numpy as np
import tensorflow as tf

from trainer.config import DecoderConfig, TrainConfig
from trainer.data.batches import Batch
from trainer.model.decoder import Decoder
from trainer.training import objectives
from trainer.training.update import make_measure, make_update


def main(replicas: int, initial_path: str, out_path: str) -> None:
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * replicas)
    initial = np.load(initial_path)
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        decoder = Decoder(DecoderConfig(**json.loads(str(initial["config"]))))
        decoder.build()
        decoder.set_weights([initial[f"weight_{i}"] for i in range(len(decoder.weights))])
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build(decoder.trainable_variables)
    batch = Batch(initial["features"], initial["ids"], initial["image"])
    batches = tf.data.Dataset.from_tensors(batch).unbatch().batch(len(batch.ids))
    objective = functools.partial(objectives.cross_entropy, config=TrainConfig())
    update = make_update(decoder, optimizer, objective, strategy, batches, seed=0, clip_norm=0.05)
    measure = make_measure(decoder, objective, strategy, batches)
    for distributed in strategy.experimental_distribute_dataset(batches):
        measured, _ = measure(distributed)["loss"]
        reported, tokens, norm = update(distributed, tf.constant(0, tf.int64), tf.constant(0.0))
    weights = {f"weight_{i}": weight for i, weight in enumerate(decoder.get_weights())}
    total, divisor = reported["loss"]
    figures = {"loss": float(total) / float(divisor), "measured": float(measured) / float(divisor), "norm": float(norm)}
    np.savez(out_path, tokens=float(tokens), replicas=strategy.num_replicas_in_sync, **figures, **weights)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
