"""One step of training over all replicas, and one of measuring."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from trainer.data.batches import Batch
from trainer.model.decoder import Decoder
from trainer.model.dropout import seed_for
from trainer.model.variables import tensors
from trainer.training.objectives import Loss

Objective = Callable[[Decoder, Batch, object, object], Loss]


def make_update(
    decoder: Decoder,
    optimizer: keras.optimizers.Optimizer,
    objective: Objective,
    strategy: tf.distribute.Strategy,
    like: tf.data.Dataset,
    *,
    seed: int,
    clip_norm: float,
    jit_compile: bool = False,
    skip_overflow: bool = False,
) -> Callable:
    """(batch of all replicas, step, progress 0..1) -> ({name: (sum, divisor)}, tokens, norm of the gradient).

    It is traced once, for batches of all the sizes that those of `like` may have, step int64 and progress float32. The
    gradient is that of the whole batch, however it was split: replicas' sums are added, and divided by the number of
    real tokens in all of them. Sums and not means go backwards: those of single words would be too small for
    float16, which is why no loss scale is needed. With `skip_overflow`, for float16, a step whose norm is no finite
    number is left out: neither weights nor anything of the optimizer's change, its count of updates included.
    """
    variables = decoder.trainable_variables
    decoder.runs_whole_layers |= jit_compile  # XLA compiles no loop over ever fewer rows

    @tf.function(jit_compile=jit_compile)
    def differentiate(batch, at, progress):
        with tf.GradientTape() as tape:
            loss = objective(decoder, batch, at, progress)
        gradients = tape.gradient(loss.total, tensors(variables), unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def on_replica(batch, step, progress):
        replicas = tf.distribute.get_replica_context()
        loss, gradients = differentiate(batch, seed_for(seed, step, replicas.replica_id_in_sync_group), progress)
        loss, gradients = replicas.all_reduce(tf.distribute.ReduceOp.SUM, [loss, gradients])
        divisor = tf.maximum(loss.tokens, 1.0)
        gradients, norm = tf.clip_by_global_norm([gradient / divisor for gradient in gradients], clip_norm)
        return loss.reported, loss.tokens, norm, gradients

    def apply(gradients):
        # Summed above and not left to the optimizer, which would clip each replica's share on its own. Its own sum over
        # replicas then adds the same gradient once a replica.
        count = tf.distribute.get_replica_context().num_replicas_in_sync
        optimizer.apply_gradients([(g / count, v) for g, v in zip(gradients, variables, strict=True)])

    @tf.function(input_signature=[_spec(like, strategy), tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.float32)])
    def update(batch, step, progress):
        reported, tokens, norm, gradients = strategy.run(on_replica, (batch, step, progress))
        reported, tokens, norm = _once((reported, tokens, norm), strategy)
        # Decided for all replicas together: inside of one, an optimizer cannot merge them under a condition.
        if not skip_overflow or tf.math.is_finite(norm):
            strategy.run(apply, (gradients,))
        return reported, tokens, norm

    return update


def make_measure(
    decoder: Decoder, objective: Objective, strategy: tf.distribute.Strategy, like: tf.data.Dataset
) -> Callable:
    """(batch of all replicas, shaped as those of `like`) -> {name: (sum, divisor)}; nothing is dropped or learned."""

    def on_replica(batch):
        replicas = tf.distribute.get_replica_context()
        return replicas.all_reduce(tf.distribute.ReduceOp.SUM, objective(decoder, batch, None, 0.0).reported)

    @tf.function(input_signature=[_spec(like, strategy)])
    def measure(batch):
        return _once(strategy.run(on_replica, (batch,)), strategy)

    return measure


def _spec(like: tf.data.Dataset, strategy: tf.distribute.Strategy):
    """What tf.function is to expect of distributed batches. Without it, each other length or size is traced anew."""
    return strategy.experimental_distribute_dataset(like).element_spec


def _once(results, strategy: tf.distribute.Strategy):
    """What is equal on all replicas, of one of them."""
    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], results)
