"""What can be asked of `pipelines.gallery`."""

from __future__ import annotations

import dataclasses

from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError

SORTS = {"random": "random", "log_prob": "highest log probability first", "worst": "lowest CIDEr first"}
PAGE_IMAGES, SHEET_IMAGES = 200, 24
TARGETS = ("output", "contact_sheet", "captioned_images", "attention_pictures")  # two files, two directories


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryConfig(Settings):
    """The whole of `python -m pipelines.gallery`."""

    captions: str | None = setting(
        "output directory of pipelines.caption, whose captions to show",
        None,
        heading="what to show (give one of them)",
        metavar="DIR",
        reads="folder",
    )
    features: str | None = setting(
        "feature directory of pipelines.features, whose images to show with the captions that people wrote",
        None,
        metavar="DIR",
        reads="folder",
    )
    coco_dir: str | None = setting(
        "directory in COCO's layout, whose images to show with the captions that people wrote",
        None,
        metavar="DIR",
        reads="folder",
    )
    output: str | None = setting(
        "web page to write: one file with the images in it",
        None,
        heading="what to write (give at least one)",
        metavar="FILE.html",
        writes="file",
    )
    contact_sheet: str | None = setting(
        "picture to write with many images on it", None, metavar="FILE.png", writes="file"
    )
    captioned_images: str | None = setting(
        "directory to write a picture of each image to, with the caption under it", None, metavar="DIR", writes="folder"
    )
    attention_pictures: str | None = setting(
        "directory to write a picture of each image to, with a tile for each word that shows where the model looked",
        None,
        metavar="DIR",
        writes="folder",
    )
    n: int | None = setting(
        "number of images at most",
        None,
        unset=f"{PAGE_IMAGES}, or {SHEET_IMAGES} for --contact_sheet alone",
        heading="which images",
        least=1,
        most=10_000,
    )
    sort: str = setting(
        "order of the images: random (the same each time), log_prob (highest first) or worst (lowest CIDEr first)",
        "random",
        choices=tuple(SORTS),
    )
    references: str | None = setting(
        "captions that people wrote, to show beside those of --captions; any captions file that pipelines.features "
        "reads",
        None,
        metavar="FILE",
        reads="file",
    )
    year: str = setting("year of the COCO release in --coco_dir", "2017")
    split: str | None = setting("split of --features to show", None, unset="the first one", metavar="NAME")
    columns: int = setting("images side by side on the contact sheet", 4, least=1, most=1000)

    def __post_init__(self):
        super().__post_init__()
        given = [name for name in ("captions", "features", "coco_dir") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise InputError(f"--captions, --features or --coco_dir: expected one of them, found {found}")
        if not self.targets():
            raise InputError(
                "expected --output FILE.html, --contact_sheet FILE.png, --captioned_images DIR or --attention_pictures "
                "DIR, found none"
            )
        if self.split and not self.features:
            raise InputError("--split: expected --features beside it, found none")
        if not self.captions:
            for name in ("references", "attention_pictures"):
                if getattr(self, name):
                    raise InputError(f"--{name}: expected --captions beside it, found --{given[0]}; leave it out")
            if self.sort != "random":
                raise InputError(f"--sort {self.sort}: expected --captions beside it, found --{given[0]}; leave it out")
        if self.sort == "worst" and not self.references:
            raise InputError("--sort worst: expected --references to compare the captions with, found none")

    def targets(self) -> dict[str, str]:
        """What to write, by flag."""
        return {flag: path for flag in TARGETS if (path := getattr(self, flag))}
