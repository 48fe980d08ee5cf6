"""Beam's RunInference with its TensorFlow handler.

After tensorflow_imagenet_segmentation.py (reads and resizes by a preprocessing function) and
tensorflow_mnist_with_weights.py (Keras weights, keyed inputs) in apache_beam/examples/inference. Bad images: after
https://beam.apache.org/releases/pydoc/current/apache_beam.ml.inference.base.html, `with_exception_handling`.
"""

from __future__ import annotations

import functools
import sys

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.io import fileio
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.ml.inference.tensorflow_inference import ModelType, TFModelHandlerTensor, default_tensor_inference_fn
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from PIL import Image

from benchmarks.contenders.common import BATCH, SIZE, build, note, preprocess


def read_image(path: str):
    image = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return path, preprocess(tf.cast(tf.convert_to_tensor(np.array(image)), tf.float32))


def infer(model, batch, arguments, model_id=None):
    found = list(default_tensor_inference_fn(model, batch, arguments, model_id))
    note(len(batch))
    return found


def main(images: str, weights: str, output: str, variant: str = "") -> None:
    handler = TFModelHandlerTensor(
        model_uri=weights,
        model_type=ModelType.SAVED_WEIGHTS,
        create_model_fn=functools.partial(build, None),
        inference_fn=infer,
        min_batch_size=BATCH,
        max_batch_size=BATCH,
    )
    schema = pa.schema([("path", pa.string()), ("feature", pa.list_(pa.float32()))])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        paths = (
            pipeline
            | fileio.MatchFiles(f"{images}/*")
            | beam.Map(lambda match: match.path)
            | "Spread" >> beam.Reshuffle()
        )
        inference = RunInference(KeyedModelHandler(handler).with_preprocess_fn(read_image))
        found, failed = paths | inference.with_exception_handling()
        _ = (
            found
            | beam.MapTuple(lambda path, result: {"path": path, "feature": np.asarray(result.inference)})
            | beam.io.WriteToParquet(f"{output}/features", schema, file_name_suffix=".parquet")
        )
        bad = failed.failed_preprocessing[0] | "Say" >> beam.Map(lambda pair: f"{pair[0]}: {pair[1][1]}")
        _ = bad | beam.io.WriteToText(f"{output}/failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
