"""What is said of a job directory whose config.json is damaged, or another's."""

import json

import pytest

from tfrecords_schema.errors import InputError
from trainer.training import job

SETTINGS = {"DecoderConfig": {"units": 4}, "TrainConfig": {"epochs": 3}, "Data": {"vocabulary": "x"}}
WHOLE = json.dumps(SETTINGS)
DAMAGED = {
    "empty": "",
    "cut": WHOLE[:-20],
    "no JSON": "{gar",
    "deep": "[" * 100_000,
    "deep in a group": WHOLE.replace("4", "[" * 20_000 + "]" * 20_000),
    "a list": "[1]",
    "null": "null",
    "a group of another type": WHOLE.replace('{"units": 4}', "7"),
    "a group less": json.dumps({"TrainConfig": {}, "Data": {}}),
    "another program's": '{"model_type": "bert", "hidden_size": 768}',
}


@pytest.fixture
def directory(tmp_path):
    """With a checkpoint."""
    (tmp_path / "checkpoints/words").mkdir(parents=True)
    (tmp_path / "checkpoints/words/ckpt-1.index").write_text("x")
    (tmp_path / job.CONFIG).write_text(WHOLE)
    return tmp_path


def test_a_run_goes_on_with_the_same_settings(directory):
    assert job.check(str(directory), SETTINGS, overwrite=False)
    (directory / job.CONFIG).write_text("\ufeff" + WHOLE)
    assert job.check(str(directory), SETTINGS, overwrite=False)


def test_a_setting_that_an_earlier_version_did_not_have_was_its_default(directory):
    later = {**SETTINGS, "TrainConfig": {"epochs": 3, "momentum": 0.9}}
    assert job.check(str(directory), later, overwrite=False)
    later["TrainConfig"]["momentum"] = 0.5
    with pytest.raises(InputError, match=r"holds a run with other settings \(momentum was 0\.9, now 0\.5\)"):
        job.check(str(directory), later, overwrite=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_damaged_settings_are_told_and_overwritten_with_the_checkpoints(directory, text, encoding):
    (directory / job.CONFIG).write_text(text, encoding=encoding)
    with pytest.raises(InputError, match=r"config.json: expected the settings of an earlier run, found something else"):
        job.check(str(directory), SETTINGS, overwrite=False)
    assert not job.check(str(directory), SETTINGS, overwrite=True)
    (directory / "checkpoints/words/ckpt-1.index").unlink()
    with pytest.raises(InputError, match=r"config.json: expected the settings"):  # nothing says that it was ours
        job.check(str(directory), SETTINGS, overwrite=True)
