"""What the pipelines' command lines have in common."""

import pytest

from pipelines.settings.caption import CaptionConfig
from pipelines.settings.features import FeaturesConfig
from tfrecords_schema import command
from tfrecords_schema.errors import InputError


@pytest.mark.parametrize(
    ("config", "given", "told"),
    [
        (CaptionConfig, {"model": "m", "images": ("a.jpg", "./photos/"), "output": "photos"}, "one of --images"),
        (FeaturesConfig, {"captions": ("c.csv",), "images": ("photos",), "output": "photos"}, "one of --images"),
        (FeaturesConfig, {"val_captions": ("photos",), "output": "photos"}, "one of --val_captions"),
        (FeaturesConfig, {"coco_dir": "photos", "output": "photos"}, "--coco_dir too"),
    ],
)
def test_nothing_is_written_among_the_images(config, given, told):
    with pytest.raises(InputError) as refused:
        command.make(config, given)
    assert str(refused.value) == f"--output: photos is {told}; give a directory of its own"
    command.make(config, {**given, "output": "photos/captions"})
