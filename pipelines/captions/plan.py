"""From what pipelines.caption is asked for to what is to be done: which images, which network, model and search."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.captions import captioner, exports, model_features, stored
from pipelines.captions.captioning import Captioning, ExtractedFeatures, FeatureMaker
from pipelines.captions.given_columns import GivenColumns, place_of, with_columns
from pipelines.captions.word_ids import word_ids
from pipelines.output.lifecycle import Options
from pipelines.settings.caption import CaptionConfig, Images
from pipelines.sources.image_sets import ImageSets
from pipelines.sources.table_columns import Columns
from pipelines.vision import extractors
from pipelines.vision.reading import Reading
from tfrecords_schema import __version__
from tfrecords_schema.command import values
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.manifests.features_info import FeatureSpec
from tfrecords_schema.manifests.model_info import ModelInfo

if TYPE_CHECKING:
    from pipelines.captions.rows import RowMaker

_OF_TABLES = ("uri_column", "image_column", "id_column", "metadata_columns", "prefix_column", "score_column")
_OF_MODELS = (
    "beam_width",
    "max_length",
    "min_length",
    "length_penalty",
    "forbid_unk",
)  # the defaults that follow from a model
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
        """This plan with features computed in the precision that `settle` gives, if any are computed."""
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

    def captioning(self, further: list[tuple[str, Any]]) -> Captioning:
        """What makes captions, not yet loaded; `further` as of `row_maker`."""
        what = self.config.what
        columns = {
            name: place_of(f"{name}_column", getattr(what, f"{name}_column"), _carried(what), further)
            for name in ("prefix", "score")
        }
        return Captioning(self.features, self.model, GivenColumns(**columns))

    def row_maker(self, further: list[tuple[str, Any]]) -> RowMaker:
        """What makes the shards; `further` are the names and Arrow types of columns that are carried along."""
        from pipelines.captions.rows import RowMaker  # and with it Beam, which a photo or two do without

        captioning, table = self.captioning(further), self.config.table
        has_scores = captioning.given.score is not None
        schema = caption_table.schema(self._metadata(), further, table.attention, table.word_scores, has_scores)
        return RowMaker(captioning, schema, tuple(name for name, _ in further), table.word_scores)

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
    info, vocabulary = exports.open_model(config.model)
    search = config.search.resolved(info)
    if table.attention and not exports.has_attention(info):
        raise InputError(f"--attention: expected a model with attention, found none in {config.model}; leave it out")
    if bool(what.images) == bool(what.features):
        found = "both" if what.images else "none"
        raise InputError(f"--images or --features: expected one of them, found {found}; see --help")
    parts = _of_features(config, what.features, info) if what.features else _of_images(config, info)
    source, features, spec, image = parts
    to_screen = functools.partial(print, file=None if config.output else sys.stderr, flush=True)
    words = word_ids(search, vocabulary, to_screen)
    if "forbid_unk" in info.search:  # its search is not as all others have it
        asked_for = ", ".join(f"{name} {value}" for name, value in search.describe().items() if name in _OF_MODELS)
        to_screen(f"search: {asked_for}; what no flag says is as the model has it")
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
    exports.check_model(config.model, info)  # last, since it takes seconds
    asked = (search, words, table.attention, table.capitalise, config.output is None)
    model = captioner.Captioner(config.model, *asked)
    return Plan(source, features, spec, model, info, Options(image, other, frozenset(values(config))), config)


_Parts = tuple[ImageSets | stored.FeatureRecords, FeatureMaker, FeatureSpec, dict[str, Any]]


def _of_images(config: CaptionConfig, info: ModelInfo) -> _Parts:
    what, running = config.what, config.running
    if what.split:
        raise InputError("--split: expected --features beside it, found --images, which have no splits")
    reading = Reading(running.read_threads, running.max_pixels, running.read_retries)
    given = (info, config.network, reading, running.batch_size, config.output is None)
    features, spec = model_features.features_of(config.model, *given)
    source = ImageSets(
        what.images,
        root=what.root,
        columns=Columns(what.uri_column, what.image_column, what.id_column, _carried(what)),
        excluding=config.output or "",
        limit=what.limit,
        rows_together=config.table.rows_per_file,
    )
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
