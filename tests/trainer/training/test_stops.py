"""Runs that are stopped, killed or cannot go on: what is left, and what the same command makes of it."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.support import ROOT, small
from tests.support.outputs import outcome, steps_done
from tests.support.processes import finish, wait_for
from tests.support.small import STOPPABLE
from tfrecords_schema.errors import RunError
from trainer import task

pytestmark = pytest.mark.usefixtures("no_java")  # scores come quickly without it


def command(data, job, **changes) -> list[str]:
    flags = {"data": data, "job_dir": job, **STOPPABLE, **changes}
    return [sys.executable, "-m", "trainer.task", *(str(x) for k, v in flags.items() for x in (f"--{k}", v))]


def start(*arguments, **changes) -> subprocess.Popen:
    # Without Java the scores of an epoch come in no time.
    env = {**os.environ, "PATH": "/nowhere", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command(*arguments, **changes), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_killed_at_any_step_and_run_again_equals_undisturbed(data, tmp_path):
    """SIGKILL in both phases, at steps of no choosing; run again, it ends with the same numbers and weights."""
    finish(start(data, tmp_path / "undisturbed"))
    expected = outcome(tmp_path / "undisturbed")
    assert [row["phase"] for row in expected[0]] == ["cross_entropy"] * 4 + ["self_critical"] * 2
    assert len({row["loss"] for row in expected[0][:4]}) == 4

    job = tmp_path / "killed"
    for step in (3, 20, 37, 1004):
        process = start(data, job)
        wait_for(process, lambda step=step: steps_done(job) >= step)
        process.kill()
        process.wait()
        assert not (job / "export").exists()
    assert len(list(job.glob("checkpoints/*/*.index"))) <= 2 * 3 + 1, "old checkpoints are deleted"
    assert "going on with epoch" in finish(start(data, job))
    assert outcome(job) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_writes_a_checkpoint_and_exits_with_its_own_status(data, tmp_path, number, status, word):
    job = tmp_path / "job"
    early = start(data, job, epochs=500, checkpoint_steps=0)
    wait_for(early, lambda: (job / ".lock").exists())  # long before the first step
    early.send_signal(number)
    _, stderr = early.communicate(timeout=120)
    assert early.returncode == status and stderr.startswith(f"error: {word}") and stderr.count("\n") == 1
    process = start(data, job, epochs=500, checkpoint_steps=0)
    wait_for(process, lambda: (job / "history.csv").exists())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status and stderr.splitlines()[-1].startswith(f"error: {word}"), stderr
    assert "run the same command to continue" in stderr and "Traceback" not in stderr
    assert steps_done(job) > 0
    process = start(data, job, epochs=500, checkpoint_steps=0)
    first = process.stdout.readline()
    process.kill()
    assert first.startswith("going on with epoch")


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_checkpoints(data, tmp_path):
    """On a file system of 3 MB, which holds some checkpoints and then no more."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        process = start(data, disk / "job", units=64, keep_checkpoints=50, self_critical=0)
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 1, stderr
        assert stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in stderr
        assert "could not be written" in stderr and "run the same command to continue" in stderr
        done = steps_done(disk / "job")
        assert done >= 0
        subprocess.run(["/bin/mount", "-o", "remount,size=200m", disk], check=True)
        process = start(data, disk / "job", units=64, keep_checkpoints=50, self_critical=0)
        assert "going on with epoch" in finish(process)
    finally:
        subprocess.run(["/bin/umount", disk], check=True)


def run(data, job, **changes):
    return small.train_without_java(data, job, **{**STOPPABLE, "self_critical": 0, "checkpoint_steps": 0, **changes})


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run_with_the_checkpoint_before_it_intact(data, tmp_path, monkeypatch):
    """After some good steps one batch holds an infinite feature."""
    from trainer.data.batches import Batches

    epoch = Batches.epoch

    def poisoned(self, number, begin=0):
        for batch in epoch(self, number, begin):
            if self.split == "train" and number == 1:
                batch.features[:] = np.inf
            yield batch

    monkeypatch.setattr(Batches, "epoch", poisoned)
    with pytest.raises(RunError, match="the loss is no longer a finite number; earlier checkpoints"):
        run(data, tmp_path / "job", epochs=2)
    monkeypatch.undo()
    assert not (tmp_path / "job/export").exists() and steps_done(tmp_path / "job") > 0
    best = run(data, tmp_path / "job", epochs=2)
    assert np.isfinite(best["loss"])


