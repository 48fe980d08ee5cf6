"""A server on loopback that speaks Vertex AI's JobService, with Google's own messages."""

import concurrent.futures
import contextlib

import grpc
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.types import CreateCustomJobRequest, GetCustomJobRequest
from google.rpc import status_pb2

NAME = "projects/123456/locations/us-central1/customJobs/789"


class JobServer:
    """Keeps the job that is created, and serves its states one after the other, the last one for ever.

    A state may also be a grpc.StatusCode: that look at the job fails with it.
    """

    def __init__(self, states=("SUCCEEDED",), error="", refuse=None):
        self.states, self.error, self.refuse = list(states), error, refuse
        self.requests: list = []
        self.routing: list[str] = []

    def create(self, request, context):
        self.requests.append(request)
        self.routing.append(dict(context.invocation_metadata())["x-goog-request-params"])
        if self.refuse:
            context.abort(*self.refuse)
        return aiplatform_v1.CustomJob(request.custom_job, name=NAME, state="JOB_STATE_PENDING")

    def get(self, request, context):
        self.requests.append(request)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, grpc.StatusCode):
            context.abort(state, "for a moment")
        error = status_pb2.Status(code=3, message=self.error) if state == "FAILED" else None
        return aiplatform_v1.CustomJob(name=request.name, state=f"JOB_STATE_{state}", error=error)


@contextlib.contextmanager
def serving(server: JobServer):
    """Yields what --api_endpoint takes."""

    def method(behaviour, request):
        return grpc.unary_unary_rpc_method_handler(behaviour, request.deserialize, aiplatform_v1.CustomJob.serialize)

    handlers = {
        "CreateCustomJob": method(server.create, CreateCustomJobRequest),
        "GetCustomJob": method(server.get, GetCustomJobRequest),
    }
    grpc_server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    service = "google.cloud.aiplatform.v1.JobService"
    grpc_server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        grpc_server.stop(None)
