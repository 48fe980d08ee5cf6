"""A network's weights as its forward pass wants them: batch norm merged into convolutions, held as they are multiplied.

Weights stay variables, at the rate of constants of the graph, which TensorFlow holds some ten times over: VGG16 took 10
GB.
"""

from __future__ import annotations

import collections
from typing import Any

import numpy as np


def folded(model: Any) -> Any:
    """A Keras model of the same function, in which convolutions do the work of the batch norms behind them.

    A batch norm in inference is one factor and one shift for each channel: they go into the kernel and a bias, as
    TensorFlow does it where weights are constants of the graph. One behind something else, or behind what others read
    too, stays.

    Where a layer multiplies in bfloat16 or float16, its weights are held so too. Keras holds them in float32, and casts
    all of them in each forward pass.

    Args:
      model: functional, every layer called once; the same comes back where there is nothing to change.
    """
    import keras

    readers = collections.Counter(id(tensor) for layer in model.layers for tensor in _list(layer.input))
    readers.update(id(tensor) for tensor in model.outputs)
    convolutions = {
        id(layer.output): layer for layer in model.layers if _can_take(layer) and readers[id(layer.output)] == 1
    }
    norms = {
        layer.name: convolutions[id(layer.input)]
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and id(layer.input) in convolutions
        and layer.axis in (-1, len(layer.output.shape) - 1)
    }
    lower = {layer.name: layer.compute_dtype for layer in model.layers if _multiplies_lower(layer)}
    if not norms and not lower:
        return model
    merged = {convolution.name: model.get_layer(norm) for norm, convolution in norms.items()}

    def cloned(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in lower:
            config["dtype"] = lower[layer.name]
        if layer.name in merged:
            config["use_bias"] = True
        if layer.name in merged or layer.name in lower:
            config[_kernel(layer)] = "zeros"  # Keras would draw random numbers, which takes time, for what is set below
        return type(layer).from_config(config)

    def called(layer: Any, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if layer.name in norms else layer(*inputs, **options)

    made = keras.models.clone_model(model, clone_function=cloned, call_function=called)
    for layer in made.layers:
        if layer.weights:
            before = model.get_layer(layer.name)
            layer.set_weights(_merged(before, merged[layer.name]) if layer.name in merged else before.get_weights())
    return made


def _kernel(layer: Any) -> str:
    return "kernel_initializer" if "kernel_initializer" in layer.get_config() else "depthwise_initializer"


def _list(tensors: Any) -> list:
    return tensors if isinstance(tensors, list) else [tensors]


def _can_take(layer: Any) -> bool:
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return type(layer) in kinds and layer.activation is keras.activations.linear


def _multiplies_lower(layer: Any) -> bool:
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    return type(layer) in kinds and layer.compute_dtype != layer.variable_dtype


def _merged(convolution: Any, norm: Any) -> list[np.ndarray]:
    """Kernel and bias, float32."""
    kernel, *bias = convolution.get_weights()
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    factor = (norm.gamma.numpy() if norm.scale else 1) / np.sqrt(variance + norm.epsilon)  # [channels out]
    shift = (norm.beta.numpy() if norm.center else 0) + (sum(bias) - mean) * factor
    # Of a depthwise kernel, [height, width, channels in, multiplier], the last two axes are the channels out.
    return [(kernel.reshape(-1, factor.size) * factor).reshape(kernel.shape), shift]
