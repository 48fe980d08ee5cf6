"""Beam's RunInference with its TensorFlow handler.

After tensorflow_imagenet_segmentation.py in apache_beam/examples/inference (an image is read and resized by a
preprocessing function of the handler) and tensorflow_mnist_with_weights.py (Keras weights, keyed inputs); what is bad by
`with_exception_handling`, https://beam.apache.org/releases/pydoc/current/apache_beam.ml.inference.base.html.
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


def to_row(keyed) -> dict:
    path, result = keyed
    return {"path": path, "feature": np.asarray(result.inference, np.float32)}


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
        _ = found | beam.Map(to_row) | beam.io.WriteToParquet(f"{output}/features", schema, file_name_suffix=".parquet")
        bad = failed.failed_preprocessing[0] | "Say" >> beam.Map(lambda pair: f"{pair[0]}: {pair[1][1]}")
        _ = bad | beam.io.WriteToText(f"{output}/failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
