"""The real command in processes of their own: every engine that runs here, SIGKILL, Ctrl-C, a full disk.

The network is a small SavedModel, so that a run takes seconds.
"""

import contextlib
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from pipelines.storage import files
from scripts import scenes
from tests.pipelines.test_features import content, read_split
from tests.support import ROOT
from tfrecords_schema.shards import parse_shard_name


@pytest.fixture(scope="module")
def many_images(tmp_path_factory) -> pathlib.Path:
    """COCO's layout with 400 images."""
    directory = tmp_path_factory.mktemp("many")
    scenes.write_coco(directory, train=380, val=20, size=(160, 120))
    return directory


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    """A SavedModel of ten seeded convolutions: about 100 images/s on two cores."""
    generator = np.random.default_rng(0)
    module = tf.Module()
    sizes = [(3, 32), *[(32, 32)] * 9]
    module.kernels = [tf.Variable(generator.normal(0, 0.1, (3, 3, *size)).astype(np.float32)) for size in sizes]

    @tf.function(input_signature=[tf.TensorSpec([None, 128, 128, 3], tf.float32, name="images")])
    def serve(images):
        images = images / 255
        for kernel in module.kernels:
            images = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
        return {"features": tf.reduce_mean(images, (1, 2))}

    module.serve = serve
    path = str(tmp_path_factory.mktemp("network") / "model")
    tf.saved_model.save(module, path, signatures={"serving_default": serve})
    return path


@pytest.fixture
def start(network):
    """A function that starts the real command, 20 images a shard."""

    def start(coco_dir, output, *flags) -> subprocess.Popen:
        command = [sys.executable, "-m", "pipelines.features", "--coco_dir", str(coco_dir), "--output", str(output)]
        fixed = ["--extractor", f"saved_model:{network}", "--min_word_count", "1", "--max_caption_length", "16"]
        sizes = ["--records_per_shard", "20", "--batch_size", "8"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*command, *fixed, *sizes, *flags], cwd=ROOT, **pipes)

    return start


def finish(process: subprocess.Popen, status: int = 0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def finished(output: pathlib.Path) -> dict[str, int]:
    """When each finished shard was written."""
    sidecars = [path.name.removesuffix(".json") for path in (output / files.WORK).glob("*.json")]
    return {name: (output / name).stat().st_mtime_ns for name in sidecars if parse_shard_name(name)}


def wait_for_shards(process: subprocess.Popen, output: pathlib.Path, count: int) -> None:
    deadline = time.monotonic() + 200
    while len(finished(output)) < count:
        assert process.poll() is None and time.monotonic() < deadline, "expected shards to appear"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_half_way_and_at_twenty_random_moments(start, many_images, tmp_path):
    """No finished shard is made again, and the end has the bytes of an undisturbed run."""
    began = time.monotonic()
    finish(start(many_images, tmp_path / "undisturbed"))
    seconds = time.monotonic() - began
    expected = content(tmp_path / "undisturbed")

    output = tmp_path / "half"
    process = start(many_images, output)
    wait_for_shards(process, output, 10)
    process.kill()
    process.wait()
    before = finished(output)
    assert len(before) >= 10 and not (output / "dataset_info.json").exists()
    text = finish(start(many_images, output))
    assert int(re.search(r"shards +20, (\d+) left as an earlier run made them", text)[1]) >= len(before)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}.items()
    assert content(output) == expected

    output, before, rng = tmp_path / "random", {}, random.Random()
    for _ in range(20):
        process = start(many_images, output)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, seconds))
        process.kill()
        process.wait()
        if (output / "report.json").exists():  # it was quicker than the kill
            before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}
            continue
        now = finished(output)
        assert before.items() <= now.items() or not now, "a finished shard was made again"
        before = now or before
    finish(start(many_images, output))
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}.items()
    assert content(output) == expected


ENGINES = {
    "two processes": ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
    "two threads": ["--direct_num_workers=2", "--direct_running_mode=multi_threading"],
    "BundleBasedDirectRunner": ["--runner=BundleBasedDirectRunner"],
    "a job server": ["--runner=PortableRunner", "--environment_type=LOOPBACK"],
}


@contextlib.contextmanager
def job_server():
    """Beam's local job service on a port of its own choice."""
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"port (\d+)|localhost:(\d+)", line):
                yield found[1] or found[2]
                break
        else:
            raise AssertionError("the job server did not start")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def small_images(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("small")
    scenes.write_coco(directory, train=80, val=20, size=(160, 120))
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_same(engine, start, small_images, tmp_path):
    """Ids, order, captions and, since a forward pass has the same number of threads everywhere, the same bytes."""
    finish(start(small_images, tmp_path / "expected"))
    with contextlib.ExitStack() as stack:
        flags = list(ENGINES[engine])
        if engine == "a job server":
            flags.append(f"--job_endpoint=localhost:{stack.enter_context(job_server())}")
        finish(start(small_images, tmp_path / "found", *flags))
    for split in ("train", "val"):
        ones, others = (read_split(tmp_path / name, split) for name in ("expected", "found"))
        assert [r["image/id"] for r in ones] == [r["image/id"] for r in others]
        for one, other in zip(ones, others, strict=True):
            assert one["caption/ids"].tolist() == other["caption/ids"].tolist()
            np.testing.assert_allclose(one["image/feature"], other["image/feature"], rtol=5e-3, atol=5e-3)
    assert content(tmp_path / "found") == content(tmp_path / "expected")


@pytest.mark.slow
def test_ctrl_c(start, many_images, tmp_path):
    process = start(many_images, tmp_path / "out")
    wait_for_shards(process, tmp_path / "out", 2)
    process.send_signal(signal.SIGINT)
    text = finish(process, status=130)
    assert "error: interrupted; what is finished is kept, the same command goes on from there" in text
    assert "Traceback" not in text and not (tmp_path / "out/report.json").exists()
    before = finished(tmp_path / "out")
    finish(start(many_images, tmp_path / "out"))
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.tfrecord")}.items()


@pytest.fixture
def small_disk(tmp_path):
    """A directory of 512 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(directory)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.slow
def test_a_full_disk_and_going_on_with_more_room(start, many_images, small_disk, tmp_path):
    output = small_disk / "out"
    (small_disk / "others").write_bytes(b"x" * 400_000)
    text = finish(start(many_images, output), status=1)
    last = text.strip().splitlines()[-1]
    assert (
        "No space left on device" in last and "the same command goes on from there" in last and "Traceback" not in text
    )
    before = finished(output)
    assert before and not (output / "dataset_info.json").exists()
    assert all(parse_shard_name(path.name) for path in output.glob("*.*") if path.is_file()), "no half-written file"
    (small_disk / "others").unlink()
    finish(start(many_images, output))
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}.items()
    finish(start(many_images, tmp_path / "undisturbed"))
    assert content(output) == content(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_read_only_output(start, small_images, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    text = finish(start(small_images, small_disk / "out"), status=2)
    assert text.startswith("error: --output: expected a directory that can be written to") and text.count("\n") == 1
