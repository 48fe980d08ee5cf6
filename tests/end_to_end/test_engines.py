"""Other engines than the default, really started by scripts/cluster.sh: the same files, also when a worker dies.

Run by `make test-engines`. An engine that cannot be downloaded is skipped, with the reason.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import grpc
import numpy as np
import psutil
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from tests.support import ROOT
from tests.support.outputs import content, read_split
from tests.support.processes import finish, finished, wait_for_shards

pytestmark = pytest.mark.engines

CLUSTER = ROOT / "scripts/cluster.sh"
NO_DOWNLOAD = 3  # cluster.sh's exit status
# What a worker is besides the Python process that Beam starts for it. Prism has no other.
ENGINE_WORKERS = {"flink": "TaskManagerRunner", "spark": "CoarseGrainedExecutorBackend"}


class Cluster:
    """A running engine; `flags` send a pipeline to it."""

    def __init__(self, name: str):
        self.name = name
        self.run = pathlib.Path(os.environ.get("CLUSTER_DIR", ROOT / ".cluster")) / f"run-{name}"
        self.flags = self("flags").stdout.split()

    def __call__(self, command: str) -> subprocess.CompletedProcess:
        return subprocess.run([CLUSTER, self.name, command], capture_output=True, text=True)

    def python_workers(self) -> list[psutil.Process]:
        """Those that run. The pool never waits for those that have ended, which stay its children as zombies."""
        workers = psutil.Process(int((self.run / "pool.pid").read_text())).children()
        return [worker for worker in workers if worker.status() != psutil.STATUS_ZOMBIE]

    def engine_workers(self) -> list[psutil.Process]:
        """Processes of the engine's own, in which tasks run."""
        name = ENGINE_WORKERS[self.name]
        return [p for p in psutil.process_iter(["cmdline"]) if any(name in part for part in p.info["cmdline"] or ())]

    def workers_started(self) -> int:
        """Python workers, since it is up."""
        return (self.run / "pool.log").read_text().count("Starting worker")

    def running_jobs(self) -> list[str]:
        """The states of jobs that have not ended."""
        (endpoint,) = (flag.partition("=")[2] for flag in self.flags if flag.startswith("--job_endpoint="))
        with grpc.insecure_channel(endpoint) as channel:
            service = beam_job_api_pb2_grpc.JobServiceStub(channel)
            jobs = service.GetJobs(beam_job_api_pb2.GetJobsRequest()).job_info
        names = [beam_job_api_pb2.JobState.Enum.Name(job.state) for job in jobs]
        return [name for name in names if name not in ("DONE", "FAILED", "CANCELLED")]


@pytest.fixture(scope="module", params=["flink", "spark", "prism"])
def cluster(request):
    """An engine with two workers (Prism: with one), all of it on loopback."""
    up = subprocess.run([CLUSTER, request.param, "up"], capture_output=True, text=True)
    if up.returncode == NO_DOWNLOAD:
        pytest.skip(up.stderr.strip().splitlines()[-1])
    assert up.returncode == 0, up.stderr
    found = Cluster(request.param)
    assert found("status").returncode == 0
    started = [psutil.Process(int(path.read_text())) for path in found.run.glob("*.pid")]
    yield found
    found("down")
    assert found("status").returncode == 1 and not any(process.is_running() for process in started)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict:
    """Outputs of the default engine, by what made them."""
    return {"directory": tmp_path_factory.mktemp("expected")}


def same_as_direct(expected, key, run, output) -> None:
    """Compares with what the default engine makes, which it does once for all engines."""
    directory = expected["directory"] / key
    if not directory.exists():
        finish(run(directory))
    assert content(output) == content(directory)


def test_the_same_features(cluster, start_features, small_images, expected, tmp_path):
    """Ids, order, captions and, since a forward pass has the same number of threads everywhere, the same bytes."""
    finish(start_features(small_images, tmp_path / "out", *cluster.flags))
    same_as_direct(expected, "small", lambda output: start_features(small_images, output), tmp_path / "out")
    for split in ("train", "val"):
        ones, others = (read_split(path, split) for path in (expected["directory"] / "small", tmp_path / "out"))
        assert len(ones) == {"train": 80, "val": 20}[split]
        assert [r["image/id"] for r in ones] == [r["image/id"] for r in others]
        for one, other in zip(ones, others, strict=True):
            assert one["caption/ids"].tolist() == other["caption/ids"].tolist()
            np.testing.assert_allclose(one["image/feature"], other["image/feature"], rtol=5e-3, atol=5e-3)
    assert cluster.workers_started() >= (1 if cluster.name == "prism" else 2)


