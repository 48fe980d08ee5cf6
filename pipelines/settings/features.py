"""What can be asked of `pipelines.features`."""

from __future__ import annotations

import dataclasses

from pipelines.settings.running import OUTPUT, Running, check_output
from tfrecords_schema.command import Settings, group, setting
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import IM2TXT_CROP
from tfrecords_schema.networks.registry import AUTO, NETWORKS, PRECISIONS
from tfrecords_schema.shards import SPLITS

_CAPTIONS = (
    "captions files, with or without splits of their own: COCO or Karpathy JSON, Flickr8k.token.txt, or CSV or JSONL "
    "with image, caption and optionally split; or images together with their captions: tar shards "
    "('{00000..00099}.tar'), Parquet, or directories with a.jpg and a.txt"
)


def _captions(help: str) -> tuple[str, ...]:
    return setting(help, (), metavar="FILE", reads="place")


def _places(help: str, unset: str = "") -> tuple[str, ...]:
    return setting(help, (), unset=unset, metavar="PLACE", reads="place")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Settings):
    """Which images and captions to learn from."""

    coco_dir: str | None = setting(
        "directory in COCO's layout: annotations/, and train<year>/ and val<year>/ or zip files of these names; one of "
        "the two is enough with --val_fraction",
        None,
        metavar="DIR",
        reads="folder",
    )
    year: str = setting("year of the COCO release in --coco_dir", "2017")
    captions: tuple[str, ...] = _captions(_CAPTIONS)
    images: tuple[str, ...] = _places("where the images are: directories, zip files or quoted patterns")
    train_captions: tuple[str, ...] = _captions("captions of the train split, in any form that --captions takes")
    train_images: tuple[str, ...] = _places("where the images of the train split are", "as --images")
    val_captions: tuple[str, ...] = _captions("captions of the val split, in any form that --captions takes")
    val_images: tuple[str, ...] = _places("where the images of the val split are", "as --images")
    test_captions: tuple[str, ...] = _captions("captions of the test split, in any form that --captions takes")
    test_images: tuple[str, ...] = _places("where the images of the test split are", "as --images")
    val_fraction: float | None = setting(
        "share of the images to hold out for validation if there is no val split, chosen by a hash of the image id",
        None,
        least=0,
        most=1,
    )
    caption_field: str | None = setting(
        "where the captions are, for images together with their captions: an ending or a .json field in tar shards and "
        "directories, a column in Parquet",
        None,
        unset="txt, or the column caption",
        metavar="NAME",
    )
    restval: str = setting(
        "split that the restval images of Karpathy's files go to", "train", choices=(*SPLITS, "leave_out")
    )
    limit: int | None = setting(
        "use only the first N images of each split, to try things out", None, unset="all", least=1
    )
    max_captions: int | None = setting("use only the first N captions of each image", None, unset="all", least=1)

    def by_split(self, kind: str) -> dict[str | None, tuple[str, ...]]:
        """The values of `--captions` or `--images` (under None), and those of each split."""
        return {None: getattr(self, kind), **{split: getattr(self, f"{split}_{kind}") for split in SPLITS}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Settings):
    """Which network makes features, and how they are stored."""

    extractor: str = setting(
        f"network that computes the features: {', '.join(NETWORKS)}, or saved_model:DIR for a SavedModel of your own",
        "inception_v3",
        metavar="NAME",
    )
    weights: str = setting(
        "weights of the network: imagenet (downloaded by Keras), a Keras .h5 file, an export of trainer.task with its "
        "fine-tuned network, or random (seeded, only for trying things out)",
        "imagenet",
        metavar="imagenet|random|FILE|EXPORT",
    )
    feature_grid: bool = setting(
        "keep the network's last convolutional map instead of one pooled vector; attention needs it", False
    )
    feature_dtype: str = setting("number type in which features are stored", "float16", choices=("float16", "float32"))
    precision: str = setting(
        "number type of the forward pass; auto: what an earlier run into --output used, else the fastest on this "
        "machine",
        AUTO,
        choices=(AUTO, *PRECISIONS),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Store(Settings):
    """Whether records keep the images too."""

    store_images: bool = setting(
        "put each image into its record too, as a small JPEG; trainer.task --fine_tune needs it", False
    )
    store_size: int | None = setting(
        "short side of these JPEGs in pixels; smaller images keep their size",
        None,
        unset="346, or 346/299 of the network's input if that is larger",
        least=1,
        most=4000,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.store_size and not self.store_images:
            raise InputError("--store_size: expected --store_images beside it; leave it out")

    def short_side(self, network: int) -> int:
        """Of these JPEGs, for a network whose input has sides of so many pixels, which training crops from them."""
        return self.store_size or max(346, round(network * IM2TXT_CROP))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words(Settings):
    """Which words the vocabulary keeps, and how long captions are."""

    vocab_size: int = setting(
        "size of the vocabulary at most, counting the 4 special tokens; the most frequent words stay", 10_000, least=5
    )
    min_word_count: int = setting("words seen fewer times than this in the train captions become <unk>", 4, least=1)
    max_caption_length: int = setting(
        "length of a caption in tokens, counting START and END; longer captions are cut", 25, least=3, most=1000
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeaturesConfig(Settings):
    """The whole of `python -m pipelines.features`."""

    output: str = setting("feature directory to write", metavar="DIR", writes="folder")
    data: Data = group(Data, "images and captions (give --coco_dir, or captions and images)")
    network: Network = group(Network, "features")
    store: Store = group(Store, "images in the records")
    words: Words = group(Words, "words")
    records_per_shard: int = setting("about how many images go into one output file", 1000, heading=OUTPUT, least=1)
    update: bool = setting(
        "write the records of an earlier run again with other captions, words or splits, keeping its features; those "
        "of images that move to another split are computed again",
        False,
    )
    running: Running = group(Running, "speed and limits")

    def __post_init__(self):
        super().__post_init__()
        check_output(self, self.output, "coco_dir")
