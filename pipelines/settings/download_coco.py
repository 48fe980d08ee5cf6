"""What can be asked of `pipelines.download_coco`."""

from __future__ import annotations

import dataclasses
import re

from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import paths
from tfrecords_schema.text import shortened


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadCocoConfig(Settings):
    """The whole of `python -m pipelines.download_coco`."""

    output: str = setting("local directory to write; give it to --coco_dir afterwards", metavar="DIR", writes="folder")
    year: str = setting("year of the COCO release", "2017", choices=("2014", "2017"))
    splits: tuple[str, ...] = setting(
        "splits whose images to download; test images have no captions",
        ("train", "val"),
        choices=("train", "val", "test"),
        metavar="SPLIT",
    )
    base_url: str = setting(
        "server to download from, or a mirror of it with the same zips/ and annotations/",
        "http://images.cocodataset.org",
        metavar="URL",
    )

    def __post_init__(self):
        super().__post_init__()
        if not re.match(r"https?://[^/\s]+", self.base_url):
            raise InputError(f"--base_url: expected http://… or https://…, found {shortened(self.base_url)}")
        if not paths.is_local(self.output):
            raise InputError(
                f"--output: expected a local directory, found {shortened(self.output, 100)}; download here, then copy"
            )
