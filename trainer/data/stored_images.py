"""The images of records as a network takes them: decoded, square, and, if asked for, distorted."""

from __future__ import annotations

import tensorflow as tf

from tfrecords_schema.manifests.features_info import IM2TXT_CROP

_BRIGHTNESS, _HUE = 32 / 255, 0.032  # largest change, as im2txt's, of values in 0..1
_FACTORS = (0.5, 1.5)  # of saturation and contrast


def square(jpeg, size: int):
    """A JPEG -> uint8 `[size, size, 3]`, by the arithmetic of the pipelines' resize: bilinear, antialiased.

    Beside features that were made of the original image, what differs is what the JPEG lost.
    """
    return _rounded(_resized(jpeg, size))


def distorted(jpeg, size: int, seed):
    """A JPEG -> uint8 `[size, size, 3]`: a random crop, perhaps flipped, of other colours, as the seed `[2]` has it.

    As im2txt's `process_image` and `distort_image` (https://github.com/tensorflow/models/tree/archive/research/im2txt):
    the image is made a square a seventh larger and cropped; colours change in one of two orders.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 7), num=7)
    image = _resized(jpeg, round(size * IM2TXT_CROP))
    image = tf.image.stateless_random_crop(image, [size, size, 3], seeds[0])
    image = tf.image.stateless_random_flip_left_right(image, seeds[1]) / 255
    image = tf.image.stateless_random_brightness(image, _BRIGHTNESS, seeds[2])

    def saturation(x):
        return tf.image.stateless_random_saturation(x, *_FACTORS, seed=seeds[3])

    def hue(x):
        return tf.image.stateless_random_hue(x, _HUE, seed=seeds[4])

    def contrast(x):
        return tf.image.stateless_random_contrast(x, *_FACTORS, seed=seeds[5])

    contrast_last = tf.random.stateless_uniform([], seeds[6]) < 0.5
    image = tf.cond(
        contrast_last,
        lambda: contrast(hue(saturation(image))),
        lambda: hue(saturation(contrast(image))),
    )
    return _rounded(image * 255)


def _resized(jpeg, size: int):
    """float32 `[size, size, 3]` in 0..255."""
    # The accurate DCT is the one that the pipelines decode by; TensorFlow's default is the fast one.
    decoded = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.image.resize(tf.cast(decoded, tf.float32), (size, size), antialias=True)


def _rounded(image):
    return tf.cast(tf.round(tf.clip_by_value(image, 0, 255)), tf.uint8)
