"""Beam's worker pool for a whole cluster on one machine (`python -m scripts.worker_pool PORT`); see cluster.sh.

Beam's own, apache_beam.runners.worker.worker_pool_main, is meant for one engine worker a machine: it listens on all
interfaces, and knows Python workers by ids that are unique only within one TaskManager or executor. Of two that share a
pool, the first to stop its worker would stop the other's, whose job then hangs (apache-beam 2.77.0, Flink 1.19.3).
Its servicer, from which ours inherits, is not documented.
"""

from __future__ import annotations

import sys
from concurrent import futures

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


class WorkerPool(BeamFnExternalWorkerPoolServicer):
    """Starts workers as Beam's does; each ends by itself when its engine hangs up."""

    def StopWorker(self, request, context):  # noqa: N802 - the name that gRPC calls
        """Leaves the worker alone: its id may be another's too."""
        return beam_fn_api_pb2.StopWorkerResponse()


def main(port: int) -> None:
    """Serves on loopback until the process is ended."""
    server = grpc.server(futures.ThreadPoolExecutor())
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(WorkerPool(use_process=True), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]))
