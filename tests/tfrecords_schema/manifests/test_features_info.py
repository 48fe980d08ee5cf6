import dataclasses
import json

import pytest

from tests.support.infos import INFO, MODEL, SPEC
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import RESIZE, FeaturesInfo


@pytest.mark.parametrize("info", [INFO, MODEL])
def test_loads_undoes_dumps(info):
    assert type(info).loads(info.dumps()) == info


@pytest.mark.parametrize("info", [INFO, MODEL])
def test_another_schema_version_is_refused(info):
    text = json.dumps({**json.loads(info.dumps()), "schema_version": 7})
    with pytest.raises(InputError, match=r"x.json: expected schema_version [25], found 7"):
        type(info).loads(text, "x.json")


@pytest.mark.parametrize("info", [INFO, MODEL])
@pytest.mark.parametrize("text", ["", "not json", "[]", "{}"])
def test_other_files_are_refused(info, text):
    with pytest.raises(InputError, match=r"x.json: "):
        type(info).loads(text, "x.json")


def test_a_missing_key_is_named():
    values = json.loads(INFO.dumps())
    del values["features"]
    with pytest.raises(InputError, match="features"):
        FeaturesInfo.loads(json.dumps(values))


@pytest.mark.parametrize("change", [{"weights_digest": "00"}, {"shape": (64, 2048)}, {"dtype": "float32"}])
def test_require_same_says_which_two_differ(change):
    name, value = next(iter(change.items()))
    with pytest.raises(InputError) as error:
        SPEC.require_same(dataclasses.replace(SPEC, **change), "--weights x", "--model y")
    assert str(error.value) == f"{name} differs: --weights x has {getattr(SPEC, name)}, --model y has {value}"


def test_the_label_of_weights_does_not_count():
    SPEC.require_same(dataclasses.replace(SPEC, weights="inception.h5"), "a", "b")


def test_ways_to_resize_that_agree_are_the_same_and_others_are_not():
    before = "pillow bilinear, antialiased, aspect ratio not kept; JPEGs of 8 times the size decoded at reduced scale"
    old, new = (dataclasses.replace(SPEC, resize=resize) for resize in (before, RESIZE))
    old.require_same(new, "a", "b")
    new.require_same(old, "a", "b")
    with pytest.raises(InputError, match=f"^resize differs: a has {RESIZE}, b has nearest$"):
        new.require_same(dataclasses.replace(SPEC, resize="nearest"), "a", "b")


def test_another_vocabulary_is_refused():
    with pytest.raises(InputError, match=r"dir/vocabulary.txt: its digest is 000000000000…"):
        INFO.require_vocabulary("00" * 32, "dir/vocabulary.txt")
