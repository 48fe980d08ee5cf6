"""The real commands in processes of their own: several workers, and SIGKILL."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.test_features import content, read_split

ROOT = pathlib.Path(__file__).parent.parent


def start(coco_dir, output, *flags) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipelines.features", "--coco_dir", str(coco_dir), "--output", str(output)]
    fixed = ["--weights", "random", "--min_word_count", "1", "--max_caption_length", "16", "--records_per_shard", "4"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *fixed, *flags], cwd=ROOT, **pipes)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_killed_and_in_two_processes(coco_dir, tmp_path):
    """A run that was killed ends with the bytes of an undisturbed one; two worker processes give the same records."""
    killed = start(coco_dir, tmp_path / "killed")
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "killed").glob("*.tfrecord"))) < 3:
        assert killed.poll() is None and time.monotonic() < deadline, "expected shards to appear"
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.tfrecord")}
    assert not (tmp_path / "killed/dataset_info.json").exists()
    assert "from an earlier run" in finish(start(coco_dir, tmp_path / "killed"))
    kept = [name for name, made in finished.items() if (tmp_path / "killed" / name).stat().st_mtime_ns == made]
    assert len(kept) >= len(finished) - 1, "all but one whose sidecar was not written yet"

    finish(start(coco_dir, tmp_path / "undisturbed"))
    assert content(tmp_path / "killed") == content(tmp_path / "undisturbed")

    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    finish(start(coco_dir, tmp_path / "two", *flags))
    for split in ("train", "val"):
        ones, twos = (read_split(tmp_path / name, split) for name in ("undisturbed", "two"))
        assert [r["image/id"] for r in ones] == [r["image/id"] for r in twos]
        for one, two in zip(ones, twos, strict=True):
            assert one["caption/ids"].tolist() == two["caption/ids"].tolist()
            np.testing.assert_allclose(one["image/feature"], two["image/feature"], rtol=5e-3, atol=5e-3)
