"""Keras' recurrent cells for one word at a time, with the product of their input given.

That product does not depend on the state. So it can be made before the loop over the words, for all of them at once,
or once for each word that hypotheses share; Keras' own cells make it anew in each step, for each row. The weights are
the Keras layer's. N rows, D numbers in an input, U units, G gates: 4 of an LSTM (Hochreiter & Schmidhuber 1997, with
the forget gate of Gers et al. 2000), 3 of a GRU (Cho et al. 2014, https://arxiv.org/abs/1406.1078; the reset gate is
applied after the product, as in cuDNN).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def input_kernels(cell: Any, dtype, size: int):
    """The input's kernel: of its first `size` numbers `[size, G * U]`, and of those behind them, or None."""
    kernel = tf.cast(cell.kernel.value, dtype)
    if size == kernel.shape[0]:
        return kernel, None
    return tf.split(kernel, [size, kernel.shape[0] - size])  # and no slices: their gradients are each of full size


def biases(cell: Any, dtype):
    """What is added to the products of the input and of the state, `[G * U]` each; an LSTM has one bias for both."""
    bias = tf.cast(cell.bias.value, dtype)
    return (bias[0], bias[1]) if isinstance(cell, keras.layers.GRUCell) else (bias, tf.zeros_like(bias))


def advance(cell: Any, product, recurrent, state: tuple[Any, ...]):
    """The state `[N, U]`s of a cell after one input more.

    Args:
      cell: of a built keras.layers.LSTM or GRU with its default activations.
      product, recurrent: `[N, G * U]`, of the whole input and of the state, with their `biases`.
      state: (h, c) of an LSTM, (h,) of a GRU.

    Returns:
      The new state; its first tensor is the output.
    """
    is_gru = isinstance(cell, keras.layers.GRUCell)
    return _gru(product, recurrent, *state) if is_gru else _lstm(product + recurrent, *state)


def weights_with(layer: Any, recurrent_kernel):
    """(trainable, other) weights of a Keras layer for its `stateless_call`, with another recurrent kernel."""
    own = layer.cell.recurrent_kernel
    trainable = [recurrent_kernel if variable is own else variable.value for variable in layer.trainable_variables]
    return trainable, [variable.value for variable in layer.non_trainable_variables]


def _lstm(gates, _, carry):
    """gates `[N, 4 * U]`: input, forget, candidate, output."""
    enter, keep, candidate, leave = tf.split(gates, 4, axis=-1)
    carry = tf.sigmoid(keep) * carry + tf.sigmoid(enter) * tf.tanh(candidate)
    return tf.sigmoid(leave) * tf.tanh(carry), carry


def _gru(product, recurrent, hidden):
    """product and recurrent `[N, 3 * U]`: update, reset, candidate."""
    of_input, of_state = (tf.split(part, 3, axis=-1) for part in (product, recurrent))
    keep = tf.sigmoid(of_input[0] + of_state[0])
    reset = tf.sigmoid(of_input[1] + of_state[1])
    candidate = tf.tanh(of_input[2] + reset * of_state[2])
    return (keep * hidden + (1 - keep) * candidate,)
