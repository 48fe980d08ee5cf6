"""One update: the same for any number of replicas, and what is done about numbers that are none."""

import functools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import decoders, one_step, overflow
from tfrecords_schema.vocabulary import PAD, START
from trainer.config import TrainConfig
from trainer.data.batches import Batch
from trainer.training import objectives
from trainer.training.update import make_measure, make_update


def filled_up(batch, size: int):
    """The batch with captions that hold nothing to learn, as batches.py fills it up for replicas."""
    ids = np.full((size - len(batch.ids), *batch.ids.shape[1:]), PAD, np.int32)
    ids[..., 0] = START
    features = np.repeat(batch.features[:1], len(ids), axis=0)
    return type(batch)(
        np.concatenate([batch.features, features]),
        np.concatenate([batch.ids, ids]),
        np.concatenate([batch.image, np.zeros(len(ids), np.int32)]),
    )


def largest_difference(a, b) -> float:
    return max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))


KINDS = ("two_layers", "attention")


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """A function: (kind of decoder, runs) -> by run what one_step.py found, of each once.

    A run is a number of replicas, or "wider" for one replica and more padding. Six captions over one, two and four
    replicas: uneven shares of real tokens, and two only filled up.
    """
    directory, found = tmp_path_factory.mktemp("steps"), {}

    def steps(kind: str, *runs) -> dict:
        missing = [run for run in runs if (kind, run) not in found]
        paths = {run: directory / f"{kind}-{run}.npz" for run in missing}
        decoder, batch = decoder_and_batch(kind)
        wider = batch._replace(ids=np.pad(batch.ids, ((0, 0), (0, 0), (0, 9)), constant_values=PAD))
        given = {1: batch, "wider": wider, 2: batch, 4: filled_up(batch, 8)}
        for run, path in paths.items():
            one_step.save(path, decoder, given[run])
        apart = [run for run in missing if run in (2, 4)]  # in a process of their own, which has several devices
        arguments = [str(argument) for run in apart for argument in (paths[run], run)]
        command = [sys.executable, "-m", "tests.support.one_step", *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True) if apart else None
        found.update({(kind, run): one_step.one_step(path) for run, path in paths.items() if run not in apart})
        if process:
            _, stderr = process.communicate(timeout=240)
            assert process.returncode == 0, stderr
        found.update({(kind, run): np.load(f"{paths[run]}.{run}.npz") for run in apart})
        return {run: found[kind, run] for run in runs}

    return steps


def decoder_and_batch(kind: str):
    decoder = decoders.make(kind)
    return decoder, decoders.batch(6, shape=decoder.config.feature_shape)


def weights_of(found) -> list[np.ndarray]:
    return [found[f"weight_{i}"] for i in range(sum(name.startswith("weight_") for name in found))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_equals_an_independent_computation_and_is_learned_from(steps, kind):
    decoder, batch = decoder_and_batch(kind)
    found = steps(kind, 1)[1]
    log_probs = decoders.log_softmax(decoders.forced(decoder, batch.features, batch.ids[:, 0])[0])
    targets = batch.ids[:, 0, 1:]
    picked = np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    assert found["loss"] == pytest.approx(-picked[targets != PAD].mean(), abs=1e-5)
    assert found["measured"] == pytest.approx(found["loss"], abs=1e-6)
    assert largest_difference(weights_of(found), decoder.get_weights()) > 1e-3


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        *[(kind, "wider") for kind in KINDS],
        *[pytest.param(kind, run, marks=pytest.mark.slow) for kind in ("two_layers", "attention") for run in (2, 4)],
    ],
)
def test_loss_and_update_depend_on_neither_replicas_nor_padding(steps, kind, run):
    found, other = steps(kind, 1, run).values()
    assert found["replicas"] == 1 and other["replicas"] == (1 if run == "wider" else run)
    for name in ("loss", "measured", "tokens", "norm"):
        assert other[name] == pytest.approx(found[name], rel=1e-4)
    assert largest_difference(weights_of(other), weights_of(found)) < 1e-5


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_that_overflows_is_left_out_wholly(kind, jit_compile):
    """Momentum, weight decay and the optimizer's count of updates would all go on with a gradient of zeros."""
    found = overflow.changes(tf.distribute.get_strategy(), kind, jit_compile=jit_compile)
    was_left_out(found)


@pytest.mark.slow
def test_an_overflow_is_left_out_on_all_replicas():
    command = [sys.executable, "-m", "tests.support.overflow", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["replicas"] == 2
    was_left_out(found)


def was_left_out(found: dict) -> None:
    first, second, third = found["changed"]
    assert "iteration" in "".join(first) and len(first) > len(found["names"]) / 2 and third == first
    assert second == [] and found["finite"]
    assert [np.isfinite(norm) for norm in found["norms"]] == [True, False, True]


def test_without_float16_an_overflow_is_no_step_to_leave_out():
    """It says that training went wrong, and the loop ends it."""
    assert not overflow.changes(tf.distribute.get_strategy(), skip=False)["finite"]


@pytest.mark.parametrize("kind", ["lstm", "luong"])
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_batches_of_all_sizes_and_lengths_are_traced_once(kind, jit_compile):
    decoder, strategy = decoders.make(kind), tf.distribute.get_strategy()
    decoder.runs_whole_layers |= jit_compile
    calls = []

    def objective(*inputs):
        calls.append(inputs)
        return objectives.cross_entropy(*inputs, TrainConfig())

    shape = decoder.config.feature_shape
    given = [decoders.batch(size, shape=shape)._asdict() for size in (2, 3, 4, 5)]
    given = [Batch(**{**batch, "ids": batch["ids"][:, :, : i + 3]}) for i, batch in enumerate(given)]
    shapes = Batch(
        tf.TensorSpec([None, *shape]), tf.TensorSpec([None, None, None], tf.int32), tf.TensorSpec([None], tf.int32)
    )
    batches = tf.data.Dataset.from_generator(lambda: given, output_signature=shapes)
    how = {"seed": 0, "clip_norm": 1.0, "jit_compile": jit_compile}
    update = make_update(decoder, keras.optimizers.SGD(0.1), objective, strategy, batches, **how)
    measure = make_measure(decoder, objective, strategy, batches)
    for step, batch in enumerate(strategy.experimental_distribute_dataset(batches)):
        update(batch, tf.constant(step, tf.int64), tf.constant(0.0))
        measure(batch)
    assert step == 3 and len(calls) == 2


@pytest.mark.slow
def test_xla_computes_the_same_update():
    """Without dropout: XLA draws other masks from a seed."""
    found = []
    for jit_compile in (False, True):
        decoder = decoders.make("two_layers")
        decoder.runs_whole_layers |= jit_compile
        batch = decoders.batch(4, shape=decoder.config.feature_shape)
        (given,) = batches = tf.data.Dataset.from_tensors(batch)
        update = make_update(
            decoder,
            keras.optimizers.SGD(0.1),
            functools.partial(objectives.cross_entropy, config=TrainConfig(label_smoothing=0.1)),
            tf.distribute.get_strategy(),
            batches,
            seed=5,
            clip_norm=1.0,
            jit_compile=jit_compile,
        )
        reported, _, _ = update(given, tf.constant(7, tf.int64), tf.constant(0.5))
        found.append((float(reported["loss"][0]), decoder.get_weights()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert largest_difference(found[0][1], found[1][1]) < 1e-4
