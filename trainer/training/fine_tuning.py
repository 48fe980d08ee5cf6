"""What the phase that trains the CNN too is made of: what learns, how wrong it is, and features made anew meanwhile."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfrecords_schema.errors import RunError
from tfrecords_schema.manifests.features_info import FeatureSpec
from tfrecords_schema.record import IMAGE
from tfrecords_schema.storage import carried, files
from trainer.config import TrainConfig
from trainer.data import dataset, stored_images
from trainer.data.batches import Batch
from trainer.data.image_batches import ImageBatch
from trainer.model.cnn import Cnn
from trainer.model.decoder import Decoder
from trainer.training import job, objectives
from trainer.training.screen import Screen
from trainer.training.validation import Validation

_BATCH = 32  # images at a time, where nothing is learned
Check = Callable[[], None]  # called between batches; may raise to stop


class Learner:
    """CNN and decoder as one: what an update changes."""

    def __init__(self, cnn: Cnn, decoder: Decoder):
        self.cnn, self.decoder = cnn, decoder

    @property
    def trainable_variables(self) -> list[Any]:
        """The decoder's, then the CNN's."""
        return [*self.decoder.trainable_variables, *self.cnn.trainable_variables]


def objective(learner: Learner, batch: ImageBatch, seed, progress, config: TrainConfig) -> objectives.Loss:
    """Cross-entropy, as in the first phase; each image goes through the CNN once, whatever captions it has.

    Scheduled sampling, if there is any, has the share that the first phase ended with.
    """
    inputs, cnn = batch.inputs, learner.cnn
    if not is_kept(batch, cnn):
        inputs = cnn.activations(inputs[0])
    features = cnn.features(inputs, training=seed is not None)
    return objectives.cross_entropy(learner.decoder, Batch(features, batch.ids, batch.image), seed, 1.0, config)


def is_kept(batch: ImageBatch, cnn: Cnn) -> bool:
    """Whether a batch has the trunk's activations; pixels are the only inputs of their type."""
    return batch.inputs[0].dtype != tf.uint8 or not cnn.has_trunk


def save_network(cnn: Cnn, spec: FeatureSpec, settings: TrainConfig, directory: str) -> tuple[FeatureSpec, str]:
    """Writes the network's weights below a directory, under the name of carried ones.

    Returns:
      What features made with them are, and that name.
    """
    path = os.path.join(directory, "tuned.weights.h5")
    cnn.save(path)
    name, digest = carried.keep(path, directory)
    label = f"fine-tuned from {settings.fine_tune} up: {spec.weights}"
    return dataclasses.replace(spec, weights=label, weights_digest=digest, precision=settings.precision), name