def test_a_python_worker_dies(cluster, start_features, many_images, expected, tmp_path):
    process = start_features(many_images, tmp_path / "out", *cluster.flags)
    wait_for_shards(process, tmp_path / "out", 4)
    max(cluster.python_workers(), key=psutil.Process.create_time).kill()
    if cluster.name == "prism":  # it gives the job up; see docs/engines.md
        text = finish(process, status=1)
        assert text.splitlines()[-1].startswith("error: ") and "run the same command to continue" in text
        assert "Traceback" not in text and "ERROR" not in text
        before = finished(tmp_path / "out")
        assert len(before) >= 4
        finish(start_features(many_images, tmp_path / "out", *cluster.flags))
        assert before.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.tfrecord")}.items()
    else:
        finish(process)
    same_as_direct(expected, "many", lambda output: start_features(many_images, output), tmp_path / "out")


def test_the_same_captions_though_an_engine_worker_dies(cluster, start_captions, expected, tmp_path):
    process = start_captions(tmp_path / "out", *cluster.flags)
    if cluster.name in ENGINE_WORKERS:
        wait_for_shards(process, tmp_path / "out", 4)
        cluster.engine_workers()[0].kill()
    finish(process)
    same_as_direct(expected, "captions", start_captions, tmp_path / "out")


def test_ctrl_c_ends_the_job(cluster, start_features, many_images, tmp_path):
    process = start_features(many_images, tmp_path / "out", *cluster.flags)
    wait_for_shards(process, tmp_path / "out", 2)
    assert cluster.running_jobs()
    process.send_signal(signal.SIGINT)
    text = finish(process, status=130)
    assert "error: interrupted; what is finished is kept; run the same command to continue" in text
    assert "Traceback" not in text
    deadline = time.monotonic() + 60
    while cluster.running_jobs():
        assert time.monotonic() < deadline, cluster.running_jobs()
        time.sleep(0.2)


def test_an_error_of_a_worker_is_told_in_one_line(cluster, start_features, small_images, tmp_path):
    (tmp_path / "out/train-00001-of-00004.tfrecord").mkdir(parents=True)  # where a shard's file is to be
    text = finish(start_features(small_images, tmp_path / "out", *cluster.flags), status=1)
    *progress, last = text.strip().splitlines()
    assert all(re.match(r"precision   float32: |\d+/100 images", line) for line in progress)
    assert last.startswith("error: ") and "Is a directory" in last and "run the same command to continue" in last


DASK = ["--runner=DaskRunner", "--dask_npartitions=8"]


def dask_workers(command: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes of the LocalCluster that a command has started."""
    found = {process: " ".join(process.cmdline()) for process in psutil.Process(command.pid).children(recursive=True)}
    return [p for p, line in found.items() if "spawn_main" in line and "resource_tracker" not in line]


@pytest.mark.parametrize("size", [400, 20, 10])
def test_dask_gives_the_same_features(size, start_features, many_images, expected, tmp_path):
    """From one shard of a split to 40 of them."""
    flags = ["--records_per_shard", str(size)]  # the last of a flag counts
    finish(start_features(many_images, tmp_path / "out", *DASK, *flags))
    same_as_direct(
        expected, f"many-{size}", lambda output: start_features(many_images, output, *flags), tmp_path / "out"
    )


def test_dask_goes_on_without_a_worker(start_captions, expected, tmp_path):
    process = start_captions(tmp_path / "out", *DASK)
    wait_for_shards(process, tmp_path / "out", 4)
    workers = dask_workers(process)
    assert len(workers) == 2
    workers[0].kill()
    finish(process)
    same_as_direct(expected, "captions", start_captions, tmp_path / "out")


def test_a_flag_that_the_job_server_does_not_know(cluster, tmp_path):
    command = [sys.executable, "-m", "pipelines.caption", "--images", "x", "--model", "m", "--output", str(tmp_path)]
    found = subprocess.run([*command, *cluster.flags, "--paralelism=2"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2
    assert re.fullmatch(r"error: --paralelism=2: neither this command nor Beam knows this flag.*\n", found.stderr)


def test_no_job_server(tmp_path):
    command = [sys.executable, "-m", "pipelines.caption", "--images", "x", "--model", "m", "--output", str(tmp_path)]
    flags = ["--runner=FlinkRunner", "--job_endpoint=127.0.0.1:1"]
    found = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2 and found.stderr.startswith("error: --job_endpoint: expected a Beam job server at 127")
