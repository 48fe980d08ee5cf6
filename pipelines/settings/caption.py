"""What can be asked of `pipelines.caption`."""

from __future__ import annotations

import dataclasses

from pipelines.settings.running import Running
from pipelines.settings.search import Search
from tfrecords_schema.command import Settings, flags, group, setting, values
from tfrecords_schema.errors import InputError
from tfrecords_schema.networks.registry import AUTO, PRECISIONS

_IMAGES = (
    "quoted patterns ('photos/**.jpg'), directories, zip files; tar shards ('{00000..00099}.tar'); tables (CSV, TSV, "
    "JSONL, Parquet); a COCO JSON"
)
FORMATS = ("jsonl", "csv", "coco")
ON_SCREEN = "json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(Settings):
    """What is captioned: images, or stored features of them."""

    images: tuple[str, ...] = setting(_IMAGES, (), metavar="PLACE", reads="place")
    root: tuple[str, ...] = setting(
        "where names in tables lie (default: beside it)", (), metavar="PLACE", reads="place"
    )
    uri_column: str | None = setting("of a table, with names or URIs (default: guessed)", None, metavar="NAME")
    image_column: str | None = setting(
        "of a Parquet table, with bytes; of tar shards: the images' ending", None, metavar="NAME"
    )
    id_column: str | None = setting("of a table (default: image_id or id, if there is one)", None, metavar="NAME")
    metadata_columns: tuple[str, ...] = setting(
        "of a table, or endings and .json fields of tar shards, to be carried along into the output",
        (),
        metavar="NAME[=NEW]",
    )
    prefix_column: str | None = setting("of a table: what each image's captions begin with", None, metavar="NAME[=NEW]")
    score_column: str | None = setting(
        "of a table: captions whose log probability is wanted", None, metavar="NAME[=NEW]"
    )
    features: str | None = setting(
        "output of pipelines.features: captions it without the images", None, metavar="DIR", reads="folder"
    )
    split: str | None = setting("of --features (default: all)", None, metavar="NAME")
    limit: int | None = setting("only the first N images", None, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Settings):
    """How images become the features that the model was trained on."""

    weights: str | None = setting(
        "of the feature extractor; by default those that the model carries",
        None,
        metavar="imagenet|random|FILE",
    )
    precision: str | None = setting(
        "of the forward pass (default: as the model's features were made); auto: the fastest on this machine",
        None,
        choices=(AUTO, *PRECISIONS),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(Settings):
    """What the output holds, and in which formats."""

    format: tuple[str, ...] = setting(
        "beside Parquet; coco is COCO's results JSON; without --output json alone, a line an image",
        (),
        choices=(*FORMATS, ON_SCREEN),
    )
    attention: bool = setting("a column of where an attention model looked, by word", False)
    word_scores: bool = setting("the log probability of each word, in the column captions", False)
    capitalise: bool = setting("captions begin with a capital letter", False)
    rows_per_file: int = setting("images in an output file, about", 1000, least=1)


# What there is no sense in, or no place for, where captions are only printed.
_OF_OUTPUT = (
    "metadata_columns",
    "score_column",
    "rows_per_file",
    "max_reject_fraction",
    "accelerator",
    "gpu",
    "overwrite",
    "dry_run",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionConfig(Settings):
    """The whole of `python -m pipelines.caption`.

    Raises:
      InputError: also for flags that need --output, without it, and for those that need that there is none.
    """

    model: str = setting("export directory of the trainer", metavar="DIR", reads="folder")
    output: str | None = setting(
        "directory to write captions-*.parquet to; without it, captions of a few images are printed",
        None,
        metavar="DIR",
        writes="folder",
    )
    references: str | None = setting(
        "what people said, to be printed beside captions: any form that pipelines.features reads",
        None,
        metavar="FILE",
        reads="file",
    )
    what: Images = group(Images, "what to caption: --images, or --features")
    network: Network = group(Network, "the network")
    search: Search = group(Search, "captions, by beam search or --sample")
    table: Table = group(Table, "output")
    running: Running = group(Running, "running")
    dry_run: bool = setting("write nothing; tell what would be done, and how long it would take", False)

    def __post_init__(self):
        super().__post_init__()
        is_json, given = ON_SCREEN in self.table.format, values(self)
        if self.output is not None:
            for flag, is_given in (("references", self.references), (f"format {ON_SCREEN}", is_json)):
                if is_given:
                    raise InputError(f"--{flag}: expected it without --output, found both; leave one of them out")
            return
        defaults = {flag.name: flag.default for flag in flags(CaptionConfig)}
        needing = [name for name in _OF_OUTPUT if given[name] != defaults[name]]
        needing += [f"format {name}" for name in self.table.format if name in FORMATS]
        if needing:
            raise InputError(f"--{needing[0]}: expected --output DIR beside it, found none; captions are only printed")
        for name in ("attention", "word_scores"):
            if given[name] and not is_json:
                raise InputError(f"--{name}: expected --output DIR or --format {ON_SCREEN} beside it, found neither")
