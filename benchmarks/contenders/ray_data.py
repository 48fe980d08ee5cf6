"""Ray Data's `map_batches` with a class, which its actors keep the network in.

After https://docs.ray.io/en/latest/data/batch_inference.html and its neighbour working-with-images.html; what a killed
run has done is kept by the CheckpointConfig of api/doc/ray.data.checkpoint.interfaces.CheckpointConfig.html. The
variant "skip" sets `max_errored_blocks` (api/doc/ray.data.DataContext.html): a job goes on without its bad blocks.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from benchmarks.contenders.common import BATCH, SIZE, build, note, preprocess


class Inception:
    def __init__(self, weights: str):
        self.model = build(weights)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.model.predict_on_batch(preprocess(batch["image"].astype(np.float32)))
        note(len(found))
        return {"path": batch["path"], "feature": found}


def main(images: str, weights: str, output: str, variant: str = "") -> None:
    # Ray counts in these, it does not pin them. A rerun with a checkpoint has an actor more, and on two cores that and
    # the network's would leave none to read with: the job would wait for ever (Ray 2.60).
    ray.init(num_cpus=(os.cpu_count() or 1) + 2)
    context = DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(id_column="path", checkpoint_path=f"{output}-checkpoint")
    context.max_errored_blocks = -1 if variant == "skip" else 0
    photos = ray.data.read_images(images, mode="RGB", size=(SIZE, SIZE), include_paths=True)
    features = photos.map_batches(
        Inception, fn_constructor_args=[weights], batch_size=BATCH, compute=ActorPoolStrategy(size=1), num_cpus=1
    )
    features.write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
