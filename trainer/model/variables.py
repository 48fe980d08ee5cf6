"""A model's variables as TensorFlow knows them."""

from __future__ import annotations

import tensorflow as tf


def tensors(variables) -> list[tf.Variable]:
    """TensorFlow's variables inside Keras' ones: in this order, they are what a checkpoint holds."""
    return [variable.value for variable in variables]
