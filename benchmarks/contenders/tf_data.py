"""A plain script with `tf.data`: read, decode, resize, batch, prefetch, predict, save.

After https://www.tensorflow.org/tutorials/load_data/images ("Using tf.data for finer control") and
https://www.tensorflow.org/guide/data_performance (parallel map, prefetch). The variant "skip" adds `ignore_errors`.
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf

from benchmarks.contenders.common import BATCH, SIZE, build, note, preprocess


def load(path):
    pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
    return path, preprocess(tf.image.resize(pixels, [SIZE, SIZE]))


def main(images: str, weights: str, output: str, variant: str = "") -> None:
    model = build(weights)
    photos = tf.data.Dataset.list_files(f"{images}/*", shuffle=False).map(load, num_parallel_calls=tf.data.AUTOTUNE)
    if variant == "skip":
        photos = photos.ignore_errors()
    paths, features = [], []
    for names, pixels in photos.batch(BATCH).prefetch(tf.data.AUTOTUNE):
        features.append(model.predict_on_batch(pixels))
        note(len(names))
        paths += [name.decode() for name in names.numpy()]
    np.savez(output, path=paths, feature=np.concatenate(features))


if __name__ == "__main__":
    main(*sys.argv[1:])
