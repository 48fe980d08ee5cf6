"""What a run needs to go on after it was stopped in any way: weights, the optimizer's state, and how far it is."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import tensorflow as tf

from tfrecords_schema.errors import InputError
from trainer.config import FREE_SETTINGS

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
BEST = "best"


@dataclasses.dataclass
class Progress:
    """How far a run is.

    Attributes:
      epoch, step: the epoch, from 0, and how many of its batches are done.
      steps: updates since the phase began; dropout and the learning rate follow from it.
      sums: name -> (sum, what it is divided by), of the epoch so far.
      tokens, seconds, waited_s: real tokens, seconds of training, and of these spent waiting for data; in this epoch.
      history: a row for each finished epoch.
      best: the best row so far by the monitored figure, {} before one.
      without_better: validations since the best one.
      steps_before: updates of earlier phases.
      saves: checkpoints written; each has its own number, since one written over another could be lost with it.
      finished: the phase is over.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    sums: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    tokens: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    without_better: int = 0
    steps_before: int = 0
    finished: bool = False
    saves: int = 0

    @property
    def all_steps(self) -> int:
        """Updates since the run began."""
        return self.steps_before + self.steps

    def next_epoch(self) -> None:
        """The beginning of the next epoch."""
        self.epoch, self.step, self.sums, self.tokens, self.seconds, self.waited_s = (
            self.epoch + 1,
            0,
            {},
            0.0,
            0.0,
            0.0,
        )


class _Saved(tf.train.experimental.PythonState):
    """A Progress inside a TensorFlow checkpoint, as JSON."""

    def __init__(self, progress: Progress):
        self.progress = progress

    def serialize(self) -> str:
        return json.dumps(dataclasses.asdict(self.progress))

    def deserialize(self, string_value) -> None:
        for name, value in json.loads(string_value).items():
            setattr(self.progress, name, value)


class Checkpoints:
    """The latest checkpoints of one phase. TensorFlow writes each whole before it is named as the latest."""

    def __init__(self, directory: str, weights, optimizer_weights, progress: Progress, keep: int):
        checkpoint = tf.train.Checkpoint(
            weights=tensors(weights), optimizer=tensors(optimizer_weights), progress=_Saved(progress)
        )
        self._checkpoint = checkpoint
        self._manager = tf.train.CheckpointManager(checkpoint, directory, max_to_keep=keep, step_counter=None)
        self._progress = progress

    def restore(self) -> bool:
        """Goes back to the latest checkpoint; False where there is none."""
        latest = self._manager.latest_checkpoint
        if latest:
            self._checkpoint.restore(latest).assert_consumed()
        return latest is not None

    def save(self) -> str:
        """Writes a checkpoint, then deletes the oldest one too many. Returns its path."""
        self._progress.saves += 1
        return self._manager.save(self._progress.saves)


class Best:
    """The weights of the best epoch so far."""

    def __init__(self, job_dir: str, weights):
        self._checkpoint = tf.train.Checkpoint(weights=tensors(weights))
        self._manager = tf.train.CheckpointManager(self._checkpoint, os.path.join(job_dir, BEST), max_to_keep=1)

    def save(self, step: int) -> None:
        """Writes the weights as they are now, after `step` updates, then deletes the earlier best ones."""
        self._manager.save(step)

    def restore(self) -> None:
        """The best weights."""
        self._checkpoint.restore(self._manager.latest_checkpoint).assert_consumed()


def tensors(variables) -> list[tf.Variable]:
    """TensorFlow's variables inside Keras' ones: in this order, they are what a checkpoint holds."""
    return [variable.value for variable in variables]


def phase_directory(job_dir: str, phase: str) -> str:
    """Where a phase's checkpoints are."""
    return os.path.join(job_dir, CHECKPOINTS, phase)


def begin(job_dir: str, settings: dict[str, dict[str, Any]]) -> None:
    """Writes config.json, or checks that the run to go on with has the same settings.

    Raises:
      InputError: naming each setting that differs, or why the directory cannot be used.
    """
    path = os.path.join(job_dir, CONFIG)
    try:
        tf.io.gfile.makedirs(job_dir)
        if tf.io.gfile.exists(path):
            _require_same(path, job_dir, settings)
        with tf.io.gfile.GFile(path + ".tmp", "w") as file:
            file.write(json.dumps(settings, indent=2) + "\n")
        tf.io.gfile.rename(path + ".tmp", path, overwrite=True)
    except (tf.errors.OpError, OSError) as error:
        raise InputError(f"--job_dir: expected a directory that can be written to, found {job_dir}: {error}") from None


def _require_same(path: str, job_dir: str, settings: dict[str, dict[str, Any]]) -> None:
    try:
        with tf.io.gfile.GFile(path) as file:
            earlier = json.load(file)
    except ValueError:
        raise InputError(f"--job_dir: {path}: expected JSON, found something else; give another --job_dir") from None
    changes = [
        f"{key} was {earlier.get(group, {}).get(key)}, now {value}"
        for group, values in settings.items()
        for key, value in values.items()
        if key not in FREE_SETTINGS and earlier.get(group, {}).get(key) != value
    ]
    if changes:
        raise InputError(
            f"--job_dir: {job_dir} holds a run with other settings ({'; '.join(changes)}); "
            "give --overwrite, or another --job_dir"
        )


def delete_earlier_run(job_dir: str, names: tuple[str, ...]) -> None:
    """Deletes what a run writes, checkpoints and what has these names, and nothing else in `job_dir`."""
    for name in (CONFIG, CHECKPOINTS, BEST, *names):
        path = os.path.join(job_dir, name)
        if tf.io.gfile.exists(path):
            tf.io.gfile.rmtree(path) if tf.io.gfile.isdir(path) else tf.io.gfile.remove(path)
