"""The real caption command in processes of its own: killed and gone on with, and on several workers."""

import contextlib
import json
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tests.support import ROOT, commands
from tests.support.outputs import content, rows
from tests.support.processes import ENGINES, finish, finished, wait_for_shards

pytestmark = pytest.mark.slow


def test_killed_half_way_and_at_random_moments(start_captions, undisturbed_captions, tmp_path):
    """No finished file is made again, and the end has the bytes of an undisturbed run."""
    expected = content(undisturbed_captions)
    assert len(rows(undisturbed_captions)) == 400

    output = tmp_path / "killed"
    process = start_captions(output)
    wait_for_shards(process, output, 8)
    process.kill()
    process.wait()
    before = finished(output)
    assert len(before) >= 8 and not (output / "report.json").exists()
    for _ in range(2):
        process = start_captions(output)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 8))
        process.kill()
        process.wait()
    finish(start_captions(output))
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}.items()
    assert content(output) == expected


@pytest.mark.parametrize("engine", ["two processes", "two threads"])
def test_workers_change_nothing(engine, start_captions, undisturbed_captions, tmp_path):
    finish(start_captions(tmp_path / "found", *ENGINES[engine]))
    assert content(tmp_path / "found") == content(undisturbed_captions)


def test_a_hundred_zip_files_with_256_descriptors(many_images, network, model, tmp_path):
    """By `ulimit -n`, for all that the command opens: images of one file lie in most of the archives."""
    paths = sorted((many_images / "train2017").iterdir())
    for number in range(100):
        with zipfile.ZipFile(tmp_path / f"{number:03}.zip", "w") as archive:
            for path in paths[number::100]:
                archive.write(path, path.name)
    flags = {"images": f"{tmp_path}/*.zip", "model": model, "weights": network, "output": f"{tmp_path}/out"}
    command = [sys.executable, "-m", "pipelines.caption", *(x for k, v in flags.items() for x in (f"--{k}", v))]
    limited = ["bash", "-c", 'ulimit -n 256 && exec "$@"', "-", *command, "--rows_per_file", "100"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    text = finish(subprocess.Popen(limited, cwd=ROOT, **pipes))
    assert "380 = 380 used + 0 rejected" in text
    assert rows(tmp_path / "out").keys() == {f"{n % 100:03}/{path.stem}" for n, path in enumerate(paths)}


def test_the_same_image_in_ten_batches(many_images, network, model, tmp_path):
    """Whatever else is captioned beside it, in whatever order, at whatever batch size."""
    paths = [str(path) for path in sorted((many_images / "train2017").iterdir())]
    found = []
    for number in range(10):
        rng = random.Random(number)
        images = [paths[0], *rng.sample(paths[1:], rng.randrange(30))]
        rng.shuffle(images)
        output = tmp_path / str(number)
        flags = {"model": model, "weights": network, "batch_size": rng.randint(1, 17), "beam_width": 5}
        commands.caption(images=images, output=str(output), rows_per_file=rng.randint(5, 40), **flags)
        (row,) = (row for row in rows(output).values() if row["image_uri"] == paths[0])
        found.append(row)
    assert len({json.dumps([c["caption"] for c in row["captions"]]) for row in found}) == 1
    scores = np.array([[c["log_prob"] for c in row["captions"]] for row in found])
    np.testing.assert_allclose(scores, scores[:1].repeat(10, 0), atol=1e-4)
