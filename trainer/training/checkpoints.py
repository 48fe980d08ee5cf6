"""What a run needs to go on after it was stopped in any way: weights, the optimizer's state, and how far it is."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrecords_schema.errors import RunError
from tfrecords_schema.storage import files
from trainer.config import DecoderConfig
from trainer.model.cnn import Cnn
from trainer.model.decoder import Decoder
from trainer.model.variables import tensors

# What TensorFlow raises for checkpoints whose files are gone, cut short or of another shape.
_DAMAGED = (tf.errors.OpError, AssertionError, IndexError, ValueError)


@dataclasses.dataclass
class Progress:
    """How far a run is.

    Attributes:
      epoch, step: the epoch, from 0, and how many of its batches are done.
      steps: batches done since the phase began. Dropout follows from it, and scheduled sampling: no batch draws what
        another drew. The learning rate follows the optimizer's own count, which steps that are left out do not raise.
      left_out: steps of this epoch that changed nothing, because they overflowed float16; counted in `steps` too.
      sums: name -> (sum, what it is divided by), of the epoch so far.
      tokens, seconds, waited_s: real tokens, seconds of training, and of these spent waiting for data; in this epoch.
      history: a row for each finished epoch.
      best: the best row so far by the monitored figure, {} before one.
      without_better: validations since the best one.
      steps_before: updates of earlier phases.
      saves: checkpoints written; each has its own number, since one written over another could be lost with it.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    left_out: int = 0
    sums: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    tokens: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    without_better: int = 0
    steps_before: int = 0
    saves: int = 0

    @property
    def all_steps(self) -> int:
        """Updates since the run began."""
        return self.steps_before + self.steps

    def next_epoch(self) -> None:
        """The beginning of the next epoch."""
        self.epoch, self.step, self.left_out, self.sums = self.epoch + 1, 0, 0, {}
        self.tokens, self.seconds, self.waited_s = 0.0, 0.0, 0.0


class _Saved(tf.train.experimental.PythonState):
    """A Progress inside a TensorFlow checkpoint, as JSON."""

    def __init__(self, progress: Progress):
        self.progress = progress

    def serialize(self) -> str:
        return json.dumps(dataclasses.asdict(self.progress))

    def deserialize(self, string_value) -> None:
        values = json.loads(string_value)
        for field in dataclasses.fields(Progress):  # and not what an earlier version kept beside them
            setattr(self.progress, field.name, values[field.name])


def numbered(directory: str | os.PathLike[str]) -> dict[int, str]:
    """The checkpoints in a directory by their numbers, latest first: of `ckpt-7.index` the path that ends in `ckpt-7`.

    They are found by their names alone: TensorFlow's own list of them, the file `checkpoint`, may be lost, and whoever
    can write to it could have files anywhere else read and deleted. An index has its name when all is written.
    """
    found = (re.fullmatch(r"ckpt-([0-9]{1,18})\.index", name) for name in _names(directory))
    numbers = sorted((int(name[1]) for name in found if name), reverse=True)
    return {number: os.path.join(directory, f"ckpt-{number}") for number in numbers}


def _names(directory: str | os.PathLike[str]) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(directory)
    return []


def _write(checkpoint: tf.train.Checkpoint, directory: str, number: int, keep: int) -> None:
    """Writes a checkpoint, then deletes the oldest ones too many, and any that a kill left; none of a later number."""
    os.makedirs(directory, exist_ok=True)
    checkpoint.save_counter.assign(number)  # which makes it: `restore` expects it in the file
    checkpoint.write(os.path.join(directory, f"ckpt-{number}"))
    for path in [path for at, path in numbered(directory).items() if at <= number][keep:]:
        with contextlib.suppress(OSError):
            files.delete(f"{path}.index", *glob.glob(f"{glob.escape(path)}.data-*"))


class Checkpoints:
    """The latest checkpoints of one phase."""

    def __init__(self, directory: str, weights, optimizer_weights, progress: Progress, keep: int):
        checkpoint = tf.train.Checkpoint(
            weights=tensors(weights), optimizer=tensors(optimizer_weights), progress=_Saved(progress)
        )
        self._checkpoint, self._directory = checkpoint, directory
        self._progress, self._keep = progress, keep

    def restore(self, say: Callable[[str], None]) -> bool:
        """Goes back to the latest checkpoint that can be read; False where there is none at all.

        Raises:
          RunError: there are some, and all are damaged.
        """
        found = numbered(self._directory)
        for path in found.values():
            try:
                self._checkpoint.restore(path).assert_consumed()
                return True
            except _DAMAGED as error:
                say(f"{path}: cannot be read ({files.reason(error)}); trying the one before it")
        if found:
            raise RunError(f"{self._directory}: no checkpoint can be read; give --overwrite to start again")
        return False

    def save(self) -> None:
        """Writes a checkpoint, then deletes the oldest one too many."""
        self._progress.saves += 1
        _write(self._checkpoint, self._directory, self._progress.saves, self._keep)


class Best:
    """The weights of the best epoch so far."""

    def __init__(self, directory: str, weights):
        self._checkpoint = tf.train.Checkpoint(weights=tensors(weights))
        self._directory = directory

    def save(self, step: int) -> None:
        """Writes the weights as they are now, after `step` updates, then deletes the earlier best ones."""
        _write(self._checkpoint, self._directory, step, keep=1)

    def restore(self) -> None:
        """The best weights. Raises RunError where they are not there any more, or damaged."""
        latest = next(iter(numbered(self._directory).values()), None)
        try:
            if not latest:
                raise ValueError("there is none")
            self._checkpoint.restore(latest).assert_consumed()
        except _DAMAGED as error:
            raise RunError(
                f"{self._directory}: expected the weights of the best epoch, but they cannot be read "
                f"({files.reason(error)}); give --overwrite to start again"
            ) from error


def load_best(directory: str, config: DecoderConfig, cnn: Cnn | None = None) -> Decoder:
    """The decoder of a run with its best weights, in float32 and outside any strategy. Raises RunError.

    `cnn` is the network of a run that fine-tunes it, and gets its best weights too.
    """
    decoder = Decoder(config)
    decoder.build()
    Best(directory, [*decoder.weights, *(cnn.weights if cnn else ())]).restore()
    return decoder
