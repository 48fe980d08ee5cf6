"""All settings, as frozen dataclasses: flags are derived from their fields, and they are saved with every artefact."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from tfrecords_schema.errors import InputError

Config = TypeVar("Config")


def setting(
    default: Any,
    help: str,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    bare: Any = None,
) -> Any:
    """A field that is also a flag.

    Its default, its help text, the range or the choices it must be in, and what the flag means without a value (None:
    it must have one). A field that is False by default is a flag without a value.
    """
    metadata = {"help": help, "least": least, "most": most, "choices": choices or None, "bare": bare}
    return dataclasses.field(default=default, metadata=metadata)


class _Checked:
    """Checks every field that has a range; the message gives the field, what was expected and what was found."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least, most = getattr(self, field.name), field.metadata.get("least"), field.metadata.get("most")
            if least is not None and not value >= least:
                raise InputError(f"--{field.name}: expected at least {least}, found {value}")
            if most is not None and not value <= most:
                raise InputError(f"--{field.name}: expected at most {most}, found {value}")
            if (choices := field.metadata.get("choices")) and value not in choices:
                raise InputError(f"--{field.name}: expected one of {', '.join(choices)}, found {value}")


@dataclasses.dataclass(frozen=True)
class DecoderConfig(_Checked):
    """What a decoder is; enough to build it again. The first three follow from the data."""

    vocabulary_size: int
    max_length: int
    feature_shape: tuple[int, ...]
    cell: str = setting("lstm", "the recurrent cell", choices=("lstm", "gru"))
    layers: int = setting(1, "recurrent layers, one upon the other", least=1, most=3)
    units: int = setting(512, "numbers in a layer's state", 1, 65_536)
    embedding_dim: int = setting(512, "numbers in a word's embedding", 1, 65_536)
    image_input: str = setting(
        "first_word",
        "first_word: the image comes before the first word (Show and Tell); initial_state: dense and tanh make states",
        choices=("first_word", "initial_state"),
    )
    attention: str = setting(
        "none",
        "bahdanau: look at the positions of the feature grid before each word (Show, Attend and Tell)",
        choices=("none", "bahdanau"),
    )
    attention_units: int = setting(512, "numbers in which a state and a position are compared", 1, 65_536)
    tie_embeddings: bool = setting(False, "the output layer uses the word embeddings' weights")
    feature_scaling: str = setting(
        "standardise",
        "standardise: mean 0, deviation 1 over the training images; whiten: their principal components, likewise",
        choices=("none", "standardise", "whiten"),
    )
    image_dropout: float = setting(0.0, "share of the features dropped in training", least=0, most=0.95)
    embedding_dropout: float = setting(0.5, "share of the embeddings dropped in training", least=0, most=0.95)
    state_dropout: float = setting(
        0.0, "share of the recurrent weights dropped in training (AWD-LSTM's DropConnect)", least=0, most=0.95
    )
    output_dropout: float = setting(0.5, "share of the cells' output dropped in training", least=0, most=0.95)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "feature_shape", tuple(self.feature_shape))  # a list after JSON
        if len(self.feature_shape) not in (1, 2):
            raise InputError(f"--data: expected features [F] or [positions, F], found shape {self.feature_shape}")
        if self.attention != "none" and len(self.feature_shape) != 2:
            raise InputError(
                f"--attention {self.attention}: expected features [positions, F], found shape {self.feature_shape}; "
                "make them with pipelines.features --feature_grid"
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Checked):
    """How a decoder is trained."""

    batch_size: int = setting(128, "captions in a step, over all replicas", least=1)
    epochs: int = setting(20, "passes over the training images, at most", least=1)
    captions_per_epoch: str = setting(
        "all", "all: every caption once an epoch; one: a caption drawn for each image", choices=("all", "one")
    )
    cache_gb: float = setting(4.0, "memory for training data; more of it is read again in each epoch", least=0)
    optimizer: str = setting("adamw", "what turns gradients into updates", choices=("adam", "adamw", "rmsprop", "sgd"))
    learning_rate: float = setting(1e-3, "the highest learning rate of the schedule", 1e-9, 10)
    schedule: str = setting(
        "cosine",
        "how the learning rate falls: cosine to 0 over all epochs, exponential by half every --decay_epochs",
        choices=("constant", "cosine", "exponential"),
    )
    decay_epochs: float = setting(8.0, "epochs in which an exponential rate halves (Show and Tell: 8)", 1e-3, 1e6)
    warmup_steps: int = setting(0, "steps in which the learning rate rises from 0", least=0)
    weight_decay: float = setting(0.01, "AdamW's; it shrinks weights, but no biases", least=0, most=1)
    clip_norm: float = setting(5.0, "largest norm of the gradient of one step", 1e-9, 1e9)
    label_smoothing: float = setting(0.0, "share of probability that goes to all words alike", least=0, most=0.9)
    scheduled_sampling: float = setting(
        0.0, "share of words that the decoder reads from itself in the last epoch, rising from 0", least=0, most=1
    )
    attention_penalty: float = setting(
        1.0, "weight of Show, Attend and Tell's doubly stochastic penalty, with attention", least=0, most=1e6
    )
    pretrained_embeddings: str = setting("", "GloVe text file of word embeddings to start from")
    freeze_embeddings: bool = setting(False, "leave the pretrained embeddings as they are")
    self_critical: int = setting(
        0, "epochs of self-critical training (CIDEr as reward) after these; 10 without a number", least=0, bare=10
    )
    self_critical_rate: float = setting(5e-5, "learning rate of self-critical training", 1e-9, 10)
    self_critical_samples: int = setting(5, "captions drawn for an image in a self-critical step", least=1)
    self_critical_baseline: str = setting(
        "samples",
        "what a drawn caption must be better than: the mean of the other samples of its image, or the greedy one",
        choices=("greedy", "samples"),
    )
    mixed_precision: str = setting(
        "none",
        "multiply matrices in this type; bfloat16 without a value",
        choices=("none", "bfloat16", "float16"),
        bare="bfloat16",
    )
    jit_compile: bool = setting(False, "compile the training step with XLA")
    monitor: str = setting(
        "cider",
        "the validation figure that tells the best epoch",
        choices=("cider", "bleu_4", "meteor", "rouge_l", "val_loss"),
    )
    patience: int = setting(3, "validations without a better one before training stops", least=1)
    metrics_every: int = setting(
        1, "epochs from one validation with BLEU, METEOR, ROUGE-L and CIDEr to the next", least=1
    )
    beam_width: int = setting(3, "hypotheses in validation, and by default in captioning with the export", 1, 1000)
    length_penalty: float = setting(0.7, "GNMT's alpha, for both too; larger values favour longer captions", 0, 10)
    checkpoint_minutes: float = setting(10.0, "minutes from one checkpoint to the next", 1e-3)
    checkpoint_steps: int = setting(0, "steps from one checkpoint to the next, beside the minutes; 0: none", least=0)
    keep_checkpoints: int = setting(3, "latest checkpoints that are kept", least=1)
    seed: int = setting(0, "seed of initial weights, order and dropout", least=0, most=2**31 - 1)

    def __post_init__(self):
        super().__post_init__()
        if self.freeze_embeddings and not self.pretrained_embeddings:
            raise InputError("--freeze_embeddings: expected --pretrained_embeddings FILE beside it")
        if self.self_critical_baseline == "samples" and self.self_critical_samples < 2:
            raise InputError("--self_critical_samples: expected at least 2 for their mean as the baseline, found 1")


