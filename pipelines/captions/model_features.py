"""The network that a model's features come from, with the weights that the model carries, or the same ones."""

from __future__ import annotations

import contextlib
import dataclasses

from pipelines.captions.captioning import ExtractedFeatures
from pipelines.settings.caption import Network
from pipelines.vision import extractors
from pipelines.vision.reading import Reading
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import FeatureSpec
from tfrecords_schema.manifests.model_info import ModelInfo
from tfrecords_schema.networks.registry import AUTO
from tfrecords_schema.storage import carried, files, paths


def features_of(
    model: str, info: ModelInfo, network: Network, reading: Reading, batch_size: int, at_once: bool = False
) -> tuple[ExtractedFeatures, FeatureSpec]:
    """Features as the model at this place was trained on, and what they are; no network is loaded.

    Args:
      batch_size, at_once: as of an Extractor.

    Raises:
      InputError: the weights are not there, or others; this version has no such network.
    """
    weights, digest = _weights(network.weights, info), ""
    if weights is None:
        weights, digest = paths.join(model, info.extractor), info.features.weights_digest
        _require_carried(weights, info)
    asked = network.precision
    if asked == AUTO:
        asked = "float32" if at_once else None  # for few images none is timed; for many it is settled later
    extractor = extractors.of_spec(info.features, weights, batch_size, asked, digest, at_once)
    spec = extractor.spec(info.features.dtype)
    spec.require_same(info.features, mine=f"--weights {weights}", theirs=f"--model {model}")
    if digest:
        spec = dataclasses.replace(spec, weights=info.features.weights)
    return ExtractedFeatures(
        extractor, dataclasses.replace(reading, resize=extractor.resize), info.features.dtype
    ), spec


def _weights(given: str | None, info: ModelInfo) -> str | None:
    """The weights to load: those asked for, else None for what the model carries, else those of its features.

    Raises:
      InputError: the model, of an earlier version, carries none, and they were a file, which is not where it was.
    """
    expected = info.features
    if given is None and info.extractor:
        return None
    if given is None and expected.weights not in ("imagenet", "random") and not _is_there(expected):
        kind = "SavedModel directory" if expected.extractor == extractors.SAVED_MODEL else "file"
        raise InputError(
            f"--weights: expected the {kind} {expected.weights!r} (digest {expected.weights_digest[:12]}…) that the "
            "model's features were made with, found no such file; give --weights FILE"
        )
    return given or expected.weights


def _require_carried(path: str, info: ModelInfo) -> None:
    """Raises InputError unless the weights that an export names are in it, and the right ones."""
    ways = "export it again, or give --weights FILE"
    local = carried.local_copy(path, info.features.weights_digest, "--model", ways)
    carried.require(local, info.features.weights_digest, path, "--model", ways)


def _is_there(spec: FeatureSpec) -> bool:
    """Whether there is something where the weights were; of what an earlier version wrote, only the name is known."""
    parts = ("saved_model.pb",) if spec.extractor == extractors.SAVED_MODEL else ()
    with contextlib.suppress(OSError, ValueError):  # a store that cannot be asked, or reached by this installation
        return paths.is_absolute(spec.weights) and files.exists(paths.join(spec.weights, *parts))
    return False
