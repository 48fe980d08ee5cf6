"""The routes of the service, as an ASGI application."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from pipelines.captions import exports
from pipelines.captions.captioning import Captioned, as_row
from pipelines.items import Reject
from pipelines.serving import forms, metrics, openapi, page, schemas
from pipelines.serving.admission import HeldBytes
from pipelines.serving.door import Door
from pipelines.serving.errors import GoneError, RequestError
from pipelines.serving.service import Service
from tfrecords_schema import __version__
from tfrecords_schema.manifests import caption_table

_OWN = "/v1/captions"
_FREE = {"/", "/docs", "/livez", "/openapi.json", "/readyz"}  # which tell nothing that is worth a token
_IN_ROW = ("height", "width", "captions", caption_table.ATTENTION)


def make_app(service: Service, token: str = "", environ: Mapping[str, str] | None = None) -> Door:
    """The service's routes.

    Args:
      token: that clients must send; "" for none.
      environ: may have Vertex AI's AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE.
    """
    given = environ or {}
    predict, health = given.get("AIP_PREDICT_ROUTE", ""), given.get("AIP_HEALTH_ROUTE", "")
    app = FastAPI(title="Captions", version=__version__, docs_url=None, redoc_url=None)
    _add_captions(app, service, predict)
    _add_probes(app, service, health)
    _add_pages(app)
    for kind, told in (
        (RequestError, lambda error: error),
        (RequestValidationError, lambda error: RequestError(422, "options", forms.told(error.errors()))),
        (Exception, lambda _: RequestError(500, "fault", "internal error; the log of the service has the details")),
        (HTTPException, lambda error: RequestError(error.status_code, "route", str(error.detail))),
    ):
        app.exception_handler(kind)(_teller(told))
    return Door(app, service.metrics, token, free={*_FREE, health}, counted={_OWN, predict})


def _add_captions(app: FastAPI, service: Service, predict_route: str) -> None:
    """Adds the routes that caption; that of Vertex AI where it has a name."""
    limits = service.config.limits
    options = schemas.options(limits.max_beam_width)
    own, vertex = schemas.requests(options)
    refused = {status: {"model": schemas.RefusedAnswer} for status in (400, 401, 408, 413, 415, 422, 429, 503, 504)}

    @app.post(
        _OWN,
        response_model=schemas.CaptionsAnswer,
        response_model_exclude_none=True,
        responses=refused,  # type: ignore[arg-type]
        openapi_extra=openapi.body("CaptionsRequest"),
        summary="Captions of one image or several",
    )
    async def captions(request: Request, query: Annotated[options, Query()]) -> Response:  # type: ignore[valid-type]
        """The file of an image as the body, several files of a form, or JSON; 422 where no image could be used."""
        objects, timing = await _answered(service, request, own, "images", query)
        content = {"model": service.loaded().info.digest, "images": objects, "timing": timing}
        return JSONResponse(content, 422 if all("error" in one for one in objects) else 200)

    if predict_route:

        @app.post(
            predict_route,
            response_model=schemas.PredictAnswer,
            responses=refused,  # type: ignore[arg-type]
            openapi_extra=openapi.body("PredictRequest", json_alone=True),
            summary="The same in Vertex AI's form",
        )
        async def predict(request: Request) -> Response:
            """Instances in, predictions out: one for each, in their order."""
            objects, _ = await _answered(service, request, vertex, "instances", options.model_validate({}))
            return JSONResponse({"predictions": objects, "model": service.loaded().info.digest})

    @app.get("/v1/model", response_model=schemas.ModelAnswer, summary="Which model, and what a request may hold")
    async def model() -> schemas.ModelAnswer:
        info = service.loaded().info
        return schemas.ModelAnswer(
            model=info.digest,
            attention=exports.has_attention(info),
            urls=service.fetcher is not None,
            max_images=limits.max_images,
            max_request_mb=limits.max_request_mb,
        )

    openapi.describe(app, [own, vertex] if predict_route else [own])


def _add_probes(app: FastAPI, service: Service, health_route: str) -> None:
    @app.get("/livez", summary="Whether the process answers")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    async def ready() -> dict[str, str]:
        service.loaded()
        return {"status": "ready"}

    for route in dict.fromkeys(["/readyz", health_route or "/readyz"]):
        app.get(route, summary="Whether requests are answered: the model is loaded and warmed up")(ready)

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def figures() -> Response:
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


def _add_pages(app: FastAPI) -> None:
    whole, headers = page.page()

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return HTMLResponse(whole, headers=headers)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return HTMLResponse(openapi.page(app.openapi()), headers=openapi.HEADERS)


async def _answered(
    service: Service, request: Request, schema: Any, field: str, query: Any
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """(An object for each image, the times in milliseconds).

    Args:
      schema, field: of the request's JSON, and which of its fields has the images.
      query: options of the query; those of its JSON take their place.
    """
    started, limits = time.monotonic(), service.config.limits
    service.loaded()  # before a byte of the body is read
    with service.admission.bytes_of() as held:
        most = limits.max_request_mb * 1_000_000
        found = await forms.read(request, schema, field, held, most, limits.upload_s)
        if found.options is not None and query.model_fields_set:
            raise RequestError(422, "options", "expected options in the JSON, found some in the query too")
        options = found.options or query
        if not 1 <= len(found.images) <= limits.max_images:
            told = f"expected 1 to {limits.max_images} images, found {len(found.images)}"
            raise RequestError(413 if found.images else 422, "images", told)
        uploaded = time.monotonic()
        service.metrics.stage_s.labels("upload").observe(uploaded - started)
        images = [_source(service, one, held) for one in found.images]
        work = service.caption(images, service.asking(options))
        answer = await _unless_gone(request, _in_time(work, limits.timeout_s))
    times = {"upload_ms": uploaded - started, "decode_ms": answer.decode_s, "caption_ms": answer.caption_s}
    objects = [_object(one, options) for one in answer.outcomes]
    return objects, {name: round(1000 * seconds, 1) for name, seconds in times.items()}


def _source(service: Service, image: bytes | str, held: HeldBytes) -> Any:
    if isinstance(image, bytes):
        return image
    if service.fetcher:
        return functools.partial(service.fetcher.fetch, image, held.add)
    raise RequestError(422, "urls", "expected images, found a URL; the service takes some if it runs with --allow_urls")


async def _in_time(work: Awaitable[Any], timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise RequestError(504, "timeout", f"no captions within {timeout_s:g} seconds", 2) from None
    except BaseExceptionGroup as group:  # of a TaskGroup; all of its images have one request
        raise group.exceptions[0] from None


async def _unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """What `work` gives; it is cancelled once the client has closed the connection."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([doing, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise GoneError
        return doing.result()
    finally:
        for task in (doing, leaving):
            task.cancel()
            with contextlib.suppress(BaseException):
                await task


def _object(outcome: Captioned | Reject, options: Any) -> dict[str, Any]:
    """An image's part of the answer: its row of a table, without what a request does not know; or its reject."""
    if isinstance(outcome, Reject):
        told = outcome.printable()
        return {"error": {name: told[name] for name in ("stage", "error", "message")}}
    row: dict[str, Any] = {
        name: value for name, value in as_row(outcome, options.word_scores).items() if name in _IN_ROW
    }
    looked = row.pop(caption_table.ATTENTION, None)
    if options.attention and looked is not None:
        row["attention"] = [{"word": one["word"], "weights": one["weights"].tolist()} for one in looked]
    return row


def _teller(told: Callable[[Any], RequestError]) -> Callable[[Request, Any], Awaitable[Response]]:
    async def tell(request: Request, error: Any) -> Response:
        refusal = told(error)
        request.scope["outcome"] = refusal.code
        content = {"error": {"code": refusal.code, "message": refusal.message}}
        return JSONResponse(content, refusal.status, refusal.headers())

    return tell
