"""`python -m tests.support.one_step STEP.npz REPLICAS...`: real updates over that many devices, two arguments each.

What is found goes to STEP.npz.REPLICAS.npz. Each is done in a process of its own, since devices are fixed when
TensorFlow begins, and its collectives keep their group's size; over one device `one_step` can be called anywhere.
"""

import functools
import json
import multiprocessing
import sys

import keras
import numpy as np
import tensorflow as tf

from trainer.config import DecoderConfig, TrainConfig
from trainer.data.batches import Batch
from trainer.model.decoder import Decoder
from trainer.training import objectives
from trainer.training.update import make_measure, make_update


def save(path, decoder: Decoder, batch: Batch) -> None:
    """Writes a step to be taken: a decoder, as it is before it, and the batch of all replicas."""
    weights = {f"weight_{i}": weight for i, weight in enumerate(decoder.get_weights())}
    np.savez(path, config=json.dumps(vars(decoder.config)), **batch._asdict(), **weights)


def one_step(path) -> dict[str, np.ndarray]:
    """Loss, tokens and norm of the step that a file holds, over all devices of this process, and the weights after."""
    initial = np.load(path)
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
    return {"tokens": float(tokens), "replicas": strategy.num_replicas_in_sync, **figures, **weights}


def _over(path: str, replicas: str) -> None:
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * int(replicas))
    np.savez(f"{path}.{replicas}.npz", **one_step(path))


def main(*arguments: str) -> None:
    """All side by side, and TensorFlow is imported once: a fork of what has only been imported is like a new one."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_over, args=pair) for pair in zip(arguments[::2], arguments[1::2], strict=True)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))


if __name__ == "__main__":
    main(*sys.argv[1:])
