"""The real command in processes of their own: every engine that runs here, SIGKILL, Ctrl-C, a full disk.

The network is a small SavedModel, so that a run takes seconds.
"""

import contextlib
import random
import re
import resource
import signal
import subprocess

import numpy as np
import psutil
import pytest

from tests.support.outputs import content, read_split
from tests.support.processes import ENGINES, finish, finished, job_server, wait_for, wait_for_shards
from tfrecords_schema.shards import parse_shard_name


@pytest.mark.slow
def test_killed_half_way(start_features, many_images, undisturbed_features, tmp_path):
    """No finished shard is made again, and the end has the bytes of an undisturbed run."""
    output = tmp_path / "half"
    process = start_features(many_images, output)
    wait_for_shards(process, output, 10)
    process.kill()
    process.wait()
    before = finished(output)
    assert len(before) >= 10 and not (output / "features_info.json").exists()
    text = finish(start_features(many_images, output))
    assert int(re.search(r"shards +20, (\d+) left as they were", text)[1]) >= len(before)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}.items()
    assert content(output) == content(undisturbed_features)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_shard(start_features, many_images, tmp_path):
    """Of one that holds nearly all images: what was written of it is of no use, and in nobody's way."""
    once, output = tmp_path / "once", tmp_path / "killed"
    flags = ("--records_per_shard", "1000")
    finish(start_features(many_images, once, *flags))
    process = start_features(many_images, output, *flags)
    wait_for(process, lambda: any(path.stat().st_size for path in (output / ".work").rglob("train-*.tmp")))
    process.kill()
    process.wait()
    assert not finished(output).keys() & {"train-00000-of-00001.tfrecord"}
    assert not (output / "features_info.json").exists()
    finish(start_features(many_images, output, *flags))
    assert content(output) == content(once) and not (output / ".work").exists()


@pytest.mark.slow
def test_killed_at_random_moments(start_features, many_images, undisturbed_features, tmp_path):
    """From the start of Python to the report, wherever the moment falls; `test_publishing` has more of them."""
    seconds = float((undisturbed_features.parent / "seconds").read_text())
    output, before, rng = tmp_path / "random", {}, random.Random()
    for _ in range(6):
        process = start_features(many_images, output)
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
    finish(start_features(many_images, output))
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}.items()
    assert content(output) == content(undisturbed_features)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_same(engine, start_features, small_images, small_features, tmp_path):
    """Ids, order, captions and, since a forward pass has the same number of threads everywhere, the same bytes."""
    with contextlib.ExitStack() as stack:
        flags = list(ENGINES[engine])
        if engine == "a job server":
            flags.append(f"--job_endpoint=localhost:{stack.enter_context(job_server())}")
        finish(start_features(small_images, tmp_path / "found", *flags))
    for split in ("train", "val"):
        ones, others = (read_split(directory, split) for directory in (small_features, tmp_path / "found"))
        assert [r["image/id"] for r in ones] == [r["image/id"] for r in others]
        for one, other in zip(ones, others, strict=True):
            assert one["caption/ids"].tolist() == other["caption/ids"].tolist()
            np.testing.assert_allclose(one["image/feature"], other["image/feature"], rtol=5e-3, atol=5e-3)
    assert content(tmp_path / "found") == content(small_features)


@pytest.mark.slow
def test_ctrl_c(start_features, many_images, tmp_path):
    process = start_features(many_images, tmp_path / "out")
    wait_for_shards(process, tmp_path / "out", 2)
    process.send_signal(signal.SIGINT)
    text = finish(process, status=130)
    assert "error: interrupted; what is finished is kept; run the same command to continue" in text
    assert "Traceback" not in text and not (tmp_path / "out/report.json").exists()
    before = finished(tmp_path / "out")
    finish(start_features(many_images, tmp_path / "out"))
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.tfrecord")}.items()


@pytest.fixture
def small_disk(tmp_path):
    """A directory of 1 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.slow
def test_a_full_disk_and_going_on_with_more_room(start_features, many_images, undisturbed_features, small_disk):
    output = small_disk / "out"
    network = sum(path.stat().st_size for path in (undisturbed_features / "extractor").rglob("*"))
    (small_disk / "others").write_bytes(b"x" * (900_000 - network))  # room for the network, and some shards
    text = finish(start_features(many_images, output), status=1)
    last = text.strip().splitlines()[-1]
    assert "No space left on device" in last and "run the same command to continue" in last and "Traceback" not in text
    before = finished(output)
    assert before and not (output / "features_info.json").exists()
    assert all(parse_shard_name(path.name) for path in output.glob("*.*") if path.is_file()), "no half-written file"
    (small_disk / "others").unlink()
    finish(start_features(many_images, output))
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}.items()
    assert content(output) == content(undisturbed_features)


def no_more_files(process: subprocess.Popen) -> None:
    """Whatever it opens from now on is one file too many."""
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def kill_a_worker(process: subprocess.Popen) -> None:
    """As the kernel does where memory has run out."""
    below = psutil.Process(process.pid).children(recursive=True)
    workers = [found for found in below if any("sdk_worker" in word for word in found.cmdline())]
    assert workers
    workers[-1].kill()


@pytest.mark.slow
@pytest.mark.parametrize(("happens", "engine"), [(no_more_files, []), (kill_a_worker, ENGINES["two processes"])])
def test_a_machine_at_its_end_rejects_no_image(
    start_features, many_images, undisturbed_features, tmp_path, happens, engine
):
    """From the third shard on: the run ends, and the same command goes on from there."""
    output = tmp_path / "out"
    process = start_features(many_images, output, *engine)
    wait_for_shards(process, output, 3)
    happens(process)
    text = process.communicate(timeout=100)[0]
    # TensorFlow aborts where one of its threads begins and finds no descriptor for /dev/urandom.
    aborted = process.returncode == -signal.SIGABRT and "random_device" in text and happens is no_more_files
    assert (process.returncode == 1 or aborted) and not (output / "report.json").exists(), text
    before = finished(output)
    assert 3 <= len(before) < 20
    text = finish(start_features(many_images, output))
    assert int(re.search(r"shards +20, (\d+) left as they were", text)[1]) >= len(before)
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}.items()
    assert content(output) == content(undisturbed_features)


@pytest.mark.slow
def test_a_read_only_output(start_features, small_images, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    text = finish(start_features(small_images, small_disk / "out"), status=2)
    assert text.startswith("error: --output: expected a directory that can be written to") and text.count("\n") == 1


@pytest.mark.slow
def test_a_rerun_that_keeps_all_features_says_nothing_of_tensorflow(start_features, small_images, tmp_path):
    finish(start_features(small_images, tmp_path / "out"))
    told = finish(start_features(small_images, tmp_path / "out", "--update", "--vocab_size", "9"))
    assert ", 0 new, 0 tried again" in told
    assert "absl" not in told and "oneDNN" not in told
