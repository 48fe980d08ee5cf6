"""What is said where a run's options are others than those of the run before."""

import json

import pytest

from pipelines.output import lifecycle
from pipelines.output.names import Names
from tfrecords_schema.errors import InputError

FLAGS = frozenset({"images", "model", "precision", "attention", "store_images"})
NAMES = Names(["captions"], [".parquet"])


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"images": [[]]}, {"images": [["/tmp/photos"]]}, "--images was not given, now /tmp/photos"),
        ({"images": ["a", "b"]}, {"images": ["a"]}, "--images was a, b, now a"),
        ({"model": "a1" * 32}, {"model": "b2" * 32}, "model was a1a1a1a1a1a1…, now b2b2b2b2b2b2…"),
        ({"feature_precision": "float32"}, {"feature_precision": "bfloat16"}, "--precision was float32, now bfloat16"),
        ({"feature_layer": "x"}, {"feature_layer": "y"}, "feature_layer was x, now y"),
        ({"images": []}, {"attention": True}, "--attention was not given, now on"),
        ({"store_images": {"short_side": 48}}, {}, "--store_images was short_side 48, now not given"),
        ({"images": ["x" * 100]}, {}, f"--images was {'x' * 80}…, now not given"),
    ],
)
def test_options_that_differ_are_told_as_they_are_given(tmp_path, before, now, told):
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work/options.json").write_text(json.dumps(before))
    (tmp_path / ".shards").mkdir()
    (tmp_path / ".shards/captions-00000-of-00001.parquet.parquet").write_bytes(b"")
    with pytest.raises(InputError) as refused:
        lifecycle.check(str(tmp_path), lifecycle.Options(now, {}, FLAGS), NAMES)
    assert str(refused.value) == (
        f"--output: {tmp_path} was made with other options ({told}); give --overwrite, or another --output"
    )
