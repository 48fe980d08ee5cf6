"""Mistakes in the flags that are left for Beam: one line, exit status 2, and nothing begun."""

import contextlib
import socket

import pytest

from pipelines.engines import running
from pipelines.engines.engine import choose
from tests.support import google
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import objects

DATAFLOW = ["--runner=DataflowRunner", "--sdk_container_image=i", "--project=my-project", "--region=europe-west4"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bath_size=3"], "--bath_size=3: neither this command nor Beam knows this flag"),
        (["--runner=Nonsense"], "--runner: expected one of Beam's runners, found 'Nonsense'"),
        (["--runner=os.path"], "--runner: expected one of Beam's runners, found 'os.path'"),
        (["--runner=PortableRunner"], "--job_endpoint: expected the HOST:PORT of a Beam job server, found none"),
        (["--dry_run=True"], "--dry_run: expected only with --runner=DataflowRunner"),
        (["--direct_num_workers=-3"], "--direct_num_workers: expected at least 0, found -3"),
        (["--runner=FlinkRunner", "--job_endpoint=127.0.0.1:1"], "--job_endpoint: expected a Beam job server at 127.0"),
        ([*DATAFLOW], "--temp_location: expected gs://BUCKET/NAME"),
        ([*DATAFLOW, "--temp_location=/tmp/t"], "--temp_location: expected gs://BUCKET/NAME, found /tmp/t"),
        (
            [*DATAFLOW, "--temp_location=gs://captioning-tests/t", "--region=x"],
            "--region: expected a region such as",
        ),
        (
            [DATAFLOW[0], DATAFLOW[1], DATAFLOW[3], "--temp_location=gs://captioning-tests/t"],
            "--project: expected a value, found none",
        ),
        (
            [*DATAFLOW, "--temp_location=gs://captioning-tests/t", "--project=My Proj"],
            "Invalid Project ID .My Proj",
        ),
        (
            [DATAFLOW[0], "--temp_location=gs://captioning-tests/t"],
            "--sdk_container_image: expected an image",
        ),
        (["--runner=dask", "--dask_npartition=3"], "--dask_npartition=3: neither this command nor Beam knows this"),
    ],
)
def test_a_mistake_is_told(flags, message):
    with google.emulated_bucket(), pytest.raises(InputError, match=message) as found:
        choose(flags)
    assert "\n" not in str(found.value)


def test_a_gpu_needs_an_image_and_not_only_a_package():
    flags = [DATAFLOW[0], *DATAFLOW[2:], "--temp_location=gs://captioning-tests/t", "--setup_file=./setup.py"]
    with google.emulated_bucket():
        assert choose(flags).name == "dataflow"
        with pytest.raises(InputError, match="--sdk_container_image: expected an image of"):
            choose(flags, gpu="nvidia-l4")


@pytest.fixture
def job_server():
    """The endpoint of a gRPC server that knows no method, as an engine that tells no flags of its own."""
    from concurrent import futures

    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--job_endpoint: expected --runner beside it, found none"),
        (
            ["--runner=PrismRunner", "--environment_type=X"],
            "--environment_type: expected one of DOCKER",
        ),
        (
            ["--runner=PrismRunner", "--environment_type=EXTERNAL"],
            "--environment_config: expected HOST:PORT",
        ),
        (
            ["--runner=PrismRunner", "--environment_type=EXTERNAL", "--environment_config=127.0.0.1:1"],
            "--environment_config: expected a worker pool at 127.0.0.1:1, found none: Connection refused; start one",
        ),
    ],
)
def test_a_mistake_beside_a_job_server_is_told(job_server, flags, message):
    with pytest.raises(InputError, match=message):
        choose([*flags, f"--job_endpoint={job_server}"])


def test_a_job_servers_own_flags_are_known():
    """Also those that Beam has by the same name."""
    from concurrent import futures

    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    class Server(beam_job_api_pb2_grpc.JobServiceServicer):
        def DescribePipelineOptions(self, request, context):  # noqa: N802 - the name that gRPC calls
            names = ("own_parallelism", "job_name")
            found = [beam_job_api_pb2.PipelineOptionDescriptor(name=name) for name in names]
            return beam_job_api_pb2.DescribePipelineOptionsResponse(options=found)

    server = grpc.server(futures.ThreadPoolExecutor(1))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(Server(), server)
    flags = ["--runner=PrismRunner", f"--job_endpoint=127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"]
    server.start()
    choose([*flags, "--own_parallelism=3", "--job_name=mine"])
    with pytest.raises(InputError, match=r"^--other_parallelism=3: neither this command nor Beam knows this flag"):
        choose([*flags, "--other_parallelism=3"])
    server.stop(None)


def test_an_engine_by_any_spelling(job_server):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as pool:
        environment = ["--environment_type=EXTERNAL", f"--environment_config=127.0.0.1:{pool.getsockname()[1]}"]
        found = choose(["--runner=prism", f"--job_endpoint={job_server}", *environment])
    assert found.name == "prism" and type(found.pipeline.runner).__name__ == "PrismRunner"
    for spelling in ("DaskRunner", "dask", "apache_beam.runners.dask.dask_runner.DaskRunner"):
        found = choose([f"--runner={spelling}", "--dask_npartitions=8"])
        assert found.name == "dask" and type(found.pipeline.runner).__name__ == "DaskRunner"
    for spelling in ([], ["--runner=DirectRunner"], ["--runner=direct"]):
        assert type(choose(spelling).pipeline.runner).__name__ == "FnApiRunner"


def test_the_cause_of_an_error_is_its_workers_own_or_its_first_line():
    wrapped = RuntimeError("java.util: failed\nTraceback (most recent call last):\nValueError: made to fail")
    assert running._cause(wrapped) == "ValueError: made to fail"
    assert running._cause(RuntimeError("panic in a goroutine\n/root/go/errgroup.go:78 +0x95")) == (
        "RuntimeError: panic in a goroutine"
    )


def test_places_that_dataflows_workers_do_not_see(monkeypatch):
    with google.emulated_bucket():
        engine = choose([*DATAFLOW, "--temp_location=gs://captioning-tests/t"])
    monkeypatch.setattr(objects, "require_bucket", lambda bucket: None)  # these there are not
    engine.require_reachable(output="gs://b/out", images=["gs://b/a", "s3://b/c"], model=None)
    with pytest.raises(InputError, match=r"--images: expected a place that Dataflow's workers see, .* found photos/a"):
        engine.require_reachable(output="gs://b/out", images=["gs://b/a", "photos/a"])
    choose([]).require_reachable(images="photos/a")


def test_ctrl_c_leaves_a_dataflow_job_running_and_says_how_to_end_it(monkeypatch):
    class Result:
        """Of a job that must not be cancelled."""

        def job_id(self):
            return "2026-11-21_1"

    with google.emulated_bucket():
        engine = choose([*DATAFLOW, "--temp_location=gs://captioning-tests/t"])
    monkeypatch.setattr(running, "_elsewhere", [(engine, Result())])
    assert running.let_go() == (
        "the job goes on at Dataflow; gcloud dataflow jobs cancel 2026-11-21_1 --project=my-project "
        "--region=europe-west4 ends it"
    )
