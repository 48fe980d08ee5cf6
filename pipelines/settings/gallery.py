"""What can be asked of `pipelines.gallery`."""

from __future__ import annotations

import dataclasses

from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError

SORTS = {"random": "random", "log_prob": "highest log probability first", "worst": "lowest CIDEr first"}
PAGE_IMAGES, SHEET_IMAGES = 200, 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryConfig(Settings):
    """The whole of `python -m pipelines.gallery`."""

    captions: str = setting("output directory of pipelines.caption", metavar="DIR", reads="folder")
    output: str | None = setting(
        "web page to write, one file with everything in it", None, metavar="FILE.html", writes="file"
    )
    contact_sheet: str | None = setting("picture to write", None, metavar="FILE.png", writes="file")
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
        if not self.targets():
            raise InputError("expected --output FILE.html or --contact_sheet FILE.png, found neither")
        if self.sort == "worst" and not self.references:
            raise InputError("--sort worst: expected --references to compare the captions with, found none")

    def targets(self) -> dict[str, str]:
        """The files to write, by flag."""
        return {flag: path for flag in ("output", "contact_sheet") if (path := getattr(self, flag))}
