"""From the flags of pipelines.caption to what is to be done: which images, which network, which model, which search."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
from typing import Any

from pipelines.captions import captioner, search, stored
from pipelines.captions.rows import ExtractedFeatures, FeatureMaker, RowMaker
from pipelines.output.lifecycle import Options
from pipelines.sources.image_sets import Columns, ImageSets
from pipelines.storage import files, paths
from pipelines.vision import extractors
from pipelines.vision.reading import Reading
from tfrecords_schema import __version__, caption_table
from tfrecords_schema.dataset_info import FeatureSpec
from tfrecords_schema.errors import InputError
from tfrecords_schema.model_info import ModelInfo

_OF_TABLES = ("uri_column", "image_column", "id_column", "metadata_columns")
_OF_IMAGES = ("root", *_OF_TABLES, "weights", "precision")


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be captioned, and how.

    Attributes:
      source: of the images.
      features: where their features come from, `spec` what these are.
      options: what the table follows from.
    """

    source: ImageSets | stored.FeatureRecords
    features: FeatureMaker
    spec: FeatureSpec
    model: captioner.Captioner
    info: ModelInfo
    options: Options

    def row_maker(self) -> RowMaker:
        """What makes the shards; to be called after `source.count()`, which checks the source."""
        further = self.source.metadata_fields()
        schema = caption_table.schema(self._metadata(), further, self.model.attention)
        return RowMaker(self.features, self.model, schema, tuple(name for name, _ in further))

    def _metadata(self) -> dict[str, str]:
        """The key-value metadata of the Parquet files."""
        versions = {name: _version(name) for name in ("apache-beam", "tensorflow")}
        return {
            "model_digest": self.info.digest,
            "search": json.dumps(self.model.search.describe()),
            "features": json.dumps(dataclasses.asdict(self.spec)),
            "versions": json.dumps({"batch-image-captioning": __version__, **versions}),
        }


def _version(name: str) -> str:
    for distribution in (name, f"{name}-cpu"):  # TensorFlow has other distributions of the same package
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return "unknown"


def plan(flags: dict[str, Any]) -> Task:
    """What the flags ask for; nothing but the model's and the features' descriptions is read.

    Raises:
      InputError: a flag, or the model, does not fit.
    """
    model = flags["model"]
    info, _ = captioner.open_model(model)
    names = (field.name for field in dataclasses.fields(search.Search))
    asked = search.resolve({name: flags[name] for name in names}, info)
    if flags["attention"] and info.decoder.get("attention", "none") == "none":
        raise InputError(f"--attention: expected a model with attention, found none in {model}; leave the flag out")
    if bool(flags["images"]) == bool(flags["features"]):
        found = "both" if flags["images"] else "none"
        raise InputError(f"--images or --features: expected one of them, found {found}; see --help")
    source, features, spec, image = (_of_features if flags["features"] else _of_images)(flags, info)
    other = {
        "model": info.digest,
        **asked.describe(),
        **source.describe(),
        "rows_per_file": flags["rows_per_file"],
        **{name: True for name in ("attention", "capitalise") if flags[name]},
    }
    loader = captioner.Captioner(model, asked, flags["attention"], flags["capitalise"])
    return Task(source, features, spec, loader, info, Options(image, other))


def _of_images(flags: dict[str, Any], info: ModelInfo) -> tuple[ImageSets, FeatureMaker, FeatureSpec, dict[str, Any]]:
    if flags["split"]:
        raise InputError("--split: expected --features beside it, found --images, which have no splits")
    weights = _weights(flags["weights"], info.features)
    extractor = extractors.of_spec(info.features, weights, flags["batch_size"], flags["precision"])
    spec = extractor.spec(info.features.dtype)
    spec.require_same(info.features, mine=f"--weights {weights}", theirs=f"--model {flags['model']}")
    uri, image, image_id, metadata = (flags[name] for name in _OF_TABLES)
    source = ImageSets(
        tuple(flags["images"]),
        root=tuple(flags["root"] or ()),
        columns=Columns(uri, image, image_id, tuple(metadata or ())),
        excluding=flags["output"],
        limit=flags["limit"],
    )
    features = ExtractedFeatures(extractor, Reading(flags["read_threads"], flags["max_pixels"]), info.features.dtype)
    max_pixels = flags["max_pixels"]
    return (
        source,
        features,
        spec,
        {
            "weights": spec.weights_digest,
            "precision": spec.precision,
            "max_pixels": max_pixels,
        },
    )


def _of_features(
    flags: dict[str, Any], info: ModelInfo
) -> tuple[stored.FeatureRecords, FeatureMaker, FeatureSpec, dict[str, Any]]:
    for name in _OF_IMAGES:
        if flags[name]:
            raise InputError(f"--{name}: expected --images beside it, found --features; leave one of them out")
    directory = flags["features"]
    spec = stored.open_features(directory).features
    spec.require_same(info.features, mine=f"--features {directory}", theirs=f"--model {flags['model']}")
    source = stored.FeatureRecords(directory, flags["split"], flags["limit"])
    return source, stored.StoredFeatures(spec.shape, spec.dtype), spec, {"weights": spec.weights_digest}


def _weights(given: str | None, expected: FeatureSpec) -> str:
    """The weights to load: those asked for, else those the model's features were made with.

    Raises:
      InputError: the model's were a file, which is not where it was.
    """
    if given is None and expected.weights not in ("imagenet", "random") and not _is_there(expected):
        kind = "SavedModel directory" if expected.extractor == extractors.SAVED_MODEL else "file"
        raise InputError(
            f"--weights: expected the {kind} {expected.weights!r} (digest {expected.weights_digest[:12]}…) that the "
            "model's features were made with, found none there and no flag; give --weights FILE"
        )
    return given or expected.weights


def _is_there(spec: FeatureSpec) -> bool:
    """Whether there is something where the weights were; of what an earlier version wrote, only the name is known."""
    parts = ("saved_model.pb",) if spec.extractor == extractors.SAVED_MODEL else ()
    with contextlib.suppress(OSError, ValueError):  # a store that cannot be asked, or reached by this installation
        return paths.is_absolute(spec.weights) and files.exists(paths.join(spec.weights, *parts))
    return False
