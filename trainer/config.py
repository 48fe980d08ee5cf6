"""All settings of training, as frozen dataclasses: they are flags, and are saved with every artefact."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderSettings(Settings):
    """What of a decoder can be chosen."""

    cell: str = setting("type of the recurrent cell", "lstm", choices=("lstm", "gru"))
    layers: int = setting("number of recurrent layers", 1, least=1, most=3)
    units: int = setting("size of each recurrent layer", 512, least=1, most=65_536)
    embedding_dim: int = setting("size of the word embeddings", 512, least=1, most=65_536)
    image_input: str = setting(
        "how the image enters the decoder; first_word: before the first word (Show and Tell); initial_state: a dense "
        "layer for each recurrent layer makes its first state from the image's embedding; shared_state: one dense "
        "layer makes the first state of all of them from the features",
        "first_word",
        choices=("first_word", "initial_state", "shared_state"),
    )
    attention: str = setting(
        "attention over the positions of a feature grid; luong: after each recurrent step; bahdanau: before each step "
        "(Show, Attend and Tell), which is slower",
        "none",
        choices=("none", "bahdanau", "luong"),
    )
    attention_units: int = setting("size of the space in which attention compares", 512, least=1, most=65_536)
    attention_heads: int = setting("heads of --attention luong", 8, least=1, most=64)
    tie_embeddings: bool = setting("share the weights of the word embeddings with the output layer", False)
    feature_scaling: str = setting(
        "scaling of the features, measured on the training images; standardise: mean 0 and deviation 1; whiten: their "
        "principal components with like variance",
        "standardise",
        choices=("none", "standardise", "whiten"),
    )
    image_dropout: float = setting("dropout rate of the image features", 0.0, heading="dropout", least=0, most=0.95)
    embedding_dropout: float = setting("dropout rate of the word embeddings", 0.5, least=0, most=0.95)
    state_dropout: float = setting(
        "dropout rate of the recurrent weights, as AWD-LSTM's DropConnect", 0.0, least=0, most=0.95
    )
    output_dropout: float = setting("dropout rate of the recurrent layers' output", 0.5, least=0, most=0.95)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(DecoderSettings):
    """What a decoder is, enough to build it again: its settings, and what follows from the data."""

    vocabulary_size: int
    max_length: int
    feature_shape: tuple[int, ...]

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
        for name in ("attention_units", "embedding_dim"):
            if self.attention == "luong" and (size := getattr(self, name)) % self.attention_heads:
                found = self.attention_heads
                raise InputError(f"--attention_heads: expected a divisor of --{name} {size}, found {found}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """How a decoder is trained."""

    batch_size: int = setting("captions in one step, over all devices together", 128, least=1)
    epochs: int = setting(
        "passes over the training images at most; a finished run continues if you raise it, with the learning rate of "
        "the new total's schedule",
        20,
        least=1,
    )
    captions_per_epoch: str = setting(
        "captions of an image in each epoch; all: every one; one: one drawn at random", "all", choices=("all", "one")
    )
    cache_gb: float = setting(
        "memory for training data in GB; data that does not fit is read again in each epoch", 4.0, least=0
    )
    optimizer: str = setting("optimizer", "adamw", heading="optimizer", choices=("adam", "adamw", "rmsprop", "sgd"))
    learning_rate: float = setting("highest learning rate of the schedule", 1e-3, least=1e-9, most=10)
    schedule: str = setting(
        "how the learning rate falls; cosine: to 0 over all epochs; exponential: every --decay_epochs",
        "cosine",
        choices=("constant", "cosine", "exponential"),
    )
    decay_epochs: float = setting(
        "epochs between two falls of an exponential schedule, as in Show and Tell", 8.0, least=1e-3, most=1e6
    )
    decay_factor: float = setting(
        "factor of the learning rate at each fall of an exponential schedule", 0.5, least=1e-6, most=1
    )
    warmup_steps: int = setting("steps in which the learning rate rises from 0 at the beginning", 0, least=0)
    momentum: float = setting("momentum of sgd; 0 for none, as in Show and Tell", 0.9, least=0, most=0.9999)
    nesterov: bool = setting("use Nesterov's momentum with sgd", True)
    weight_decay: float = setting("weight decay of adamw; biases are left out", 0.01, least=0, most=1)
    clip_norm: float = setting("largest norm of the gradient of one step", 5.0, least=1e-9, most=1e9)
    label_smoothing: float = setting(
        "share of the target probability that is spread over all words", 0.0, heading="loss", least=0, most=0.9
    )
    scheduled_sampling: float = setting(
        "share of input words that the decoder draws itself in the last epoch; it rises from 0", 0.0, least=0, most=1
    )
    attention_penalty: float = setting(
        "weight of the doubly stochastic penalty of Show, Attend and Tell, with --attention bahdanau",
        1.0,
        least=0,
        most=1e6,
    )
    pretrained_embeddings: str = setting(
        "word embeddings to start from: a text file in GloVe's format",
        "",
        heading="starting weights",
        metavar="FILE",
        reads="file",
    )
    freeze_embeddings: bool = setting("keep the embeddings of --pretrained_embeddings as they are", False)
    fine_tune: str = setting(
        "after the epochs above, train the feature network too, from this layer to the top (such as mixed8), or all of "
        "it (all); needs features made with --store_images",
        "",
        heading="fine-tuning the feature network",
        metavar="LAYER",
    )
    fine_tune_epochs: int = setting("epochs of fine-tuning at most", 5, least=1)
    fine_tune_rate: float = setting("learning rate of the feature network in fine-tuning", 1e-4, least=0, most=10)
    fine_tune_decoder_rate: float = setting("learning rate of the decoder in fine-tuning", 1e-4, least=0, most=10)
    fine_tune_batch_size: int = setting("images in one step of fine-tuning, each with its captions", 32, least=1)
    fine_tune_weight_decay: float = setting(
        "AdamW's weight decay of the feature network's kernels in fine-tuning", 4e-5, least=0, most=1
    )
    fine_tune_batch_norm: bool = setting(
        "train the batch norms too in fine-tuning, and let them measure each batch", False
    )
    augment: bool = setting("crop, flip and recolour the images of fine-tuning at random, as im2txt does", False)
    init_from: str = setting(
        "export of trainer.task whose weights to start from; words that are new to it start as the mean of its words",
        "",
        heading="starting weights",
        metavar="EXPORT",
        reads="folder",
    )
    self_critical: int = setting(
        "epochs of self-critical training, with CIDEr as the reward, after all others; 10 if you give no number",
        0,
        heading="self-critical training",
        least=0,
        bare=10,
    )
    self_critical_rate: float = setting("learning rate of self-critical training", 5e-5, least=1e-9, most=10)
    self_critical_samples: int = setting("captions drawn for each image in self-critical training", 5, least=1)
    self_critical_baseline: str = setting(
        "reward that a drawn caption is compared with; samples: the mean of the image's other drawn captions; greedy: "
        "that of its greedy caption",
        "samples",
        choices=("greedy", "samples"),
    )
    self_critical_xe: float = setting(
        "share of the self-critical loss that is cross-entropy with captions that people wrote",
        0.0,
        least=0,
        most=1,
    )
    mixed_precision: str = setting(
        "number type of matrix products; bfloat16 if you give no value",
        "none",
        heading="speed",
        choices=("none", "bfloat16", "float16"),
        bare="bfloat16",
    )
    jit_compile: bool = setting("compile the training step with XLA", False)
    monitor: str = setting(
        "validation figure that decides which epoch is the best",
        "cider",
        heading="validation",
        choices=("cider", "bleu_4", "meteor", "rouge_l", "val_loss"),
    )
    patience: int = setting(
        "validations without a better epoch before training stops; a stopped run continues if you raise it", 3, least=1
    )
    metrics_every: int = setting(
        "epochs from one validation with BLEU, METEOR, ROUGE-L and CIDEr to the next", 1, least=1
    )
    beam_width: int = setting(
        "beam width of validation; the export carries it as the default of pipelines.caption", 3, least=1, most=1000
    )
    length_penalty: float = setting(
        "exponent of the length penalty in validation and, by default, of the export; larger values favour longer "
        "captions",
        0.7,
        least=0,
        most=10,
    )
    checkpoint_minutes: float = setting(
        "minutes from one checkpoint to the next", 10.0, heading="checkpoints", least=1e-3
    )
    checkpoint_steps: int = setting(
        "steps from one checkpoint to the next, in addition to --checkpoint_minutes; 0 for none", 0, least=0
    )
    keep_checkpoints: int = setting("number of checkpoints to keep", 3, least=1)
    seed: int = setting(
        "random seed of the initial weights, the order of the data, dropout and sampling",
        0,
        heading="training",
        least=0,
        most=2**31 - 1,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.freeze_embeddings and not self.pretrained_embeddings:
            raise InputError("--freeze_embeddings: expected --pretrained_embeddings FILE beside it")
        for name in ("fine_tune_batch_norm", "augment"):
            if getattr(self, name) and not self.fine_tune:
                raise InputError(f"--{name}: expected --fine_tune LAYER beside it; leave it out")
        if self.init_from and self.pretrained_embeddings:
            raise InputError(
                f"--pretrained_embeddings: expected none beside --init_from, found {self.pretrained_embeddings}"
            )
        if self.self_critical_baseline == "samples" and self.self_critical_samples < 2:
            raise InputError(
                "--self_critical_samples: expected at least 2 with --self_critical_baseline samples, found 1"
            )

    @property
    def precision(self) -> str:
        """That matrices are multiplied in, as the registry of networks names it."""
        return "float32" if self.mixed_precision == "none" else self.mixed_precision


# Settings that do not change what is learned: a run may go on with others.
FREE_SETTINGS = ("checkpoint_minutes", "checkpoint_steps", "keep_checkpoints")
# The phases of a run, in order, and of each the setting that says how many epochs it has.
PHASES = {"cross_entropy": "epochs", "fine_tuning": "fine_tune_epochs", "self_critical": "self_critical"}
# Settings that say when to stop: a run may go on with more of them.
GROWING_SETTINGS = ("patience", *PHASES.values())


def defaults() -> dict[str, Any]:
    """The settings that have a default, by name."""
    fields = [*dataclasses.fields(DecoderConfig), *dataclasses.fields(TrainConfig)]
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def dumps(*configs: Any) -> str:
    """Configs as one JSON object, by class name."""
    return json.dumps({type(c).__name__: dataclasses.asdict(c) for c in configs}, indent=2) + "\n"
