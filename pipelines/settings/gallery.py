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

    captions: str | None = setting("output directory of pipelines.caption", None, metavar="DIR", reads="folder")
    features: str | None = setting(
        "output of pipelines.features, in place of --captions: its images with what people said",
        None,
        metavar="DIR",
        reads="folder",
    )
    coco_dir: str | None = setting(
        "COCO's directory, in place of --captions: its images with what people said",
        None,
        metavar="DIR",
        reads="folder",
    )
    year: str = setting("of --coco_dir", "2017")
    split: str | None = setting("of --features (default: its first one)", None, metavar="NAME")
    output: str | None = setting(
        "web page to write, one file with everything in it", None, metavar="FILE.html", writes="file"
    )
    contact_sheet: str | None = setting("picture to write", None, metavar="FILE.png", writes="file")
    captioned_images: str | None = setting(
        "directory for a picture of each image with its caption under it", None, metavar="DIR", writes="folder"
    )
    attention_pictures: str | None = setting(
        "directory for a picture of each image with a tile for each word, of where the model looked",
        None,
        metavar="DIR",
        writes="folder",
    )
    n: int | None = setting(
        f"images at most (default {PAGE_IMAGES}; {SHEET_IMAGES} for a contact sheet alone)", None, least=1, most=10_000
    )
    sort: str = setting(
        "random (the same ones each time), or highest log probability, or lowest CIDEr first",
        "random",
        choices=tuple(SORTS),
    )
    references: str | None = setting(
        "what people said, in any form that pipelines.features reads", None, metavar="FILE", reads="file"
    )
    columns: int = setting("of the contact sheet", 4, least=1, most=1000)

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
