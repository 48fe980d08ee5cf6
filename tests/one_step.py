"""`python -m tests.one_step REPLICAS INITIAL.npz OUT.npz`: one step of real `fit` over that many devices.

A process of its own, since devices are fixed when TensorFlow starts, and its collectives keep their group's size.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from trainer import train
from trainer.config import DecoderConfig
from trainer.decoder import ShowAndTell


def main(replicas: int, initial_path: str, out_path: str) -> None:
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * replicas)
    initial = np.load(initial_path)
    with tf.distribute.MirroredStrategy().scope():
        model = train.TeacherForcing(ShowAndTell(DecoderConfig(**json.loads(str(initial["config"])))), clip_norm=0.05)
        model.build()
        model.decoder.set_weights([initial[f"weight_{i}"] for i in range(len(model.decoder.weights))])
        model.compile(optimizer=keras.optimizers.SGD(1.0))
    features, ids, targets = initial["features"], initial["ids"], initial["targets"]
    batches = tf.data.Dataset.from_tensors(((features, ids), targets)).unbatch().batch(len(features))
    history = model.fit(batches, epochs=1, verbose=0, shuffle=False)
    weights = {f"weight_{i}": weight for i, weight in enumerate(model.decoder.get_weights())}
    np.savez(
        out_path, loss=history.history["loss"][0], replicas=model.distribute_strategy.num_replicas_in_sync, **weights
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
