"""An export directory of the trainer, without loading the model: what it says of itself, and whether it is so."""

from __future__ import annotations

from pipelines.storage import saved_models
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import CARRIED
from tfrecords_schema.manifests.model_info import ModelInfo, open_export, read_weights
from tfrecords_schema.storage import copies, files, paths
from tfrecords_schema.vocabulary import Vocabulary

# What the signatures take and give; model_info.json's schema version stands for them.
_CONSTRAINTS = {"min_length", "no_repeat_ngram", "forbid_unk", "forbidden", "prefix"}
_BEAMS = {"beam_width", "max_length", "length_penalty", "beam_groups", "diversity_penalty"}
_INPUTS = {
    "caption": {"features", *_BEAMS, *_CONSTRAINTS},
    "sample": {"features", "uniform", "temperature", "top_p", *_CONSTRAINTS},
    "score": {"features", "ids"},
}
_FOUND = {"ids", "log_prob", "length", "word_log_prob"}
_OUTPUTS = {"caption": _FOUND, "sample": _FOUND, "score": {"word_log_prob"}}


def open_model(directory: str) -> tuple[ModelInfo, Vocabulary]:
    """Reads what an export directory says of itself, without loading the model.

    Raises:
      InputError: it is no export directory, or its texts do not belong together.
    """
    info, vocabulary = open_export(directory, files.read_text, "--model")
    if not files.exists(paths.join(directory, saved_models.FILE)):
        told = f"expected an export directory with saved_model.pb, found none in {directory}; export the model again"
        raise InputError(f"--model: {told}")
    return info, vocabulary


def has_attention(info: ModelInfo) -> bool:
    """Whether a model tells where it looks."""
    return info.decoder.get("attention", "none") != "none"


def check_model(directory: str, info: ModelInfo) -> None:
    """Whether the SavedModel of an export directory is what its description says, as far as can be told unloaded.

    Raises:
      InputError: its file is damaged, or has other signatures, or its weights are others.
    """
    where = f"--model: {directory}"
    signatures = saved_models.signatures(directory, where)
    for name, given in _INPUTS.items():
        if name not in signatures:
            found = ", ".join(sorted(signatures)) or "none"
            raise InputError(
                f"{where}: expected a SavedModel with the signature {name}, found {found}; export it again"
            )
        inputs, outputs = (saved_models.shapes(of) for of in (signatures[name].inputs, signatures[name].outputs))
        if set(inputs) != given or not outputs.keys() >= _OUTPUTS[name]:
            found = f"{', '.join(inputs)} and {', '.join(outputs)}"
            expected = f"{', '.join(sorted(given))} and {', '.join(sorted(_OUTPUTS[name]))}"
            raise InputError(
                f"{where}: expected inputs and outputs of {name}: {expected}, found {found}; export it again"
            )
        if tuple(inputs["features"][1:]) != info.features.shape:
            raise InputError(
                f"{where}: expected {name} to take features [batch, {', '.join(map(str, info.features.shape))}], found "
                f"{inputs['features']}; export it again"
            )
    read_weights(copies.local_copy(directory, but=CARRIED), info, where)
