"""A recurrent layer over packed captions, word by word, with attention or without; see packing.py.

Its gradient is written out, since TensorFlow's own for a loop is slow: word by word it adds up what each matrix has
learned, and what the keys and positions of all images have. Here only what a state learns goes back word by word; all
else is made after the loop, of all words together. M words of N captions of B images, U units, G * U gates, S numbers
that are made of a state, P positions, E numbers in an embedding, A in a key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from trainer.model import bahdanau
from trainer.model.packing import Packed


class Unrolled(NamedTuple):
    """What the loop gives for each of M words.

    Attributes:
      outputs: `[M, U]`, the layer's.
      contexts: `[M, E]`, what attention found before the word, gated; weights, float32 `[M, P]`. Without it both ().
    """

    outputs: Any
    contexts: Any = ()
    weights: Any = ()


class Seen(NamedTuple):
    """What a layer attends to, and with which weights.

    Attributes:
      keys, positions: `[B, P, A]`, `[B, P, E]`.
      score: `[A]`; see bahdanau.py.
      kernel: `[E, G * U]`, what a context is multiplied by before it enters the gates.
    """

    keys: Any
    positions: Any
    score: Any
    kernel: Any


def unroll(advance: Callable, packed: Packed, first: tuple[Any, ...], product, bias, kernel, seen: Seen | None = None):
    """Runs a layer over packed words.

    Args:
      advance: (input product `[n, G * U]`, state product `[n, G * U]`, state) -> new state; its first tensor is the
        output.
      first: tensors `[N, U]`, the state before the first word, captions in the order of `packed`.
      product: `[M, G * U]`, the words' part of the input product, biases included.
      bias: `[S]`, added to the product of a state with `kernel`.
      kernel: `[U, S]`; its first G * U columns are the gates', the next A make a query, the last a gate of the context.

    Returns:
      Unrolled.
    """

    @tf.custom_gradient
    def run(product, bias, kernel, *tensors):
        state, saw = tensors[: len(first)], Seen(*tensors[len(first) :]) if seen else None
        rows = _of_captions(packed, saw) if saw else ()
        found = _forward(advance, packed, state, product, bias, kernel, saw, rows)
        given = [found["outputs"], *((found["contexts"], found["weights"]) if saw else ())]
        return given, lambda *upstream: _backward(advance, packed, found, kernel, saw, rows, upstream)

    return Unrolled(*run(product, bias, kernel, *first, *(seen or ())))


def _forward(advance, packed: Packed, first, product, bias, kernel, seen: Seen | None, rows) -> dict[str, Any]:
    """The forward pass over all words: {name: packed `[M, .]`} of what is wanted, or needed on the way back."""
    gates, units, dtype = product.shape[1], kernel.shape[0], product.dtype
    keep = {f"state {i}": (units, dtype) for i in range(len(first))}
    keep |= {"product": (gates, dtype), "made": (kernel.shape[1], dtype), "outputs": (units, dtype)}
    if seen:
        scores, positions = rows
        keep |= {"contexts": (seen.kernel.shape[0], dtype), "weights": (seen.keys.shape[1], tf.float32)}
    products = _array(packed, gates, dtype).split(product, packed.counts)

    def one_word(time, state, arrays):
        n = packed.counts[time]
        state = tuple(tensor[:n] for tensor in state)
        made, product, context = tf.matmul(state[0], kernel) + bias, products.read(time), ()
        if seen:
            asked = made[:, gates:]
            context = bahdanau.look(asked, scores(asked[:, :-1]), positions[:n])
            product += tf.matmul(context[0], seen.kernel)
        after = advance(product, made[:, :gates], state)
        values = (*state, product, made, after[0], *context)
        return time + 1, after, tuple(array.write(time, x) for array, x in zip(arrays, values, strict=True))

    arrays = tuple(_array(packed, size, kind) for size, kind in keep.values())
    shapes = (tf.TensorShape([]), (tf.TensorShape([None, units]),) * len(first), (None,) * len(arrays))
    start = (0, first, arrays)
    *_, arrays = tf.while_loop(lambda t, *_: t < tf.size(packed.counts), one_word, start, shape_invariants=shapes)
    return {name: array.concat() for name, array in zip(keep, arrays, strict=True)}


def _backward(advance, packed: Packed, found: dict[str, Any], kernel, seen: Seen | None, rows, upstream) -> list[Any]:
    """Gradients of what came out -> of product, bias, kernel, the first state's tensors, and what is in Seen."""
    gates, units, dtype = found["product"].shape[1], kernel.shape[0], found["product"].dtype
    needed = {name: x for name, x in found.items() if name != "outputs"}
    saved = {name: _array(packed, x.shape[1], x.dtype).split(x, packed.counts) for name, x in needed.items()}
    upstream = [_array(packed, x.shape[1], x.dtype).split(x, packed.counts) for x in upstream]
    layers = sum(name.startswith("state") for name in found)
    keep = {"product": (gates, dtype), "made": (kernel.shape[1], dtype)}
    if seen:
        scores, positions = rows
        keep |= {"context": (seen.kernel.shape[0], dtype), "scores": (seen.keys.shape[1], tf.float32)}

    def one_word(time, learned, arrays):
        n = packed.counts[time]
        learned = [tf.pad(x, [[0, n - tf.shape(x)[0]], [0, 0]]) for x in learned]  # captions that end here
        at = {name: array.read(time) for name, array in saved.items()}
        before, of_gates = [at[f"state {i}"] for i in range(layers)], at["made"][:, :gates]
        with tf.GradientTape() as tape:
            inputs = [at["product"], of_gates, before]
            tape.watch(inputs)
            after = advance(*inputs)
        learned[0] += upstream[0].read(time)
        of_product, of_made, of_state = tape.gradient(after, inputs, learned, unconnected_gradients="zero")
        values = [of_product, of_made]
        if seen:
            of_context = tf.matmul(of_product, seen.kernel, transpose_b=True) + upstream[1].read(time)
            ways = (at["contexts"], at["weights"], of_context, upstream[2].read(time))
            of_asked, *more = bahdanau.unattend(at["made"][:, gates:], scores, positions[:n], *ways)
            values = [of_product, tf.concat([of_made, of_asked], 1), *more]
        of_state[0] += tf.matmul(values[1], kernel, transpose_b=True)
        return time - 1, of_state, tuple(array.write(time, x) for array, x in zip(arrays, values, strict=True))

    arrays = tuple(_array(packed, size, kind) for size, kind in keep.values())
    shapes = (tf.TensorShape([]), [tf.TensorShape([None, units])] * layers, (None,) * len(arrays))
    start = (tf.size(packed.counts) - 1, [tf.zeros([0, units], dtype)] * layers, arrays)
    _, of_first, arrays = tf.while_loop(lambda t, *_: t >= 0, one_word, start, shape_invariants=shapes)
    got = {name: array.concat() for name, array in zip(keep, arrays, strict=True)}
    more = tf.size(packed.order) - packed.counts[0]  # captions without a word
    of_first = [tf.pad(x, [[0, more], [0, 0]]) for x in of_first]
    of_kernel = tf.matmul(found["state 0"], got["made"], transpose_a=True)
    learned = [got["product"], tf.reduce_sum(got["made"], 0), of_kernel, *of_first]
    if seen:
        query = found["made"][:, gates:-1]
        learned += bahdanau.of_seen(
            packed, query, seen.keys, seen.score, found["weights"], got["scores"], got["context"]
        )
        learned.append(tf.matmul(found["contexts"], got["product"], transpose_a=True))
    return learned


def _of_captions(packed: Packed, seen: Seen):
    """(Scores of the captions' keys, their positions `[N, P, E]`), in the order of `packed`."""
    owner = packed.owner(seen.keys)
    return bahdanau.Scores(tf.gather(seen.keys, owner), seen.score), tf.gather(seen.positions, owner)


def _array(packed: Packed, size: int, dtype) -> tf.TensorArray:
    """For tensors `[n, size]`, one for each time, of fewer and fewer rows."""
    return tf.TensorArray(dtype, tf.size(packed.counts), infer_shape=False, element_shape=[None, size])
