"""From what pipelines.caption is asked for to what is to be done: which images, which network, model and search."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

from pipelines.captions import captioner, stored
from pipelines.captions.given_columns import GivenColumns, place_of, with_columns
from pipelines.captions.rows import ExtractedFeatures, FeatureMaker, RowMaker
from pipelines.captions.word_ids import word_ids
from pipelines.output.lifecycle import Options
from pipelines.settings.caption import CaptionConfig, Images
from pipelines.sources.image_sets import ImageSets
from pipelines.sources.table_columns import Columns
from pipelines.vision import extractors
from pipelines.vision.reading import Reading
from tfrecords_schema import __version__
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.manifests.dataset_info import FeatureSpec
from tfrecords_schema.manifests.model_info import ModelInfo
from tfrecords_schema.networks.registry import AUTO
from tfrecords_schema.storage import carried, files, paths

_OF_TABLES = ("uri_column", "image_column", "id_column", "metadata_columns", "prefix_column", "score_column")
_OF_IMAGES = ("root", *_OF_TABLES, "weights", "precision")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be captioned, and how.

    Attributes:
      source: of the images.
      features: where their features come from, `spec` what these are.
      options: what the table follows from.
      config: of the command.
    """

    source: ImageSets | stored.FeatureRecords
    features: FeatureMaker
    spec: FeatureSpec
    model: captioner.Captioner
    info: ModelInfo
    options: Options
    config: CaptionConfig

    def with_precision(self, settle: Callable[[extractors.Extractor, Reading], str]) -> Plan:
        """The same for features that are computed in the precision that `settle` gives, if any are computed."""
        if not isinstance(self.features, ExtractedFeatures):
            return self
        precision = settle(self.features.extractor, self.features.reading)
        extractor = dataclasses.replace(self.features.extractor, precision=precision)
        image = {**self.options.image, "precision": precision}
        return dataclasses.replace(
            self,
            features=dataclasses.replace(self.features, extractor=extractor),
            spec=dataclasses.replace(self.spec, precision=precision),
            options=dataclasses.replace(self.options, image=image),
        )

    def row_maker(self, further: list[tuple[str, Any]]) -> RowMaker:
        """What makes the shards; `further` are the names and Arrow types of columns that are carried along."""
        what, table = self.config.what, self.config.table
        columns = {
            name: place_of(f"{name}_column", getattr(what, f"{name}_column"), _carried(what), further)
            for name in ("prefix", "score")
        }
        given = GivenColumns(**columns)
        has_scores = given.score is not None
        schema = caption_table.schema(self._metadata(), further, table.attention, table.word_scores, has_scores)
        names = tuple(name for name, _ in further)
        return RowMaker(self.features, self.model, schema, names, table.word_scores, given)

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


def plan(config: CaptionConfig) -> Plan:
    """What a command line asks for; no image is read, and no model loaded.

    Raises:
      InputError: a flag, or the model, does not fit.
    """
    what, table = config.what, config.table
    info, vocabulary = captioner.open_model(config.model)
    search = config.search.resolved(info)
    if table.attention and info.decoder.get("attention", "none") == "none":
        raise InputError(f"--attention: expected a model with attention, found none in {config.model}; leave it out")
    if bool(what.images) == bool(what.features):
        found = "both" if what.images else "none"
        raise InputError(f"--images or --features: expected one of them, found {found}; see --help")
    parts = _of_features(config, what.features, info) if what.features else _of_images(config, info)
    source, features, spec, image = parts
    words = word_ids(search, vocabulary)
    if search.prefix and config.what.prefix_column:
        raise InputError("--prefix: expected it or --prefix_column, found both; leave one of them out")
    other = {
        "model": info.digest,
        **search.describe(),
        "forbid_words": list(words.forbidden),
        **source.describe(),
        "rows_per_file": table.rows_per_file,
        **{name: given for name in ("prefix_column", "score_column") if (given := getattr(config.what, name))},
        **{name: True for name in ("attention", "capitalise", "word_scores") if getattr(table, name)},
    }
    captioner.check_model(config.model, info)  # last, since it takes seconds
    model = captioner.Captioner(config.model, search, words, table.attention, table.capitalise)
    return Plan(source, features, spec, model, info, Options(image, other), config)


_Parts = tuple[ImageSets | stored.FeatureRecords, FeatureMaker, FeatureSpec, dict[str, Any]]


def _of_images(config: CaptionConfig, info: ModelInfo) -> _Parts:
    what, running = config.what, config.running
    if what.split:
        raise InputError("--split: expected --features beside it, found --images, which have no splits")
    weights, digest = _weights(config.network.weights, info), ""
    if weights is None:
        weights, digest = paths.join(config.model, info.extractor), info.features.weights_digest
        _require_carried(weights, info)
    asked = None if config.network.precision == AUTO else config.network.precision
    extractor = extractors.of_spec(info.features, weights, running.batch_size, asked, digest)
    spec = extractor.spec(info.features.dtype)
    spec.require_same(info.features, mine=f"--weights {weights}", theirs=f"--model {config.model}")
    if digest:
        spec = dataclasses.replace(spec, weights=info.features.weights)
    source = ImageSets(
        what.images,
        root=what.root,
        columns=Columns(what.uri_column, what.image_column, what.id_column, _carried(what)),
        excluding=config.output,
        limit=what.limit,
        rows_together=config.table.rows_per_file,
    )
    reading = Reading(running.read_threads, running.max_pixels, running.read_retries)
    features = ExtractedFeatures(extractor, reading, info.features.dtype)
    shaping = {"weights": spec.weights_digest, "precision": spec.precision, "max_pixels": running.max_pixels}
    return source, features, spec, shaping


def _carried(what: Images) -> tuple[str, ...]:
    return with_columns(what.metadata_columns, what.prefix_column, what.score_column)


def _of_features(config: CaptionConfig, directory: str, info: ModelInfo) -> _Parts:
    given = {**vars(config.what), **vars(config.network)}
    for name in _OF_IMAGES:
        if given[name]:
            raise InputError(f"--{name}: expected --images beside it, found --features; leave one of them out")
    stored_info = stored.open_features(directory)
    spec = stored_info.features
    spec.require_same(info.features, mine=f"--features {directory}", theirs=f"--model {config.model}")
    source = stored.FeatureRecords(directory, config.what.split, config.what.limit, config.table.rows_per_file)
    features = stored.StoredFeatures(
        spec.shape, spec.dtype, stored_info.images is not None, config.running.read_retries
    )
    return source, features, spec, {"weights": spec.weights_digest}


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
            "model's features were made with, found none there and no flag; give --weights FILE"
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
