"""How the search of a command line is understood."""

import dataclasses

import pytest

from pipelines.settings.search import Search
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import FeatureSpec
from tfrecords_schema.manifests.model_info import ModelInfo

FEATURES = FeatureSpec("inception_v3", "layer", "random", "digest", (4,), "float16", "float32", "bilinear")
INFO = ModelInfo({}, FEATURES, 20, "digest", "digest", {}, {"beam_width": 3, "length_penalty": 0.7})


def test_what_is_not_said_is_as_the_model_was_validated():
    follows = {"max_length": 20, "min_length": 3, "length_penalty": 0.7, "forbid_unk": True}
    assert Search().resolved(INFO) == Search(3, 3, **follows)
    assert Search(5).resolved(INFO) == Search(5, 5, **follows)
    assert Search(captions_per_image=2).resolved(INFO) == Search(3, 2, **follows)
    assert Search(captions_per_image=10).resolved(INFO) == Search(10, 10, **follows)
    drawn = Search(captions_per_image=1, max_length=20, min_length=3, forbid_unk=True, sample=True, top_p=0.9)
    assert Search(sample=True, top_p=0.9).resolved(INFO) == drawn


def test_unknown_words_and_empty_captions_are_the_models_to_allow_unless_a_flag_does():
    freely = dataclasses.replace(INFO, search={**INFO.search, "forbid_unk": False, "min_length": 2})
    for asked in (Search(), Search(sample=True)):
        assert asked.resolved(INFO).forbid_unk is True and asked.resolved(freely).forbid_unk is False
        assert asked.resolved(INFO).min_length == 3 and asked.resolved(freely).min_length == 2
    assert Search(min_length=4).resolved(freely).min_length == 4
    assert Search(forbid_unk=False).resolved(INFO).forbid_unk is False
    assert Search(forbid_unk=True).resolved(freely).forbid_unk is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"beam_width": 3, "captions_per_image": 4}, "--captions_per_image: .* found 4; give --beam_width 4"),
        ({"beam_width": 1001}, "--beam_width: expected at most 1000, found 1001"),
        ({"max_length": 2}, "--max_length: expected at least 3, found 2"),
        ({"min_length": 21}, "--min_length: expected at most the greatest length, 20, found 21"),
        ({"length_penalty": float("nan")}, "--length_penalty: expected at least 0, found nan"),
        ({"top_p": 0.5}, "--top_p: expected --sample beside it, found none"),
        ({"seed": 1}, "--seed: expected --sample beside it"),
        ({"sample": True, "beam_width": 3}, "--beam_width: expected it without --sample"),
        ({"sample": True, "length_penalty": 0.0}, "--length_penalty: expected it without --sample"),
        ({"sample": True, "temperature": 0.0}, "--temperature: expected more than 0, found 0.0"),
        ({"sample": True, "temperature": float("inf")}, "--temperature: expected at most 1000000000.0, found inf"),
        ({"sample": True, "top_p": 1.5}, "--top_p: expected at most 1, found 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(flags, message):
    with pytest.raises(InputError, match=message):
        Search(**flags).resolved(INFO)


def test_only_what_shapes_the_captions_is_compared_with_a_later_run():
    assert "seed" not in Search().resolved(INFO).describe() and "beam_width" in Search().resolved(INFO).describe()
    assert {"seed", "top_p"} <= Search(sample=True).resolved(INFO).describe().keys()
