"""The two Beam pipelines: captioned images to TFRecord shards, and images to a table of captions; and one call.

captioner = pipelines.load("EXPORT")
captions = captioner("dog.jpg")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.captions.image_captioner import ImageCaptioner


def load(model: str | os.PathLike[str], **options: Any) -> ImageCaptioner:
    """An export of the trainer, in memory: call it with images. See `image_captioner.load` for options and errors."""
    from pipelines.captions import image_captioner  # and with it what takes time, which a command's --help does without

    return image_captioner.load(model, **options)
