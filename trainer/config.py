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

    cell: str = setting("the recurrent cell", "lstm", choices=("lstm", "gru"))
    layers: int = setting("recurrent layers, one upon the other", 1, least=1, most=3)
    units: int = setting("numbers in a layer's state", 512, least=1, most=65_536)
    embedding_dim: int = setting("numbers in a word's embedding", 512, least=1, most=65_536)
    image_input: str = setting(
        "first_word: the image comes before the first word (Show and Tell); initial_state: its embedding makes each "
        "layer's first state, by a dense layer each; shared_state: one dense layer makes the first state of all layers",
        "first_word",
        choices=("first_word", "initial_state", "shared_state"),
    )
    attention: str = setting(
        "look at the positions of the feature grid. luong: with each state that is made, to say the next word; "
        "bahdanau: before it is made (Show, Attend and Tell), which is slower",
        "none",
        choices=("none", "bahdanau", "luong"),
    )
    attention_units: int = setting("numbers in which a state and a position are compared", 512, least=1, most=65_536)
    attention_heads: int = setting(
        "parts of these numbers that look each for themselves, with luong", 8, least=1, most=64
    )
    tie_embeddings: bool = setting("the output layer uses the word embeddings' weights", False)
    feature_scaling: str = setting(
        "standardise: mean 0, deviation 1 over the training images; whiten: their principal components, likewise",
        "standardise",
        choices=("none", "standardise", "whiten"),
    )
    image_dropout: float = setting("share of the features dropped in training", 0.0, least=0, most=0.95)
    embedding_dropout: float = setting("share of the embeddings dropped in training", 0.5, least=0, most=0.95)
    state_dropout: float = setting(
        "share of the recurrent weights dropped in training (AWD-LSTM's DropConnect)", 0.0, least=0, most=0.95
    )
    output_dropout: float = setting("share of the cells' output dropped in training", 0.5, least=0, most=0.95)


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

    batch_size: int = setting("captions in a step, over all replicas", 128, least=1)
    epochs: int = setting(
        "passes over the training images, at most; a run goes on with more of them, and the learning rate is then what "
        "it is at that step of a schedule over the new total (cosine: higher than where it had ended)",
        20,
        least=1,
    )
    captions_per_epoch: str = setting(
        "all: every caption once an epoch; one: a caption drawn for each image", "all", choices=("all", "one")
    )
    cache_gb: float = setting("memory for training data; more of it is read again in each epoch", 4.0, least=0)
    optimizer: str = setting("what turns gradients into updates", "adamw", choices=("adam", "adamw", "rmsprop", "sgd"))
    learning_rate: float = setting("the highest learning rate of the schedule", 1e-3, least=1e-9, most=10)
    schedule: str = setting(
        "how the learning rate falls: cosine to 0 over all epochs, exponential by a factor every --decay_epochs",
        "cosine",
        choices=("constant", "cosine", "exponential"),
    )
    decay_epochs: float = setting(
        "epochs after which an exponential rate falls (Show and Tell: 8)", 8.0, least=1e-3, most=1e6
    )
    decay_factor: float = setting("what it is multiplied by then", 0.5, least=1e-6, most=1)
    warmup_steps: int = setting("steps in which the learning rate rises from 0", 0, least=0)
    momentum: float = setting("of sgd; 0 for none, as Show and Tell", 0.9, least=0, most=0.9999)
    nesterov: bool = setting("sgd's momentum is Nesterov's", True)
    weight_decay: float = setting("AdamW's; it shrinks weights, but no biases", 0.01, least=0, most=1)
    clip_norm: float = setting("largest norm of the gradient of one step", 5.0, least=1e-9, most=1e9)
    label_smoothing: float = setting("share of probability that goes to all words alike", 0.0, least=0, most=0.9)
    scheduled_sampling: float = setting(
        "share of words that the decoder reads from itself in the last epoch, rising from 0", 0.0, least=0, most=1
    )
    attention_penalty: float = setting(
        "weight of Show, Attend and Tell's doubly stochastic penalty, with bahdanau", 1.0, least=0, most=1e6
    )
    pretrained_embeddings: str = setting(
        "GloVe text file of word embeddings to start from", "", metavar="FILE", reads="file"
    )
    freeze_embeddings: bool = setting("leave the pretrained embeddings as they are", False)
    fine_tune: str = setting(
        "afterwards, train the network that makes features too, from this layer to the top (mixed8), or all; takes "
        "features made with --store_images",
        "",
        metavar="LAYER",
    )
    fine_tune_epochs: int = setting("epochs of that, at most", 5, least=1)
    fine_tune_rate: float = setting("learning rate of the network in them", 1e-4, least=0, most=10)
    fine_tune_decoder_rate: float = setting("learning rate of the decoder in them", 1e-4, least=0, most=10)
    fine_tune_batch_size: int = setting("images in a step of them, each with its captions", 32, least=1)
    fine_tune_weight_decay: float = setting("AdamW's, of the network's kernels", 4e-5, least=0, most=1)
    fine_tune_batch_norm: bool = setting("train batch norms too, and measure each batch", False)
    augment: bool = setting("crop, flip and recolour images in them, each time in another way, as im2txt", False)
    init_from: str = setting(
        "export of trainer.task whose weights to start from; words that it lacks start as the mean of its words",
        "",
        metavar="EXPORT",
        reads="folder",
    )
    self_critical: int = setting(
        "epochs of self-critical training (CIDEr as reward) after these; 10 without a number; a run goes on with more, "
        "and may have them added",
        0,
        least=0,
        bare=10,
    )
    self_critical_rate: float = setting("learning rate of self-critical training", 5e-5, least=1e-9, most=10)
    self_critical_samples: int = setting("captions drawn for an image in a self-critical step", 5, least=1)
    self_critical_baseline: str = setting(
        "what a drawn caption must be better than: the mean of the other samples of its image, or the greedy one",
        "samples",
        choices=("greedy", "samples"),
    )
    self_critical_xe: float = setting(
        "share of cross-entropy with the captions that people wrote in the self-critical objective",
        0.0,
        least=0,
        most=1,
    )
    mixed_precision: str = setting(
        "multiply matrices in this type; bfloat16 without a value",
        "none",
        choices=("none", "bfloat16", "float16"),
        bare="bfloat16",
    )
    jit_compile: bool = setting("compile the training step with XLA", False)
    monitor: str = setting(
        "the validation figure that tells the best epoch",
        "cider",
        choices=("cider", "bleu_4", "meteor", "rouge_l", "val_loss"),
    )
    patience: int = setting(
        "validations without a better one before training stops; a run goes on with more", 3, least=1
    )
    metrics_every: int = setting(
        "epochs from one validation with BLEU, METEOR, ROUGE-L and CIDEr to the next", 1, least=1
    )
    beam_width: int = setting(
        "hypotheses in validation, and by default in captioning with the export", 3, least=1, most=1000
    )
    length_penalty: float = setting(
        "GNMT's alpha, for both too; larger values favour longer captions", 0.7, least=0, most=10
    )
    checkpoint_minutes: float = setting("minutes from one checkpoint to the next", 10.0, least=1e-3)
    checkpoint_steps: int = setting("steps from one checkpoint to the next, beside the minutes; 0: none", 0, least=0)
    keep_checkpoints: int = setting("latest checkpoints that are kept", 3, least=1)
    seed: int = setting("seed of initial weights, order and dropout", 0, least=0, most=2**31 - 1)

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
            raise InputError("--self_critical_samples: expected at least 2 for their mean as the baseline, found 1")

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