class Tuning:
    """The network that learns, and what is computed with it beside the updates, for all images of a split."""

    def __init__(
        self,
        directory: dataset.FeatureDirectory,
        job_dir: str,
        config: TrainConfig,
        learner: Learner,
        screen: Screen,
        validation: Validation | None,
    ):
        self.learner, self._directory, self._screen, self._validation = learner, directory, screen, validation
        self._place = os.path.join(job_dir, job.REMADE)
        cnn = learner.cnn
        pixels = tf.TensorSpec([None, cnn.size, cnn.size, 3], tf.uint8)
        self._activate = tf.function(cnn.activations, input_signature=[pixels])
        found = self._activate.get_concrete_function().structured_outputs
        self._activations = [(tuple(one.shape[1:]), one.dtype.as_numpy_dtype) for one in found]
        signature = [tuple(tf.TensorSpec(one.shape, one.dtype) for one in found)]
        self._features = tf.function(cnn.features, input_signature=signature)
        each = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self._activations)
        counts = {name: split.images for name, split in directory.info.splits.items()}
        self._images: dict[str, int] = {name: counts[name] for name in ("train", "val") if counts.get(name)}
        free = config.cache_gb * 1e9
        self._keeps: dict[str, bool] = {}
        for split, images in self._images.items():
            self._keeps[split] = each * images <= free and not (split == "train" and config.augment)
            free -= each * images * self._keeps[split]
        self._kept: dict[str, list[np.ndarray]] = {}

    @property
    def keeps_train(self) -> bool:
        """Whether the trunk's activations of the training images are computed once, and there is room for them."""
        return self._keeps["train"]

    def introduce(self) -> None:
        """What is about to happen."""
        cnn = self.learner.cnn
        count = sum(math.prod(variable.shape) for variable in cnn.trainable_variables)
        if self.keeps_train:
            below = "what is below them is run once and kept in memory"
        else:
            below = "what is below them is run in each step (--cache_gb, --augment)"
        told = f"; {below}" if cnn.has_trunk else ""
        name = self._directory.info.features.extractor
        self._screen.say(f"fine-tuning {name}: {count:,} of its weights learn{told}")

    def kept(self, split: str, check: Check) -> list[np.ndarray]:
        """The trunk's activations of all images `[images, ...]`, computed when they are first asked for."""
        if split not in self._kept:
            made = [np.empty((self._images[split], *shape), dtype) for shape, dtype in self._activations]
            for at, pixels in self._pixels(split, check, f"layers of the network that stay as they are, {split}"):
                for whole, part in zip(made, self._activate(pixels), strict=True):
                    whole[at : at + len(pixels)] = part.numpy()
            self._kept[split] = made
        return self._kept[split]

    def remake(self, split: str, check: Check) -> None:
        """Has a split learned from and captioned with features of the network as it is now; see FeatureDirectory.

        Raises:
          RunError: one is no finite number, or too large for the type that features are stored in.
          OSError: there is no room for them.
        """
        spec, path = self._directory.info.features, os.path.join(self._place, f"{split}.features")
        os.makedirs(self._place, exist_ok=True)
        files.delete(path)  # and not written over: it may be in use
        with open(path, "wb") as file:  # and no map of it that is written to: a full disk would be a signal, no error
            for _, activations in self._all_activations(split, check):
                with np.errstate(over="ignore"):
                    found = self._features(activations).numpy().astype(spec.dtype)
                if not np.isfinite(found).all():
                    raise RunError(
                        f"the fine-tuned network: expected features that {spec.dtype} can hold, found "
                        "infinity or NaN; try a smaller --fine_tune_rate in another --job_dir, or --overwrite"
                    )
                file.write(found.tobytes())
        remade = np.memmap(path, spec.dtype, "r", shape=(self._images[split], *spec.shape))
        self._directory.remade[split] = remade
        if split == "val" and self._validation:
            self._validation.forget()

    def remake_validation(self, check: Check) -> None:
        """Remakes the features of the validation images, if there are any."""
        if "val" in self._images:
            self.remake("val", check)

    def remake_all(self, check: Check) -> None:
        """Remakes the features of all images that are learned from or validated on."""
        for split in self._images:
            self.remake(split, check)

    def close(self) -> None:
        """Deletes the features that were made."""
        self._directory.remade.clear()
        job.clear(self._place)

    def _all_activations(self, split: str, check: Check) -> Iterator[tuple[int, tuple[Any, ...]]]:
        if not self._keeps[split]:
            for at, pixels in self._pixels(split, check, f"features of the network as it is now, {split}"):
                yield at, self._activate(pixels)
            return
        kept = self.kept(split, check)
        for at in range(0, len(kept[0]), _BATCH):
            check()
            yield at, tuple(tf.constant(one[at : at + _BATCH]) for one in kept)

    def _pixels(self, split: str, check: Check, title: str) -> Iterator[tuple[int, Any]]:
        """(place of the first, uint8 `[n, size, size, 3]`) of all images of a split in their order."""
        size, steps = self.learner.cnn.size, math.ceil(self._images[split] / _BATCH)
        images = dataset.images(self._directory, split).map(
            lambda record: stored_images.square(record[IMAGE], size), num_parallel_calls=tf.data.AUTOTUNE
        )
        self._screen.close()  # of the epoch
        self._screen.begin(title, 0, steps)
        begun = time.monotonic()
        for number, pixels in enumerate(images.batch(_BATCH).prefetch(2)):
            check()
            yield number * _BATCH, pixels
            rate = (number + 1) * _BATCH / max(time.monotonic() - begun, 1e-9)
            self._screen.update(number + 1, {"images/s": rate})
        self._screen.close()
