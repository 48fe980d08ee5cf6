"""What we take from Beam that it does not document: when a new version of it changes that, a test here says so."""

import importlib
import inspect
import logging
import subprocess

import apache_beam as beam
import pytest
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp.gcsio import create_storage_client
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider
from apache_beam.portability.api import beam_fn_api_pb2
from google.cloud import storage

from pipelines.engines.engine import choose
from pipelines.engines.options import pipeline_options
from scripts.worker_pool import BeamFnExternalWorkerPoolServicer, WorkerPool
from tests.support.google import BUCKET, emulated_bucket
from tests.support.shelf import ShelfFileSystem
from tfrecords_schema.errors import InputError


class OptionsFileSystem(ShelfFileSystem):
    """Keeps the options that Beam makes it with."""

    def __init__(self, pipeline_options):
        super().__init__(pipeline_options)
        self.given = pipeline_options

    @classmethod
    def scheme(cls):
        return "options"


def test_beams_filesystems_get_their_options_where_objects_py_takes_them_from(monkeypatch):
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    monkeypatch.setattr(RuntimeValueProvider, "runtime_options", None)
    RuntimeValueProvider.set_runtime_options({"s3_region_name": "a worker's"})
    told = FileSystems.get_filesystem("options://x").given
    assert told is RuntimeValueProvider.runtime_options and told["s3_region_name"] == "a worker's"
    options = PipelineOptions([])
    FileSystems.set_options(options)
    assert FileSystems.get_filesystem("options://x").given is FileSystems._pipeline_options is options


def test_a_listing_takes_a_name_as_it_is():
    """`match` would take the first of these for a pattern that finds the second."""
    with emulated_bucket() as bucket:
        for name in ("listed[12]/a.jpg", "listed1/b.jpg", "listed[12]/deeper/c.jpg"):
            bucket.write(name, "123")
        prefix = f"gs://{BUCKET}/listed[12]/"
        FileSystems.set_options(PipelineOptions(["--no_auth"]))
        found = list(FileSystems.get_filesystem(prefix)._list(prefix))
        assert all(isinstance(one, FileMetadata) and one.size_in_bytes == 3 for one in found)
        assert all(one.last_updated_in_seconds > 0 for one in found)
        assert sorted(one.path for one in found) == [f"{prefix}a.jpg", f"{prefix}deeper/c.jpg"]
        assert [m.path for m in FileSystems.match([f"{prefix}*"])[0].metadata_list] == [f"gs://{BUCKET}/listed1/b.jpg"]


def test_beams_client_of_s3_holds_one_of_boto3s_made_by_beams_flags():
    keys = ["--s3_access_key_id=id", "--s3_secret_access_key=key"]
    options = PipelineOptions(["--s3_endpoint_url=http://127.0.0.1:1", "--s3_region_name=eu-central-1", *keys])
    client = boto3_client.Client(options).client
    assert client.meta.endpoint_url == "http://127.0.0.1:1" and client.meta.region_name == "eu-central-1"
    assert all(callable(getattr(client, name)) for name in ("get_object", "head_bucket", "upload_fileobj"))


def test_beams_client_of_google_is_googles():
    assert isinstance(create_storage_client(PipelineOptions([]), use_credentials=False), storage.Client)


def write_level(path: str) -> None:
    with open(path, "w") as handle:
        handle.write(str(logging.getLogger().level))


def test_worker_processes_are_told_to_be_quiet(tmp_path):
    """The real ones."""
    engine = choose(["--direct_num_workers=2", "--direct_running_mode=multi_processing"])
    _ = engine.pipeline | beam.Create([str(tmp_path / "level")]) | beam.Map(write_level)
    engine.pipeline.run().wait_until_finish()
    assert int((tmp_path / "level").read_text()) > logging.CRITICAL


def test_flags_of_all_classes_of_options_are_known():
    """A user's own class too, which may declare what only a parser of Beam's understands."""

    class Own(PipelineOptions):
        @classmethod
        def _add_argparse_args(cls, parser):
            parser.add_value_provider_argument("--flag_of_a_users_own", type=int)

    options = pipeline_options(["--flag_of_a_users_own=3", "--s3_region_name=a", "--machine_type=b", "--num_workers=2"])
    assert options.view_as(Own).flag_of_a_users_own.get() == 3
    with pytest.raises(InputError, match=r"^--flag_of_a_users_owner=3: neither this command nor Beam knows this flag"):
        pipeline_options(["--flag_of_a_users_owner=3"])


def test_the_messages_of_dataflows_client_that_are_let_through():
    client = importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
    assert "monitoring console" in inspect.getsource(client)
    runner = importlib.import_module("apache_beam.runners.dataflow.dataflow_runner")
    assert client._LOGGER is logging.getLogger(client.__name__) and runner._LOGGER is logging.getLogger(runner.__name__)


def test_ours_leaves_a_worker_alone_that_beams_worker_pool_would_stop():
    pool, request = WorkerPool(use_process=True), beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1")
    with subprocess.Popen(["sleep", "60"]) as worker:
        pool._worker_processes["1-1"] = worker
        pool.StopWorker(request, None)
        assert worker.poll() is None
        BeamFnExternalWorkerPoolServicer.StopWorker(pool, request, None)
        assert worker.wait(timeout=30) != 0
