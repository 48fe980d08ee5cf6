"""Damaged and hostile versions of the JSON files that directories are opened by: one line, with the file and field."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.infos import INFO, MODEL
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.vocabulary import Vocabulary


def told(run) -> str:
    with pytest.raises(InputError) as found:
        run()
    message = str(found.value)
    assert "\n" not in message and len(message) < 400
    return message


@dataclasses.dataclass(frozen=True)
class Inner:
    count: typed_json.Count


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: dict[str, Inner]
    rest: Any = None


def test_what_fits_is_what_was_written():
    assert typed_json.decode('{"inner": {"a": {"count": 3}}, "rest": [1]}', Outer, "f") == Outer({"a": Inner(3)}, [1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"inner": {"a": {"count": "3"}}}', "f: inner[...].count: Expected `int`, got `str`"),
        ('{"inner": {"a": {"count": -1}}}', "f: inner[...].count: Expected `int` >= 0"),
        ('{"inner": {"a": {"count": true}}}', "f: inner[...].count: Expected `int`, got `bool`"),
        ('{"inner": {"a": {"count": 1e400}}}', "f: inner[...].count: Number out of range"),
        ('{"inner": {"a": {"count": ' + "9" * 5000 + "}}}", "f: inner[...].count: "),
        ('{"inner": null}', "f: inner: Expected `object`, got `null`"),
        ("{}", "f: Object missing required field `inner`"),
        ("[1]", "f: Expected `object`, got `array`"),
        ("", "f: expected JSON, found something else: "),
        ('{"inner": {}} x', "f: expected JSON, found something else: "),
        ('{"inner": {}, "rest": NaN}', "f: expected JSON, found something else: "),
        ("\ufeff{}", "f: expected JSON, found something else: "),
        ("\udc80", "f: expected JSON, found something else: "),
    ],
)
def test_what_does_not_fit_is_told_by_its_field(text, expected):
    assert told(lambda: typed_json.decode(text, Outer, "f")).startswith(expected)


@pytest.mark.parametrize("levels", [65, 20_000, 400_000])
@pytest.mark.parametrize("ends", [True, False])
def test_deep_values_are_refused(levels, ends):
    for key in ("inner", "rest"):
        text = f'{{"inner": {{}}, "{key}": ' + "[" * (levels - 1) + "]" * (levels - 1) * ends + "}" * ends
        assert told(lambda text=text: typed_json.decode(text, Outer, "f")).endswith(
            "lists and objects nested deeper than 64 levels"
        )
    fits = '{"inner": {}, "rest": ' + "[" * 63 + "]" * 63 + "}"
    assert typed_json.decode(fits, Outer, "f").inner == {}


def test_a_deep_file_takes_no_memory():
    """Twenty megabytes of brackets, in a process that may take two hundred more."""
    code = """
import resource, tfrecords_schema.manifests.features_info as d
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
try:
    d.FeaturesInfo.loads('{"schema_version": 2, "splits": ' + "[" * 20_000_000)
except d.InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert (
        done.stdout
        == "features_info.json: expected JSON, found something else: lists and objects nested deeper than 64 levels\n"
    ), done.stderr


# The files of feature and export directories. A change is a path of keys and a value.

SHARD = ("splits", "train", "shards", 0)
CHANGES = [
    (INFO, ("features", "shape"), value)
    for value in ("100", -5, None, [-1], [0], [1 << 40], [], [1] * 9, ["2048"], [2.5])
]
CHANGES += [(INFO, ("max_caption_length",), value) for value in ("100", -5, None, 2, 1 << 40, [-1])]
CHANGES += [(INFO, (*SHARD, "records"), value) for value in ("2", -2, None, 3)]
CHANGES += [
    (INFO, (*SHARD, "name"), name)
    for name in ("../../x", "/x/train-00000-of-00001.tfrecord", "x/../train-00000-of-00001.tfrecord", "", None, 7)
]
CHANGES += [(INFO, (*SHARD, "name"), name) for name in ("train-00001-of-00002.tfrecord", "val-00000-of-00001.tfrecord")]
CHANGES += [
    (INFO, (*SHARD, "name"), name) for name in ("train-00000-of-00001.tfrecord\n", "a/-00000-of-00001.tfrecord")
]
CHANGES += [(INFO, ("vocabulary_file",), name) for name in ("../x.txt", "/x.txt", "", None, "vocabulary-b.txt/../x")]
CHANGES += [(INFO, ("splits", "../x"), {"images": 0, "captions": 0, "rejects": 0, "shards": []})]
CHANGES += [
    (info, ("features", key), value)
    for info in (INFO, MODEL)
    for key, value in (("dtype", "object"), ("precision", ""))
]
CHANGES += [(info, ("features",), value) for info in (INFO, MODEL) for value in (None, [], "x")]
CHANGES += [(INFO, ("splits",), value) for value in (None, [], {"train": None}, {"train": {"shards": [None]}})]
CHANGES += [
    (MODEL, ("search",), value) for value in (None, {}, [], {"beam_width": 3}, {"beam_width": "3", "length_penalty": 1})
]
CHANGES += [(MODEL, ("search", "beam_width"), value) for value in (0, -1, 10**9, None, "3")]
CHANGES += [
    (MODEL, (key,), value)
    for key, value in (("decoder", []), ("metrics", 1), ("digest", None), ("max_caption_length", "25"))
]


@pytest.mark.parametrize(("info", "keys", "value"), CHANGES)
def test_a_field_that_does_not_fit_is_named(info, keys, value):
    values = json.loads(info.dumps())
    place = values
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    message = told(lambda: type(info).loads(json.dumps(values), "dir/x.json"))
    assert message.startswith("dir/x.json: ")
    assert any(str(key) in message for key in keys if isinstance(key, str)), message


@pytest.mark.parametrize("info", [INFO, MODEL])
def test_unknown_versions_of_any_type_are_told(info):
    for value in ("2", None, [], {"a": 1}, 10**30, "9" * 5000, 2.5, True):
        text = json.dumps({**json.loads(info.dumps()), "schema_version": value})
        assert "expected schema_version" in told(lambda text=text: type(info).loads(text, "x.json"))


@pytest.mark.parametrize("line", ["dog " + "9" * 5000, "dog -1", "dog 1.5", "dog ٣", "dog", " 3", "x" * 10_000_000])
def test_a_vocabulary_with_other_lines_is_told_by_its_line(line):
    text = Vocabulary.from_counts({"cat": 3}).dumps() + line + "\n"
    assert told(lambda: Vocabulary.loads(text, "v.txt")).startswith("v.txt: line 6: expected `word count`, found ")
