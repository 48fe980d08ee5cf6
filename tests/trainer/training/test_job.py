"""What is said of a job directory whose config.json is damaged, or another's."""

import json

import pytest

from tfrecords_schema.errors import InputError
from trainer.training import job
from trainer.training.mirror import Local

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
    later["TrainConfig"] = {"epochs": 3, "fine_tune": "all"}
    with pytest.raises(InputError, match=r"\(fine_tune was none, now all\)"):
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


def changed(**training) -> dict:
    return {**SETTINGS, "TrainConfig": {"epochs": 3, **training}}


def test_a_run_goes_on_with_more_epochs_and_no_fewer(directory):
    assert job.check(str(directory), changed(epochs=4), overwrite=False)
    assert job.check(str(directory), changed(patience=5), overwrite=False)
    with pytest.raises(InputError, match=r"other settings \(epochs was 3, now 2\)"):
        job.check(str(directory), changed(epochs=2), overwrite=False)
    with pytest.raises(InputError, match=r"other settings \(patience was 3, now 2\)"):
        job.check(str(directory), changed(patience=2), overwrite=False)
    (directory / job.CONFIG).write_text(json.dumps(changed(epochs="3")))  # an editor's
    with pytest.raises(InputError, match=r"other settings \(epochs was 3, now 4\)"):
        job.check(str(directory), changed(epochs=4), overwrite=False)


def test_self_critical_settings_count_once_that_phase_has_begun(directory):
    both = {"self_critical": 8, "self_critical_rate": 2e-4}
    assert job.check(str(directory), changed(**both), overwrite=False)
    (directory / job.CONFIG).write_text(json.dumps(changed(**both)))
    assert job.check(str(directory), changed(self_critical=8, self_critical_rate=1e-4), overwrite=False)
    (directory / "checkpoints/self_critical").mkdir()
    (directory / "checkpoints/self_critical/ckpt-1.index").write_text("x")
    assert job.check(str(directory), changed(**{**both, "self_critical": 9}), overwrite=False)
    for name, value, was in (("self_critical_rate", 1e-4, 0.0002), ("self_critical", 7, 8)):
        with pytest.raises(InputError, match=rf"other settings \({name} was {was}, now {value}\)"):
            job.check(str(directory), changed(**{**both, name: value}), overwrite=False)
    with pytest.raises(InputError, match=r"--epochs: expected 3, since the self-critical epochs .* found 4; give"):
        job.check(str(directory), changed(**both, epochs=4), overwrite=False)


def test_only_the_latest_phase_that_has_begun_may_be_longer(directory):
    lengths = {"epochs": 3, "fine_tune_epochs": 2, "self_critical": 1}
    (directory / job.CONFIG).write_text(json.dumps(changed(**lengths)))
    phases = dict(zip(lengths, ("cross_entropy", "fine_tuning", "self_critical"), strict=True))
    for latest, (length, phase) in enumerate(phases.items()):
        (directory / "checkpoints" / phase).mkdir()
        (directory / "checkpoints" / phase / "ckpt-1.index").write_text("x")
        for at, other in enumerate(lengths):
            longer = changed(**{**lengths, other: lengths[other] + 1})
            if at >= latest:
                assert job.check(str(directory), longer, overwrite=False)
                continue
            told = f"--{other}: expected .*, since the {phase.replace('_', '-')} epochs .*; give a larger --{length},"
            with pytest.raises(InputError, match=told):
                job.check(str(directory), longer, overwrite=False)


def test_beginning_anew_deletes_what_a_run_wrote_and_nothing_else(directory):
    """Also the features that a killed run had made anew, which may be as large as the data."""
    for name in (".remade/train.features", ".remade/val.features", "best/ckpt-7.index"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("x")
    (directory / "mine").write_text("x")
    (directory / "best/mine").write_text("x")
    assert not job.check(str(directory), SETTINGS, overwrite=True)
    job.begin(Local(str(directory)), SETTINGS, anew=True)
    left = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert left == {job.CONFIG, "mine", "best/mine"}
    assert not (directory / ".remade").exists()
