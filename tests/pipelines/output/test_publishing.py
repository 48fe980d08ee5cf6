"""The last step, repeated and killed; an input that changes while the run goes on."""

import json
import shutil
import subprocess
import sys

import pytest

from pipelines.output import steps
from pipelines.training_records.records import RecordMaker
from tests.support import ROOT
from tests.support.outputs import content, rows


@pytest.mark.slow
def test_readers_find_a_whole_output_whenever_a_run_is_killed(tmp_path):
    """The first run and two reruns over a complete output, killed at random moments and while they publish."""
    command = [sys.executable, "-m", "tests.support.killed", str(tmp_path), "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 20


@pytest.mark.parametrize("rerun", [False, True])
def test_publishing_twice_changes_nothing(make_features, coco_dir, tmp_path, monkeypatch, rerun):
    """Engines may ask for the last step again, also when what it does not need any more is being deleted."""
    call = steps._call

    def twice(*arguments, **context):
        for stale in list(call(*arguments, **context)):
            steps.files.delete(*stale)
        yield from call(*arguments, **context)

    made = {}
    for name in ("once", "twice"):
        monkeypatch.setattr(steps, "_call", twice if name == "twice" and not rerun else call)
        make_features(tmp_path / name)
        if rerun:
            monkeypatch.setattr(steps, "_call", twice if name == "twice" else call)
            make_features(tmp_path / name, max_caption_length=9, update=True)
        made[name] = content(tmp_path / name)
        names = json.loads((tmp_path / name / "report.json").read_text())["files"].values()
        assert all((tmp_path / name / one).exists() for one in names)
    assert made["once"] == made["twice"] and len(made["once"]) == 6


def test_an_input_that_changes_during_the_run_changes_nothing(run, coco_dir, tmp_path, monkeypatch):
    """The images are those that were listed; the next run takes those that came, and computes no other."""
    from pipelines.captions.rows import RowMaker

    images = tmp_path / "images"
    shutil.copytree(coco_dir / "val2017", images)
    listed = sorted(path.stem for path in images.iterdir())
    make, changed = RowMaker.make, []

    def changes_first(self, job):
        if not changed:
            changed.append(True)
            shutil.copy(images / f"{listed[0]}.jpg", images / "new.jpg")
            (images / f"{listed[1]}.jpg").unlink()
        return make(self, job)

    monkeypatch.setattr(RowMaker, "make", changes_first)
    flags = {"images": [str(images)], "rows_per_file": 3, "max_reject_fraction": 0.5}
    output, first = run(**flags)
    assert first["inputs"] == 8 and first["reject_reasons"] == {"read/Absent": 1}
    assert rows(output).keys() == set(listed) - {listed[1]}
    shutil.copy(coco_dir / f"val2017/{listed[1]}.jpg", images)
    _, second = run(**flags)
    assert (second["kept"], second["new"], second["retried"], second["rejects"]) == (7, 1, 1, 0)
    assert rows(output).keys() == {*listed, "new"}


def test_a_machine_that_is_out_of_memory_rejects_no_image(make_features, tmp_path, monkeypatch):
    from pipelines.engines.running import PipelineError
    from pipelines.vision import images

    decode, failed = images.decode, []

    def fails_once(data, *rest):
        if not failed:
            failed.append(True)
            raise MemoryError
        return decode(data, *rest)

    expected, _ = make_features(tmp_path / "expected")
    monkeypatch.setattr(images, "decode", fails_once)
    with pytest.raises(PipelineError, match="MemoryError"):
        make_features(tmp_path / "features")
    _, report = make_features(tmp_path / "features")
    assert report["rejects"] == 0 and content(tmp_path / "features") == content(expected)


def test_a_complete_output_is_whole_while_the_next_is_made(make_features, tmp_path, monkeypatch):
    from trainer.data.dataset import open_directory

    output, _ = make_features(records_per_shard=5)
    before, seen = content(output), []
    make = RecordMaker.make

    def looks_first(self, job):
        directory = open_directory(str(output))
        seen.append(directory.info.max_caption_length)
        return make(self, job)

    monkeypatch.setattr(RecordMaker, "make", looks_first)
    _, report = make_features(records_per_shard=5, max_caption_length=9, update=True)
    assert len(seen) == report["shards"] == 7 and set(seen) == {16}
    assert content(output) != before
