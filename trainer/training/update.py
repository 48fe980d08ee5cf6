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
    *,
    seed: int,
    clip_norm: float,
    jit_compile: bool = False,
    skip_overflow: bool = False,
) -> Callable:
    """(batch of all replicas, step, progress 0..1) -> ({name: (sum, divisor)}, tokens, norm of the gradient).

    The gradient is that of the whole batch, however it was split: replicas' sums are added, and divided by the number
    of real tokens in all of them. With `skip_overflow`, for float16, a gradient that is no number changes nothing.
    Sums and not means go backwards: those of single words would be too small for float16, which is why no loss scale
    is needed.
    """
    variables = decoder.trainable_variables

    @tf.function(jit_compile=jit_compile, reduce_retracing=True)
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
        if skip_overflow:
            gradients = [tf.where(tf.math.is_finite(norm), gradient, tf.zeros_like(gradient)) for gradient in gradients]
            norm = tf.where(tf.math.is_finite(norm), norm, 0.0)
        # Summed here and not left to the optimizer, which would clip each replica's share on its own. Its own sum over
        # replicas then adds the same gradient once a replica.
        count = replicas.num_replicas_in_sync
        optimizer.apply_gradients([(g / count, v) for g, v in zip(gradients, variables, strict=True)])
        return loss.reported, loss.tokens, norm

    return _over_replicas(on_replica, strategy)


def make_measure(decoder: Decoder, objective: Objective, strategy: tf.distribute.Strategy) -> Callable:
    """(batch of all replicas) -> {name: (sum, divisor)}; nothing is dropped, nothing learned."""

    def on_replica(batch):
        replicas = tf.distribute.get_replica_context()
        return replicas.all_reduce(tf.distribute.ReduceOp.SUM, objective(decoder, batch, None, 0.0).reported)

    return _over_replicas(on_replica, strategy)


def _over_replicas(on_replica: Callable, strategy: tf.distribute.Strategy) -> Callable:
    """Runs on each replica; the results are equal on all, and given once."""

    @tf.function(reduce_retracing=True)
    def run(*inputs):
        results = strategy.run(on_replica, inputs)
        return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], results)

    return run
