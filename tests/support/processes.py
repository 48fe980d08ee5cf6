"""Commands in processes of their own: when they have come so far, and how they end."""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from tfrecords_schema.shards import parse_shard_name
from tfrecords_schema.storage import files

# Beam's flags for each engine that runs here without a download.
ENGINES = {
    "two processes": ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
    "two threads": ["--direct_num_workers=2", "--direct_running_mode=multi_threading"],
    "BundleBasedDirectRunner": ["--runner=BundleBasedDirectRunner"],
    "a job server": ["--runner=PortableRunner", "--environment_type=LOOPBACK"],
}


def finish(process: subprocess.Popen, status: int = 0) -> str:
    """Waits for its end, which must have this exit status; what it said, a stderr of its own last."""
    stdout, stderr = process.communicate(timeout=300)
    text = stdout + (stderr or "")
    assert process.returncode == status, text
    return text


def wait_for(process: subprocess.Popen, condition: Callable[[], bool], timeout_s: float = 200) -> None:
    """Waits until something is so, while the process runs."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it did not come so far"
        time.sleep(0.01)


def finished(output: pathlib.Path) -> dict[str, int]:
    """When each finished shard of a run of a pipeline was written."""
    sidecars = [path.name.removesuffix(".json") for path in (output / files.WORK).glob("*.json")]
    return {name: (output / name).stat().st_mtime_ns for name in sidecars if parse_shard_name(name)}


def wait_for_shards(process: subprocess.Popen, output: pathlib.Path, count: int) -> None:
    """Waits until a pipeline has finished so many shards."""
    wait_for(process, lambda: len(finished(output)) >= count)


@contextlib.contextmanager
def job_server() -> Iterator[str]:
    """The port of Beam's local job service, which chooses it."""
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
