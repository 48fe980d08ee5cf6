"""All settings, as frozen dataclasses: flags are derived from their fields, and they are saved with every artefact."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any, TypeVar

from tfrecords_schema.errors import InputError

Config = TypeVar("Config")


def setting(
    default: Any, help: str, least: float | None = None, most: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A field that is also a flag: its default, its help text, and the range or the choices it must be in."""
    return dataclasses.field(
        default=default, metadata={"help": help, "least": least, "most": most, "choices": choices or None}
    )


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
    embedding_dim: int = setting(512, "numbers in a word's embedding", least=1)
    units: int = setting(512, "numbers in the LSTM's state", least=1)
    feature_scaling: str = setting(
        "standardise",
        "standardise: mean 0, deviation 1 over the training images; whiten: their principal components, likewise",
        choices=("none", "standardise", "whiten"),
    )
    dropout: float = setting(0.5, "share of embeddings and LSTM outputs dropped in training", least=0, most=0.95)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "feature_shape", tuple(self.feature_shape))  # a list after JSON
        if len(self.feature_shape) not in (1, 2):
            raise InputError(f"--data: expected features [F] or [positions, F], found shape {self.feature_shape}")


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Checked):
    """How a decoder is trained."""

    batch_size: int = setting(128, "captions in a step, over all replicas", least=1)
    epochs: int = setting(20, "passes over all captions, at most", least=1)
    learning_rate: float = setting(1e-3, "at the start; falls to zero along a cosine over all epochs", 1e-9, 10)
    weight_decay: float = setting(0.01, "of AdamW", least=0, most=1)
    clip_norm: float = setting(5.0, "largest norm of the gradient of one step", 1e-9, 1e9)
    patience: int = setting(3, "epochs without a better validation loss before training stops", least=1)
    seed: int = setting(0, "of initial weights, shuffling and dropout", least=0, most=2**32 - 1)


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """One flag for each field of a config that `setting` made."""
    for field in dataclasses.fields(config):
        if "help" in field.metadata:
            kind = type(field.default)
            text = f"{field.metadata['help']} (default {field.default})"
            choices = field.metadata["choices"]
            parser.add_argument(f"--{field.name}", type=kind, default=field.default, choices=choices, help=text)


def from_flags(config: type[Config], flags: dict[str, Any], **given: Any) -> Config:
    """A config from the flags that `add_flags` added, and from what the data gives. Raises InputError."""
    names = {field.name for field in dataclasses.fields(config)}
    return config(**{name: value for name, value in flags.items() if name in names}, **given)


def dumps(*configs: Any) -> str:
    """Configs as one JSON object, by class name."""
    return json.dumps({type(c).__name__: dataclasses.asdict(c) for c in configs}, indent=2) + "\n"
