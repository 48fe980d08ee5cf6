"""How features enter the decoder: as they are, standardised, or whitened. Measured once, on the training images."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

_COMPONENTS = 512
_SMALLEST = 0.1  # of the median deviation: what hardly varies would be blown up to noise
_NONE = 1e-3  # of the greatest deviation: what varies less was the same in all images, but for rounding


def pool(features):
    """features `[N, F]` as they are; of a grid `[N, positions, F]` the mean over its positions, `[N, F]`."""
    return tf.reduce_mean(features, axis=1) if len(features.shape) == 3 else features


class FeatureScaling(keras.layers.Layer):
    """features `[..., F]` -> `[..., F]`, or `[..., min(F, 512)]` when whitened; linear, its weights never trained.

    Whitening is PCA's, with the eigenvalues raised by their mean: `(x - mean) V / sqrt(eigenvalue + mean eigenvalue)`.
    It helps where few directions hold nearly all variance, and the rest is what tells images apart (Jegou and Chum
    2012, https://inria.hal.science/hal-00722622).
    """

    def __init__(self, kind: str, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.kind = kind

    def build(self, input_shape):
        size = input_shape[-1]
        self.mean = self.add_weight(name="mean", shape=(size,), initializer="zeros")
        self.scale = self.add_weight(name="scale", shape=(size,), initializer="ones")
        if self.kind == "whiten":
            self.components = self.add_weight(name="components", shape=(size, min(size, _COMPONENTS)))
        self.built = True

    def compute_output_shape(self, input_shape):
        """The shape of the result."""
        return (*input_shape[:-1], min(input_shape[-1], _COMPONENTS)) if self.kind == "whiten" else input_shape

    def measure(self, mean: np.ndarray, spread: np.ndarray) -> None:
        """Sets the weights from the features' mean `[F]` and variance `[F]`; to whiten, covariance `[F, F]`."""
        deviation = np.sqrt(np.maximum(np.diag(spread) if spread.ndim == 2 else spread, 0))
        scale = 1 / np.maximum(deviation, _smallest(deviation))
        self.mean.assign(mean.astype(np.float32))
        self.scale.assign(scale.astype(np.float32))
        if self.kind == "whiten":
            values, vectors = np.linalg.eigh(spread * np.outer(scale, scale))  # of the standardised features
            largest = np.argsort(values)[::-1][: self.components.shape[1]]
            values = np.maximum(values, 0)
            raised = np.maximum(values[largest] + values.mean(), 1 / values.size)  # as if one feature at least varied
            self.components.assign((vectors[:, largest] / np.sqrt(raised)).astype(np.float32))

    def call(self, features):
        scaled = (features - self.mean) * self.scale
        return tf.matmul(scaled, self.components) if self.kind == "whiten" else scaled


def _smallest(deviation: np.ndarray) -> float:
    """What smaller deviations count as. The median is of features that vary: of few images, most may be 0 in all."""
    varying = deviation[deviation > max(_NONE * deviation.max(), 1e-6)]
    return _SMALLEST * float(np.median(varying)) if varying.size else 1.0
