"""The phases of a training: cross-entropy, then, if asked for, self-critical training."""

from __future__ import annotations

import dataclasses
import functools

import keras

from trainer.config import TrainConfig
from trainer.data import batches, dataset
from trainer.training import objectives
from trainer.training.cider_reward import CiderReward
from trainer.training.schedules import LearningRate, make_optimizer
from trainer.training.update import Objective

CROSS_ENTROPY = "cross_entropy"
SELF_CRITICAL = "self_critical"


@dataclasses.dataclass
class Phase:
    """What one phase minimises, on what, with which optimizer and for how long."""

    name: str
    epochs: int
    batches: batches.Batches
    objective: Objective
    optimizer: keras.optimizers.Optimizer
    learning_rate: LearningRate
    jit_compile: bool


def cross_entropy(directory: dataset.FeatureDirectory, config: TrainConfig, replicas: int) -> Phase:
    """Teacher forcing on the captions that people wrote."""
    made = cross_entropy_batches(directory, config, replicas)
    rate = _cross_entropy_rate(config, made.steps(0))
    optimizer = make_optimizer(config.optimizer, rate, config.weight_decay, config.momentum, config.nesterov)
    objective = functools.partial(objectives.cross_entropy, config=config)
    return Phase(CROSS_ENTROPY, config.epochs, made, objective, optimizer, rate, config.jit_compile)


def cross_entropy_batches(directory: dataset.FeatureDirectory, config: TrainConfig, replicas: int) -> batches.Batches:
    """What the first phase learns from."""
    return _batches(directory, config, config.batch_size, config.captions_per_epoch == "one", replicas)


def check(directory: dataset.FeatureDirectory, config: TrainConfig) -> None:
    """Raises InputError where the settings leave no step to train in; reads nothing."""
    _cross_entropy_rate(config, cross_entropy_batches(directory, config, 1).steps(0))


def _cross_entropy_rate(config: TrainConfig, steps: int) -> LearningRate:
    return LearningRate(
        config.schedule,
        config.learning_rate,
        steps * config.epochs,
        config.warmup_steps,
        max(1, round(steps * config.decay_epochs)),
        config.decay_factor,
    )


def self_critical(directory: dataset.FeatureDirectory, config: TrainConfig, replicas: int) -> Phase:
    """CIDEr of drawn captions against the greedy one's; document frequencies are those of the training captions."""
    images = max(1, config.batch_size // config.self_critical_samples)
    made = _batches(directory, config, images, True, replicas)
    rate = LearningRate("cosine", config.self_critical_rate, made.steps(0) * config.self_critical)
    optimizer = make_optimizer("adam", rate)
    objective = functools.partial(
        _self_critical,
        reward=CiderReward(batches.references(directory, "train")).reward,
        samples=config.self_critical_samples,
        max_steps=directory.info.max_caption_length - 1,
        baseline=config.self_critical_baseline,
        share=config.self_critical_xe,
    )
    # The reward is computed outside of TensorFlow, which XLA cannot compile.
    return Phase(SELF_CRITICAL, config.self_critical, made, objective, optimizer, rate, jit_compile=False)


BY_NAME = {CROSS_ENTROPY: cross_entropy, SELF_CRITICAL: self_critical}


def _self_critical(decoder, batch, seed, progress, **settings):
    return objectives.self_critical(decoder, batch, seed, **settings)


def _batches(directory, config: TrainConfig, size: int, one_caption: bool, replicas: int) -> batches.Batches:
    return batches.Batches(directory, "train", size, config.cache_gb * 1e9, config.seed, one_caption, replicas)
