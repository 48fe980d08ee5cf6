"""Directories that go from one side to the other, opened by each command that reads them."""

import json
import shutil

import pytest

from pipelines.captions import exports, stored
from tests.support import commands
from tests.support.infos import INFO, MODEL
from tfrecords_schema import show
from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import Vocabulary
from trainer.data import dataset

WORDS = Vocabulary.from_counts({"dog": 3, "bark": 1})


def ensemble(directory):
    return commands.export(ensemble=[directory, f"{directory}/other"], output=f"{directory}/ensemble")


# How a directory is named to a user, by which function it is opened, and which file tells of it.
OPENED = [
    ("--model", exports.open_model, "model_info.json"),
    ("--ensemble", ensemble, "model_info.json"),
    ("--features", stored.open_features, "features_info.json"),
    ("--data", dataset.open_directory, "features_info.json"),
    ("DIR", lambda directory: list(show.describe(directory, 0)), "features_info.json"),
]
SAID = {
    "model_info.json": ("an export directory", "the trainer writes one at <job_dir>/export"),
    "features_info.json": ("a feature directory", "pipelines.features writes one when it is done"),
}


@pytest.fixture
def directory(tmp_path):
    """Of both kinds in one: what their small files say, and nothing else."""
    for name, info in (("features_info.json", INFO), ("model_info.json", MODEL)):
        values = {**json.loads(info.dumps()), "vocabulary_digest": WORDS.digest}
        (tmp_path / name).write_text(json.dumps(values))
    (tmp_path / "vocabulary.txt").write_text(WORDS.dumps())
    (tmp_path / "saved_model.pb").write_bytes(b"")
    return tmp_path


def told(open_it, directory) -> str:
    with pytest.raises(InputError) as found:
        open_it(str(directory))
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize(("flag", "open_it", "name"), OPENED)
def test_what_is_not_there_is_named_with_the_flag_and_who_makes_it(directory, flag, open_it, name):
    what, made_by = SAID[name]
    expected = f"{flag}: expected {what} with {name}, found none in {directory}; {made_by}"
    (directory / name).unlink()
    assert told(open_it, directory) == expected
    shutil.rmtree(directory)
    assert told(open_it, directory) == expected


@pytest.mark.parametrize(("flag", "open_it", "name"), OPENED)
def test_what_is_no_text_is_told_as_that_and_not_as_absent(directory, flag, open_it, name):
    (directory / name).write_bytes(b"\xff\xfe{}")
    expected = f"{flag}: expected {SAID[name][0]}, found {directory / name}: 'utf-8' codec can't decode"
    assert told(open_it, directory).startswith(expected)


@pytest.mark.parametrize(("flag", "open_it", "name"), [given for given in OPENED if given[0] != "--features"])
def test_another_vocabulary_is_refused_with_both_digests(directory, flag, open_it, name):
    other = Vocabulary.from_counts({"cat": 2})
    (directory / "vocabulary.txt").write_text(other.dumps())
    message = told(open_it, directory)
    assert all(part in message for part in (f"{directory}/vocabulary.txt", name, other.digest[:12], WORDS.digest[:12]))