# Settings that do not change what is learned: a run may go on with others.
FREE_SETTINGS = ("checkpoint_minutes", "checkpoint_steps", "keep_checkpoints")


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """One flag for each field of a config that `setting` made."""
    for field in dataclasses.fields(config):
        if "help" not in field.metadata:
            continue
        name, text, metadata = f"--{field.name}", field.metadata["help"], field.metadata
        if field.default is False:
            parser.add_argument(name, action="store_true", help=text)
            continue
        shown = f" (default {field.default})" if field.default != "" else ""
        more = {} if metadata["bare"] is None else {"nargs": "?", "const": metadata["bare"]}
        parser.add_argument(
            name,
            type=type(field.default),
            default=field.default,
            choices=metadata["choices"],
            metavar=None if metadata["choices"] else {int: "N", float: "X", str: "FILE"}[type(field.default)],
            help=text.replace("%", "%%") + shown,
            **more,
        )


def from_flags(config: type[Config], flags: Mapping[str, Any], **given: Any) -> Config:
    """A config from the flags that `add_flags` added, and from what the data gives. Raises InputError."""
    names = {field.name for field in dataclasses.fields(config)}
    return config(**{name: value for name, value in flags.items() if name in names}, **given)


def dumps(*configs: Any) -> str:
    """Configs as one JSON object, by class name."""
    return json.dumps({type(c).__name__: dataclasses.asdict(c) for c in configs}, indent=2) + "\n"
