"""The learning rate of each step, and the optimizers that follow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfrecords_schema.errors import InputError


class SideBySide:
    """Two optimizers as one: the first `count` variables are the first's, the others the second's."""

    def __init__(self, first: keras.optimizers.Optimizer, second: keras.optimizers.Optimizer, count: int):
        self._first, self._second, self._count = first, second, count

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint holds of both."""
        return [*self._first.variables, *self._second.variables]

    @property
    def iterations(self) -> Any:
        """Updates so far."""
        return self._first.iterations

    def build(self, variables: Sequence[Any]) -> None:
        """Builds both optimizers for their variables, as Keras' own `build` does."""
        self._first.build(list(variables[: self._count]))
        self._second.build(list(variables[self._count :]))

    def apply_gradients(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Applies (gradient, variable) pairs, all of them in the order of `build`, as Keras' own method does."""
        self._first.apply_gradients(pairs[: self._count])
        self._second.apply_gradients(pairs[self._count :])


@keras.saving.register_keras_serializable(package="trainer")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises over `warmup_steps`, then follows its kind; a pure function of the step.

    Step s of the warm-up gets (s + 1) / warmup_steps of the rate: the first step gets some, the last all of it. The
    steps after it, counted from 0 as s' up to S' = steps - warmup_steps, get

    - constant: the rate;
    - cosine: rate * (1 + cos(pi * s' / S')) / 2, and nothing from S' on (Loshchilov and Hutter 2017,
      https://arxiv.org/abs/1608.03983, without restarts);
    - exponential: rate * decay_factor ** floor(s' / decay_steps), as Show and Tell and im2txt (0.5 every 8 epochs).
    """

    def __init__(
        self,
        kind: str,
        rate: float,
        steps: int,
        warmup_steps: int = 0,
        decay_steps: int = 1,
        decay_factor: float = 0.5,
    ):
        """Raises InputError where there is no such kind, or no step left after the warm-up."""
        if kind not in ("constant", "cosine", "exponential"):
            raise InputError(f"--schedule: expected constant, cosine or exponential, found {kind}")
        if not 0 <= warmup_steps < steps:
            raise InputError(
                f"--warmup_steps: expected 0 to {steps - 1} for a training of {steps} steps, found {warmup_steps}"
            )
        if decay_steps < 1:
            raise InputError(f"--decay_epochs: expected at least one step, found {decay_steps}")
        self.kind = kind
        self.rate = rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.decay_factor = decay_factor

    def __call__(self, step) -> tf.Tensor:
        """step, an integer scalar -> rate, a float32 scalar."""
        step = tf.cast(tf.convert_to_tensor(step), tf.int64)  # float32 would count to 16,777,216 only
        after = tf.maximum(step - self.warmup_steps, 0)
        share = tf.minimum(tf.cast(step + 1, tf.float32) / max(1, self.warmup_steps), 1.0)
        if self.kind == "cosine":
            done = tf.minimum(tf.cast(after, tf.float32) / (self.steps - self.warmup_steps), 1.0)
            share *= (1 + tf.cos(math.pi * done)) / 2
        elif self.kind == "exponential":
            share *= self.decay_factor ** tf.cast(after // self.decay_steps, tf.float32)
        return self.rate * share

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(vars(self))


def make_optimizer(
    kind: str,
    schedule: LearningRate | float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = True,
) -> keras.optimizers.Optimizer:
    """adam, adamw, rmsprop, or sgd.

    Momentum is sgd's alone; Nesterov's is that of Sutskever et al. 2013 (https://proceedings.mlr.press/v28/sutskever13.html).
    Weight decay is adamw's alone (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), and leaves biases out:
    they do not make a function less smooth.

    Raises:
      InputError: there is no such kind.
    """
    if kind == "adam":
        return keras.optimizers.Adam(schedule)
    if kind == "rmsprop":
        return keras.optimizers.RMSprop(schedule)
    if kind == "sgd":
        return keras.optimizers.SGD(schedule, momentum=momentum, nesterov=nesterov)
    if kind != "adamw":
        raise InputError(f"--optimizer: expected adam, adamw, rmsprop or sgd, found {kind}")
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
    # A regular expression; TensorFlow's names end in "/bias:0", and on further replicas in "/bias/replica_1:0".
    # Gamma and beta are batch norm's.
    optimizer.exclude_from_weight_decay(var_names=["(bias|gamma|beta)(:|/|$)"])
    return optimizer
