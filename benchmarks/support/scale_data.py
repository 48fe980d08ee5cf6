"""What benchmarks/scale.py runs on: small JPEGs by the million, and networks that cost next to nothing.

It is a program of its own, so that the process that measures stays small:
`python -m benchmarks.support.scale_data networks DIR`, `python -m benchmarks.support.scale_data images DIR COUNT`.
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import functools
import io
import multiprocessing
import pathlib
import random
import sys
import zipfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

TOGETHER = 10_000  # images in a file
ROWS = 1000  # in a row group
WIDTH, HEIGHT = 64, 48
WORDS = 100  # that the decoder knows
LENGTH = 6  # ids in a caption, START and END counted


@functools.cache
def _scenes() -> list[tuple[np.ndarray, list[str]]]:
    from scripts import scenes

    rng = random.Random(0)
    drawn = [(scene := scenes.random_scene(rng), scene.draw(rng, WIDTH, HEIGHT)) for _ in range(64)]
    return [(np.asarray(image), scene.captions(rng)) for scene, image in drawn]


def draw(number: int) -> bytes:
    """A JPEG; no two of a million are the same: one of 64 scenes, moved round, and a little brighter."""
    number, scene = divmod(number, 64)
    number, down = divmod(number, HEIGHT)
    brighter, right = divmod(number, WIDTH)
    moved = np.roll(_scenes()[scene][0], (down, right), axis=(0, 1))
    buffer = io.BytesIO()
    Image.fromarray(np.minimum(moved, 255 - 4 * brighter) + np.uint8(4 * brighter)).save(buffer, "JPEG")
    return buffer.getvalue()


def names(first: int, end: int) -> Iterator[tuple[int, str]]:
    """(number, name) of images."""
    return ((number, f"image-{number:09d}.jpg") for number in range(first, end))


def write_file(directory: str, count: int, first: int) -> None:
    """The images from `first`, twice: as a zip file, and as Parquet with a column of their bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    drawn = [(name, draw(number)) for number, name in names(first, min(first + TOGETHER, count))]
    stem = f"part-{first // TOGETHER:05d}"
    with zipfile.ZipFile(f"{directory}/zip/{stem}.zip", "w", zipfile.ZIP_STORED) as file:
        for name, data in drawn:
            file.writestr(zipfile.ZipInfo(name), data)
    images = [{"bytes": data, "path": name} for name, data in drawn]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "name": [name for name, _ in drawn]})
    pq.write_table(table, f"{directory}/parquet/{stem}.parquet", row_group_size=ROWS, compression="none")


def write_images(directory: pathlib.Path, count: int) -> None:
    """zip/*.zip, parquet/*.parquet, and captions.csv with five captions for each image."""
    for folder in ("zip", "parquet"):
        (directory / folder).mkdir(parents=True)
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        made = [pool.submit(write_file, str(directory), count, first) for first in range(0, count, TOGETHER)]
        with open(directory / "captions.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("image", "caption", "split"))
            for number, name in names(0, count):
                rows.writerows((name, caption, "train") for caption in _scenes()[number % 64][1])
        for one in made:
            one.result()


def write_networks(directory: pathlib.Path) -> None:
    """A SavedModel of mean colours, and the export of a decoder of 16 units with seeded weights, never trained."""
    from tfrecords_schema.quiet import import_tensorflow

    tf = import_tensorflow()
    import keras

    from pipelines.vision.extractors import Extractor
    from tfrecords_schema.manifests.model_info import ModelInfo
    from tfrecords_schema.vocabulary import Vocabulary
    from trainer.config import DecoderConfig
    from trainer.exporting import saved_model
    from trainer.model.decoder import Decoder

    class Means(tf.Module):
        """float32 `[B, 32, 32, 3]` -> the mean colours of 4 x 4 fields `[B, 48]`."""

        @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32)])
        def __call__(self, pixels):
            return tf.reshape(tf.nn.avg_pool2d(pixels / 255, 8, 8, "VALID"), [-1, 48])

    means = Means()
    tf.saved_model.save(means, str(directory / "network"), signatures=means.__call__)
    words = Vocabulary.from_counts({f"word{number}": 9 for number in range(WORDS)})
    config = DecoderConfig(
        vocabulary_size=len(words), max_length=LENGTH, feature_shape=(48,), embedding_dim=16, units=16
    )
    keras.utils.set_random_seed(0)
    decoder = Decoder(config)
    decoder.build()
    info = ModelInfo(
        decoder=dataclasses.asdict(config),
        features=Extractor("saved_model", str(directory / "network"), 1).spec("float16"),
        max_caption_length=LENGTH,
        vocabulary_digest=words.digest,
        digest="",
        metrics={},
        search={"beam_width": 1, "length_penalty": 0.0},
    )
    saved_model.write(decoder, words, info, str(directory / "export"))


if __name__ == "__main__":
    where = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "networks":
        write_networks(where)
    else:
        write_images(where, int(sys.argv[3]))
