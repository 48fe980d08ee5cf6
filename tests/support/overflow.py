"""`python -m tests.support.overflow REPLICAS`: which variables change in steps of which the second overflows, as JSON.

A process of its own, since devices are fixed when TensorFlow starts.
"""

import json
import sys

import numpy as np
import tensorflow as tf

from tests.support import decoders
from trainer.model.packing import pack
from trainer.training.objectives import Loss
from trainer.training.schedules import LearningRate, make_optimizer
from trainer.training.update import make_update


def objective(decoder, batch, seed, progress):
    """A loss that is infinite for a progress of 1."""
    scale = tf.where(progress < 1.0, 1.0, float("inf"))
    total = scale * tf.reduce_sum(decoder((batch.features, pack(batch.ids[:, 0])), seed=None)[0])
    return Loss(total, tf.constant(1.0), {"loss": (total, tf.constant(1.0))})


def changes(
    strategy: tf.distribute.Strategy, kind: str = "adamw", skip: bool = True, jit_compile: bool = False
) -> dict:
    """For three steps, of which the second overflows: the variables of decoder and optimizer that changed on a replica.

    Also the three norms, and whether all that is there in the end is finite.
    """
    with strategy.scope():
        decoder = decoders.make()
        decoder.runs_whole_layers |= jit_compile
        optimizer = make_optimizer(kind, LearningRate("cosine", 0.01, 10), weight_decay=0.1)
        optimizer.build(decoder.trainable_variables)
    variables = [*decoder.trainable_variables, *optimizer.variables]

    def values():
        return [[v.numpy() for v in strategy.experimental_local_results(variable.value)] for variable in variables]

    batches = tf.data.Dataset.from_tensors(decoders.batch(2)).unbatch().batch(2)
    (batch,) = strategy.experimental_distribute_dataset(batches)
    how = {"seed": 0, "clip_norm": 1.0, "jit_compile": jit_compile, "skip_overflow": skip}
    update = make_update(decoder, optimizer, objective, strategy, batches, **how)
    changed, norms = [], []
    for step, progress in enumerate([0.0, 1.0, 0.0]):
        before = values()
        norms.append(float(update(batch, tf.constant(step, tf.int64), tf.constant(progress))[2]))
        pairs = zip(variables, before, values(), strict=True)
        changed.append([v.path for v, old, new in pairs if not np.array_equal(old, new)])
    finite = all(np.isfinite(value).all() for copies in values() for value in copies)
    names = [variable.path for variable in variables]
    replicas = strategy.num_replicas_in_sync
    return {"names": names, "changed": changed, "norms": norms, "finite": finite, "replicas": replicas}


if __name__ == "__main__":
    devices = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    print(json.dumps(changes(tf.distribute.MirroredStrategy())))
