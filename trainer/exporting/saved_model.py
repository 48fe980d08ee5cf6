"""A decoder and its search -> a SavedModel that needs no Python of ours, with vocabulary.txt and model_info.json."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import tempfile
from typing import TYPE_CHECKING

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import CARRIED, VOCABULARY
from tfrecords_schema.manifests.model_info import MODEL_INFO, ModelInfo, model_digest
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import carried, files, finding, objects, paths
from tfrecords_schema.vocabulary import Vocabulary

if TYPE_CHECKING:
    from trainer.model.decoder import Decoder
    from trainer.search.caption_module import CaptionModule, Ensemble

_OURS = {"saved_model.pb", "fingerprint.pb", "variables", "assets", VOCABULARY, MODEL_INFO, CARRIED}
_OURS |= {f".{name}.tmp" for name in (VOCABULARY, MODEL_INFO)}  # what a kill may leave


def require_free(output: str, overwrite: bool) -> None:
    """Raises InputError where `--output` has something that is not ours, or, unless it is to be replaced, an export."""
    require_ours("--output", output)
    if names_in(output) and not overwrite:
        raise InputError(f"--output: {output} exists; give --overwrite, or another directory")


def write_output(
    decoder: Decoder | Ensemble, vocabulary: Vocabulary, info: ModelInfo, output: str, weights_in: str
) -> ModelInfo:
    """As `write`. Raises InputError where `--output` cannot be written."""
    tf = import_tensorflow()
    try:
        return write(decoder, vocabulary, info, output, weights_in)
    except (OSError, tf.errors.OpError) as error:
        raise unwritable(output, error) from None


def write(
    decoder: Decoder | Ensemble, vocabulary: Vocabulary, info: ModelInfo, export_dir: str, weights_in: str = ""
) -> ModelInfo:
    """Writes `export_dir`, in one step: it is there whole or not at all. Returns `info` with the model's digest.

    A remote one is whole when it has its model_info.json. The extractor's weights that `info` names are copied from
    `weights_in`, a feature directory or another export.

    It has three signatures; see caption_module.py. Two give ids and word_log_prob `[B, K, T]`, log_prob and length
    `[B, K]`:
      caption: features `[B, ...]` float32; beam_width, max_length, beam_groups int32; length_penalty and
        diversity_penalty float32;
      sample: features `[B, ...]`, uniform `[B, K, T]`, temperature and top_p float32;
    both also take min_length and no_repeat_ngram int32, forbid_unk bool, forbidden `[F]` and prefix `[B, P]` int32.
      score: features `[B, ...]`, ids `[B, T]` int32 -> word_log_prob `[B, T]`.
    """
    from trainer.search.caption_module import CaptionModule

    module = CaptionModule(decoder, bool(info.search.get("ends_each")))
    weights = (weight.numpy() for weight in module.weights)
    info = dataclasses.replace(info, digest=model_digest(weights, info.decoder, vocabulary.digest))
    if paths.is_remote(export_dir):
        with tempfile.TemporaryDirectory(prefix="captioning-") as making:
            _save(module, vocabulary, info, making, weights_in)
            _publish(making, export_dir)
        return info
    making, old = _beside(export_dir)
    files.delete(making, old)
    _save(module, vocabulary, info, making, weights_in)
    # Moved away and not deleted: half of an export must never have its name.
    if os.path.lexists(export_dir):
        os.rename(export_dir, old)
    os.rename(making, export_dir)
    files.delete(old)
    return info


def _save(module: CaptionModule, vocabulary: Vocabulary, info: ModelInfo, directory: str, weights_in: str) -> None:
    tf = import_tensorflow()
    tf.saved_model.save(
        module, directory, signatures={name: getattr(module, name) for name in ("caption", "sample", "score")}
    )
    if name := info.extractor:
        ways = "put them back, or make features and exports again"
        target = os.path.join(directory, name)
        carried.bring(paths.join(weights_in, name), target, info.features.weights_digest, weights_in, ways)
    files.replace(directory, {VOCABULARY: vocabulary.dumps().encode(), MODEL_INFO: info.dumps().encode()})


def _publish(making: str, uri: str) -> None:
    """Replaces a remote export: readers look for model_info.json first, so it goes first and comes last."""
    paths = [os.path.join(folder, name) for folder, _, found in os.walk(making) for name in found]
    names = [os.path.relpath(path, making) for path in paths]
    names = [name for name in sorted(names) if name != MODEL_INFO] + [MODEL_INFO]
    old = finding.names_below(uri)
    objects.delete([posixpath.join(uri, MODEL_INFO)])
    objects.delete(posixpath.join(uri, name) for name in old if name not in names)
    for name in names:
        local, remote = os.path.join(making, name), posixpath.join(uri, name)
        # Weights that are there have come whole, and their name says which.
        if not (name.startswith(f"{CARRIED}/") and files.size(remote) == os.path.getsize(local)):
            files.upload(local, remote)


def require_ours(flag: str, directory: str) -> None:
    """Raises InputError where `write` would replace something that it did not write."""
    beside = () if paths.is_remote(directory) else _beside(directory)
    for place in (directory, *beside):
        try:
            names = names_in(place)
        except OSError as error:
            told = files.reason(error)
            raise InputError(f"{flag}: expected a directory that can be written to, found {place}: {told}") from None
        # Of a remote export that was not sent to its end, model_info.json is not there yet; of one beside, never.
        is_whole = MODEL_INFO in names or paths.is_remote(place) or place in beside
        if names and (names - _OURS or not is_whole):
            found = min(names - _OURS, default=f"no {MODEL_INFO}")
            raise InputError(f"{flag}: expected an export or nothing in {place}, found {found}; give another directory")


def names_in(directory: str) -> set[str]:
    """The names of the files and directories directly in a directory; none where it does not exist."""
    if paths.is_remote(directory):
        return {name.split("/")[0] for name in finding.names_below(directory)}
    if not os.path.exists(directory):
        return set()
    return set(os.listdir(directory)) if os.path.isdir(directory) else {"no directory"}


def _beside(export_dir: str) -> tuple[str, str]:
    """Where an export is made, and where the one before it goes to be deleted."""
    parent, name = os.path.split(export_dir.rstrip("/"))
    return os.path.join(parent, f".{name}.making"), os.path.join(parent, f".{name}.old")


def unwritable(output: str, error: Exception) -> InputError:
    """What to raise where `--output` cannot be written."""
    told = files.reason(error)
    return InputError(f"--output: expected a directory that can be written, found {output}: {told}")