@pytest.mark.parametrize("way", ["gone", pytest.param("cut short", marks=pytest.mark.slow)])
def test_a_shard_that_changes_while_training_is_named(data, tmp_path, capsys, monkeypatch, way):
    """Streamed: the second epoch finds another file than the first."""
    from trainer.training.loop import PhaseRun

    directory = shutil.copytree(data, tmp_path / "data")
    shard = next(directory.glob("train-*"))
    validate = PhaseRun._validate

    def spoil(self):
        validate(self)
        if way == "gone":
            shard.unlink(missing_ok=True)
        else:
            shard.write_bytes(shard.read_bytes()[:-100])

    monkeypatch.setattr(PhaseRun, "_validate", spoil)
    found = {"gone": "expected a shard, found none any more", "cut short": "damaged or cut short"}[way]
    with pytest.raises(RunError, match=f"{shard.name}: {found}"):
        run(directory, tmp_path / "job", cache_gb=0.0)
    assert steps_done(tmp_path / "job") > 0


def test_a_feature_directory_with_a_flipped_bit_is_named(data, tmp_path, capsys):
    directory = shutil.copytree(data, tmp_path / "data")
    shard = next(directory.glob("train-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(SystemExit) as exit_:
        task.main(["--data", str(directory), "--job_dir", str(tmp_path / "job"), "--units", "8"])
    assert exit_.value.code == 2 and f"error: {shard}: expected the SHA-256 that" in capsys.readouterr().err


@pytest.fixture(scope="module")
def done(data, tmp_path_factory) -> tuple[pathlib.Path, dict]:
    """A job directory whose run has ended, to be copied, and the figures of its best epoch."""
    job = tmp_path_factory.mktemp("done") / "job"
    return job, run(data, job)


@pytest.mark.parametrize(
    "damage",
    [pytest.param(one, marks=pytest.mark.slow) for one in ("data cut short", "data gone", "index gone")] + ["all gone"],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(data, done, tmp_path, capsys, damage):
    job, expected = shutil.copytree(done[0], tmp_path / "job"), done[1]
    directory = job / "checkpoints/cross_entropy"
    latest = max(directory.glob("*.index"), key=lambda path: int(path.stem.rpartition("-")[2]))
    shard = latest.with_name(f"{latest.stem}.data-00000-of-00001")
    if damage == "data cut short":
        shard.write_bytes(shard.read_bytes()[:1000])
    elif damage == "data gone":
        shard.unlink()
    elif damage == "index gone":
        latest.unlink()
    else:
        for path in directory.glob("*.index"):
            path.write_bytes(b"nothing")
    capsys.readouterr()
    if damage == "all gone":
        with pytest.raises(RunError, match="no checkpoint can be read; give --overwrite to start again"):
            run(data, job)
        return
    again = run(data, job)
    assert again == expected
    assert ("cannot be read" in capsys.readouterr().out) == damage.startswith("data")


def test_damaged_best_weights_are_named(data, done, tmp_path):
    job = shutil.copytree(done[0], tmp_path / "job")
    for path in (job / "best").glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(
        RunError, match=r"best: expected the weights of the best epoch.*give --overwrite to start again"
    ):
        run(data, job)


def test_settings_that_do_not_change_what_is_learned_may_differ_when_going_on(data, done, tmp_path):
    shutil.copytree(done[0], tmp_path / "job")
    run(data, tmp_path / "job", checkpoint_steps=5, keep_checkpoints=1, checkpoint_minutes=2.0)
    assert json.loads((tmp_path / "job/config.json").read_text())["TrainConfig"]["keep_checkpoints"] == 1
