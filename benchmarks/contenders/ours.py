"""pipelines.features, with images counted. Shards of 100 images, as a run is done again by shards after a crash.

The variant is a precision; float32, as the others compute, without one.
"""

from __future__ import annotations

import csv
import pathlib
import sys

from benchmarks.contenders.common import BATCH, note
from pipelines import features
from pipelines.vision import extractors


def main(images: str, weights: str, output: str, variant: str = "") -> None:
    call = extractors.Extractor.__call__

    def counted(self, pixels):
        found = call(self, pixels)
        if self.counting:
            note(int(pixels.any(axis=(1, 2, 3)).sum()))  # the last batch is padded with zeros
        return found

    def load(self, load=extractors.Extractor.load):
        self.counting = False  # it runs a batch of zeros
        load(self)
        self.counting = True
        return self

    extractors.Extractor.__call__, extractors.Extractor.load = counted, load
    captions = f"{output}-captions.csv"
    with open(captions, "w", newline="") as file:
        names = sorted(path.name for path in pathlib.Path(images).iterdir())
        csv.writer(file).writerows([("image", "caption", "split"), *((name, "a picture", "train") for name in names)])
    flags = ["--images", images, "--captions", captions, "--weights", weights, "--output", output]
    features.main(
        [*flags, "--batch_size", str(BATCH), "--records_per_shard", "100", "--precision", variant or "float32"]
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
