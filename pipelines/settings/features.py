"""What can be asked of `pipelines.features`."""

from __future__ import annotations

import dataclasses

from pipelines.settings.running import Running
from tfrecords_schema.command import Settings, group, setting
from tfrecords_schema.errors import InputError
from tfrecords_schema.networks.registry import AUTO, NETWORKS, PRECISIONS
from tfrecords_schema.shards import SPLITS

_CAPTIONS = (
    "COCO or Karpathy JSON, Flickr8k.token.txt, CSV or JSONL of image,caption[,split]; splits are its own; or images "
    "with captions: tar shards ('{00000..00099}.tar'), Parquet, directories of a.jpg and a.txt"
)


def _captions(help: str) -> tuple[str, ...]:
    return setting(help, (), metavar="FILE", reads="place")


def _places(help: str) -> tuple[str, ...]:
    return setting(help, (), metavar="PLACE", reads="place")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Settings):
    """Which images and captions to learn from."""

    coco_dir: str | None = setting(
        "with train<year>/ (or .zip), val<year>/ and annotations/; one of the two is enough with --val_fraction",
        None,
        metavar="DIR",
        reads="folder",
    )
    year: str = setting("of --coco_dir", "2017")
    captions: tuple[str, ...] = _captions(_CAPTIONS)
    images: tuple[str, ...] = _places("directories, zip files or quoted patterns")
    train_captions: tuple[str, ...] = _captions("captions of the train split")
    train_images: tuple[str, ...] = _places("images of the train split only")
    val_captions: tuple[str, ...] = _captions("captions of the val split")
    val_images: tuple[str, ...] = _places("images of the val split only")
    test_captions: tuple[str, ...] = _captions("captions of the test split")
    test_images: tuple[str, ...] = _places("images of the test split only")
    val_fraction: float | None = setting("held out for validation, where there are no splits", None, least=0, most=1)
    caption_field: str | None = setting(
        "of images with captions: an ending or field of .json (default txt), or a column (default caption)",
        None,
        metavar="NAME",
    )
    restval: str = setting("what Karpathy's restval counts as", "train", choices=(*SPLITS, "leave_out"))
    limit: int | None = setting("only the first N images of each split, for trying things out", None, least=1)
    max_captions: int | None = setting("only the first N captions of each image", None, least=1)

    def by_split(self, kind: str) -> dict[str | None, tuple[str, ...]]:
        """The values of `--captions` or `--images` (under None), and those of each split."""
        return {None: getattr(self, kind), **{split: getattr(self, f"{split}_{kind}") for split in SPLITS}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Settings):
    """Which network makes features, and how they are stored."""

    extractor: str = setting(
        f"{', '.join(NETWORKS)}, or saved_model:DIR, one's own",
        "inception_v3",
        metavar="NAME",
    )
    weights: str = setting(
        "imagenet (downloaded by Keras), a Keras .h5 file, an export of the trainer, or random (seeded; to try out)",
        "imagenet",
        metavar="imagenet|random|FILE|EXPORT",
    )
    feature_grid: bool = setting("the last convolutional map, for attention", False)
    feature_dtype: str = setting("as stored", "float16", choices=("float16", "float32"))
    precision: str = setting(
        "of the forward pass; auto: the fastest on this machine, or what was recorded",
        AUTO,
        choices=(AUTO, *PRECISIONS),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Store(Settings):
    """Whether records keep the images too."""

    store_images: bool = setting("put the images into the records, as small JPEGs, for trainer.task --fine_tune", False)
    store_size: int = setting("pixels of their short side; smaller images stay as they are", 346, least=1, most=4000)

    def __post_init__(self):
        super().__post_init__()
        if self.store_size != 346 and not self.store_images:
            raise InputError("--store_size: expected --store_images beside it; leave it out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words(Settings):
    """Which words the vocabulary keeps, and how long captions are."""

    vocab_size: int = setting("ids at most, with the 4 special ones", 10_000, least=5)
    min_word_count: int = setting("rarer words become <unk>", 4, least=1)
    max_caption_length: int = setting("ids in a caption, with START and END", 25, least=3, most=1000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeaturesConfig(Settings):
    """The whole of `python -m pipelines.features`."""

    output: str = setting("feature directory to write", metavar="DIR", writes="folder")
    data: Data = group(Data, "images and captions: --coco_dir, or captions files and places of images")
    network: Network = group(Network, "features")
    store: Store = group(Store, "images in the records")
    words: Words = group(Words, "words")
    running: Running = group(Running, "running")
    records_per_shard: int = setting("images in an output file, about", 1000, least=1)
    update: bool = setting("write an earlier run's records anew, with other captions or words", False)
