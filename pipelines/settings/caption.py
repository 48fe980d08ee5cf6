"""What can be asked of `pipelines.caption`."""

from __future__ import annotations

import dataclasses

from pipelines.settings.running import OUTPUT, Running, check_output
from pipelines.settings.search import Search
from tfrecords_schema.command import Settings, flags, group, setting, values
from tfrecords_schema.errors import InputError
from tfrecords_schema.networks.registry import AUTO, PRECISIONS

_IMAGES = (
    "images to caption: directories, zip files, quoted patterns ('photos/**.jpg'), tar shards ('{00000..00099}.tar'), "
    "tables of image names (CSV, TSV, JSONL, Parquet), Parquet with images in it, or a COCO JSON"
)
FORMATS = ("jsonl", "csv", "coco")
ON_SCREEN = "json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(Settings):
    """What is captioned: images, or stored features of them."""

    images: tuple[str, ...] = setting(_IMAGES, (), metavar="PLACE", reads="place")
    root: tuple[str, ...] = setting(
        "where the images are that a table or COCO JSON names: directories, zip files or quoted patterns",
        (),
        unset="beside the table",
        metavar="PLACE",
        reads="place",
    )
    uri_column: str | None = setting(
        "column of a table that has the paths or URIs of the images",
        None,
        unset="the first of image_uri, uri, url and similar names",
        metavar="NAME",
    )
    image_column: str | None = setting(
        "column of a Parquet table that has the bytes of the images; in tar shards, the ending of the image files",
        None,
        unset="found by name and type",
        metavar="NAME",
    )
    id_column: str | None = setting(
        "column of a table that has the ids of the images",
        None,
        unset="image_id or id, else file names",
        metavar="NAME",
    )
    metadata_columns: tuple[str, ...] = setting(
        "columns of the table to copy into the output, renamed with NAME=NEW; in tar shards, text files by their "
        "ending or fields of the .json files",
        (),
        metavar="NAME[=NEW]",
    )
    prefix_column: str | None = setting(
        "column of a table with the words that each image's captions begin with", None, metavar="NAME[=NEW]"
    )
    score_column: str | None = setting(
        "column of a table with given captions; the output gets their log probabilities", None, metavar="NAME[=NEW]"
    )
    features: str | None = setting(
        "feature directory of pipelines.features: caption its images from the stored features, without reading images",
        None,
        metavar="DIR",
        reads="folder",
    )
    split: str | None = setting("split of --features to caption", None, unset="all", metavar="NAME")
    limit: int | None = setting("caption only the first N images", None, unset="all", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Settings):
    """How images become the features that the model was trained on."""

    weights: str | None = setting(
        "weights of the feature network; they must be the ones the model was trained on",
        None,
        unset="those in the model's directory",
        metavar="imagenet|random|FILE",
    )
    precision: str | None = setting(
        "number type of the feature network's forward pass; auto: for tables of 1,000 images and more the fastest on "
        "this machine, else float32",
        None,
        unset="as the features were made that the model was trained on",
        choices=(AUTO, *PRECISIONS),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(Settings):
    """What the output holds, and in which formats."""

    format: tuple[str, ...] = setting(
        "further formats to write beside Parquet, of which coco is COCO's results JSON; or json, without --output: "
        "print one line of JSON for each image",
        (),
        choices=(*FORMATS, ON_SCREEN),
        metavar="FORMAT",
    )
    attention: bool = setting("add a column that says, word by word, where a model with attention looked", False)
    word_scores: bool = setting("add the log probability of each word to the column captions", False)
    capitalise: bool = setting("begin each caption with a capital letter", False)
    rows_per_file: int = setting("about how many images go into one output file", 1000, least=1)


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

    model: str = setting("model to caption with: an export directory of trainer.task", metavar="DIR", reads="folder")
    what: Images = group(Images, "images (give --images or --features)")
    output: str | None = setting(
        "directory to write captions-*.parquet to; without it, captions of at most 300 images are printed",
        None,
        heading=OUTPUT,
        metavar="DIR",
        writes="folder",
    )
    references: str | None = setting(
        "captions that people wrote, printed below the model's; any captions file that pipelines.features reads",
        None,
        metavar="FILE",
        reads="file",
    )
    dry_run: bool = setting("write nothing; say how many images there are and how long the run would take", False)
    table: Table = group(Table, OUTPUT)
    search: Search = group(Search, "search")
    network: Network = group(Network, "feature network")
    running: Running = group(Running, "speed and limits")

    def __post_init__(self):
        super().__post_init__()
        is_json, given = ON_SCREEN in self.table.format, values(self)
        if self.output is not None:
            for flag, is_given in (("references", self.references), (f"format {ON_SCREEN}", is_json)):
                if is_given:
                    raise InputError(f"--{flag}: expected it without --output, found both; leave one of them out")
            check_output(self, self.output)
            return
        defaults = {flag.name: flag.default for flag in flags(CaptionConfig)}
        needing = [name for name in _OF_OUTPUT if given[name] != defaults[name]]
        needing += [f"format {name}" for name in self.table.format if name in FORMATS]
        if needing:
            raise InputError(f"--{needing[0]}: expected --output DIR beside it, found none; captions are only printed")
        for name in ("attention", "word_scores"):
            if given[name] and not is_json:
                raise InputError(f"--{name}: expected --output DIR or --format {ON_SCREEN} beside it, found neither")
