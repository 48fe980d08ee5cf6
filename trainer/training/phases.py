"""The phases of a training: cross-entropy, then, if asked for, fine-tuning and self-critical training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras

from trainer.config import PHASES, TrainConfig
from trainer.data import batches, dataset
from trainer.data.image_batches import ImageBatches
from trainer.model.decoder import Decoder
from trainer.training import fine_tuning as tuned
from trainer.training import objectives
from trainer.training.cider_reward import CiderReward
from trainer.training.fine_tuning import Check, Tuning
from trainer.training.schedules import LearningRate, SideBySide, make_optimizer
from trainer.training.update import Objective

CROSS_ENTROPY, FINE_TUNING, SELF_CRITICAL = PHASES


@dataclasses.dataclass
class Phase:
    """What one phase minimises, on what, with which optimizer and for how long.

    Attributes:
      learner: what learns: the decoder, or a fine_tuning.Learner.
      begin: what is to be done before the first batch.
      before_validation: what is to be done at the end of each epoch, before anything is measured.
    """

    name: str
    epochs: int
    batches: batches.Batches | ImageBatches
    objective: Objective
    optimizer: keras.optimizers.Optimizer | SideBySide
    learning_rate: LearningRate
    jit_compile: bool
    learner: Any
    begin: Callable[[Check], None] = lambda check: None
    before_validation: Callable[[Check], None] = lambda check: None


def cross_entropy(directory: dataset.FeatureDirectory, config: TrainConfig, replicas: int, decoder: Decoder) -> Phase:
    """Teacher forcing on the captions that people wrote."""
    made = cross_entropy_batches(directory, config, replicas)
    rate = _cross_entropy_rate(config, made.steps(0))
    optimizer = make_optimizer(config.optimizer, rate, config.weight_decay, config.momentum, config.nesterov)
    objective = functools.partial(objectives.cross_entropy, config=config)
    return Phase(CROSS_ENTROPY, config.epochs, made, objective, optimizer, rate, config.jit_compile, decoder)


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


def fine_tuning(directory: dataset.FeatureDirectory, config: TrainConfig, replicas: int, tuning: Tuning) -> Phase:
    """Teacher forcing on images in place of features: CNN and decoder learn together, each at its own rate."""
    made = ImageBatches(
        directory,
        "train",
        config.fine_tune_batch_size,
        config.cache_gb * 1e9,
        config.seed,
        tuning.learner.cnn.size,
        config.captions_per_epoch == "one",
        config.augment,
        multiple=replicas,
    )
    steps = made.steps(0) * config.fine_tune_epochs
    rate = LearningRate("cosine", config.fine_tune_decoder_rate, steps)
    optimizer = SideBySide(
        make_optimizer(config.optimizer, rate, config.weight_decay, config.momentum, config.nesterov),
        make_optimizer("adamw", LearningRate("cosine", config.fine_tune_rate, steps), config.fine_tune_weight_decay),
        len(tuning.learner.decoder.trainable_variables),
    )

    def begin(check: Check) -> None:
        tuning.introduce()
        if tuning.keeps_train:
            made.kept = tuning.kept("train", check)

    objective = functools.partial(tuned.objective, config=config)
    phase = Phase(
        FINE_TUNING, config.fine_tune_epochs, made, objective, optimizer, rate, config.jit_compile, tuning.learner
    )
    return dataclasses.replace(phase, begin=begin, before_validation=tuning.remake_validation)


def self_critical(
    directory: dataset.FeatureDirectory, config: TrainConfig, replicas: int, decoder: Decoder, tuning: Tuning | None
) -> Phase:
    """CIDEr of drawn captions against the greedy one's; document frequencies are those of the training captions.

    After fine-tuning, all features are made anew before it begins.
    """
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
    phase = Phase(SELF_CRITICAL, config.self_critical, made, objective, optimizer, rate, False, decoder)
    return dataclasses.replace(phase, begin=tuning.remake_all) if tuning else phase


def make(
    name: str,
    directory: dataset.FeatureDirectory,
    config: TrainConfig,
    replicas: int,
    decoder: Decoder,
    tuning: Tuning | None,
) -> Phase:
    """The phase of a name; `tuning` where the network is to be trained too."""
    if name == CROSS_ENTROPY:
        return cross_entropy(directory, config, replicas, decoder)
    if name == SELF_CRITICAL:
        return self_critical(directory, config, replicas, decoder, tuning)
    assert tuning
    return fine_tuning(directory, config, replicas, tuning)


def names(config: TrainConfig) -> list[str]:
    """The phases that are asked for, in order."""
    return [CROSS_ENTROPY] + [FINE_TUNING] * bool(config.fine_tune) + [SELF_CRITICAL] * bool(config.self_critical)


def _self_critical(decoder, batch, seed, progress, **settings):
    return objectives.self_critical(decoder, batch, seed, **settings)


def _batches(directory, config: TrainConfig, size: int, one_caption: bool, replicas: int) -> batches.Batches:
    return batches.Batches(directory, "train", size, config.cache_gb * 1e9, config.seed, one_caption, replicas)
