"""What we take from Beam that it does not document: when a new version of it changes that, a test here says so."""

import importlib
import inspect
import logging
import subprocess
import sys
import types

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider
from apache_beam.portability.api import beam_fn_api_pb2

from pipelines.engines.engine import choose
from pipelines.engines.options import pipeline_options
from scripts.worker_pool import BeamFnExternalWorkerPoolServicer, WorkerPool
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import stores


def test_a_workers_options_are_where_our_stores_take_them_from(monkeypatch):
    monkeypatch.setattr(RuntimeValueProvider, "runtime_options", None)
    assert stores.flag("s3_region_name") is None
    RuntimeValueProvider.set_runtime_options({"s3_region_name": "a worker's"})
    assert stores.flag("s3_region_name") == "a worker's"
    pipeline_options(["--s3_region_name=the launcher's"])
    assert stores.flag("s3_region_name") == "the launcher's"
    pipeline_options([])


def test_flags_can_be_asked_for_while_another_thread_imports_beam(monkeypatch):
    """Its module is there from the start of that, and empty."""
    name = RuntimeValueProvider.__module__
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert stores.flag("s3_region_name") is None


def write_level(path: str) -> None:
    with open(path, "w") as handle:
        handle.write(str(logging.getLogger().level))


@pytest.mark.slow
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
