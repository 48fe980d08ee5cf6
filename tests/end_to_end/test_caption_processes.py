"""The real caption command in processes of its own: killed and gone on with, and on several workers."""

import contextlib
import json
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import training_flags, write_features
from tests.end_to_end.test_processes import (  # noqa: F401 - two of them are fixtures
    ENGINES,
    ROOT,
    finish,
    finished,
    many_images,
    network,
    wait_for_shards,
)
from tests.pipelines.test_caption import rows
from tests.pipelines.test_features import content

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(network, many_images, tmp_path_factory) -> str:  # noqa: F811
    """An export for the features of the small network."""
    from trainer import task

    directory = tmp_path_factory.mktemp("model")
    write_features(directory / "features", f"saved_model:{network}", many_images, weights="imagenet", batch_size=8)
    task.run(data=str(directory / "features"), job_dir=str(directory / "job"), **training_flags(epochs=2))
    return str(directory / "job/export")


@pytest.fixture(scope="module")
def mixture(many_images, tmp_path_factory) -> list[str]:  # noqa: F811
    """--images of two kinds: a directory, and a Parquet file that holds images itself."""
    paths = sorted((many_images / "val2017").iterdir())
    cells = pa.table({"image": [path.read_bytes() for path in paths], "name": [f"cell-{path.stem}" for path in paths]})
    table = tmp_path_factory.mktemp("table") / "cells.parquet"
    pq.write_table(cells, table, row_group_size=7)
    return [str(many_images / "train2017"), str(table)]


@pytest.fixture
def start(network, model, mixture):  # noqa: F811
    """A function that starts the real command, 20 images a file."""

    def start(output, *flags) -> subprocess.Popen:
        command = [sys.executable, "-m", "pipelines.caption", "--images", *mixture, "--id_column", "name"]
        fixed = ["--model", model, "--weights", network, "--output", str(output), "--rows_per_file", "20"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            [*command, *fixed, "--batch_size", "8", "--format", "jsonl", "coco", *flags], cwd=ROOT, **pipes
        )

    return start


def test_killed_half_way_and_at_random_moments(start, tmp_path):
    """No finished file is made again, and the end has the bytes of an undisturbed run."""
    finish(start(tmp_path / "undisturbed"))
    expected = content(tmp_path / "undisturbed")
    assert len(rows(tmp_path / "undisturbed")) == 400

    output = tmp_path / "killed"
    process = start(output)
    wait_for_shards(process, output, 8)
    process.kill()
    process.wait()
    before = finished(output)
    assert len(before) >= 8 and not (output / "report.json").exists()
    for _ in range(5):
        process = start(output)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 8))
        process.kill()
        process.wait()
    finish(start(output))
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}.items()
    assert content(output) == expected


@pytest.mark.parametrize("engine", ["two processes", "two threads"])
def test_workers_change_nothing(engine, start, tmp_path):
    finish(start(tmp_path / "expected"))
    finish(start(tmp_path / "found", *ENGINES[engine]))
    assert content(tmp_path / "found") == content(tmp_path / "expected")


def test_the_same_image_in_ten_batches(many_images, network, model, tmp_path):  # noqa: F811
    """Whatever else is captioned beside it, in whatever order, at whatever batch size."""
    from pipelines import caption

    paths = [str(path) for path in sorted((many_images / "train2017").iterdir())]
    found = []
    for number in range(10):
        rng = random.Random(number)
        images = [paths[0], *rng.sample(paths[1:], rng.randrange(30))]
        rng.shuffle(images)
        output = tmp_path / str(number)
        flags = {"model": model, "weights": network, "batch_size": rng.randint(1, 17), "beam_width": 5}
        caption.run(images=images, output=str(output), rows_per_file=rng.randint(5, 40), **flags)
        (row,) = (row for row in rows(output).values() if row["image_uri"] == paths[0])
        found.append(row)
    assert len({json.dumps([c["caption"] for c in row["captions"]]) for row in found}) == 1
    scores = np.array([[c["log_prob"] for c in row["captions"]] for row in found])
    np.testing.assert_allclose(scores, scores[:1].repeat(10, 0), atol=1e-4)
