"""What FastAPI cannot tell of routes that read their bodies themselves: the three forms of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from pipelines.serving.forms import FORM, JSON

_PLACE = "#/components/schemas/{model}"


def body(schema: str, json_alone: bool = False) -> dict[str, Any]:
    """The part of a route's description that tells its body, of which JSON has a schema of this name."""
    content: dict[str, Any] = {JSON: {"schema": {"$ref": _PLACE.format(model=schema)}}}
    if not json_alone:
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        content["image/*"] = {"schema": {"type": "string", "format": "binary"}}
        content[FORM] = {"schema": {"type": "object", "properties": {"image": files}}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, schemas: Sequence[type[BaseModel]]) -> None:
    """Adds schemas that `body` names to the document at /openapi.json."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        places = document.setdefault("components", {}).setdefault("schemas", {})
        for schema in schemas:
            own = schema.model_json_schema(ref_template=_PLACE)
            places |= own.pop("$defs", {})
            places[schema.__name__] = own
        return document

    app.openapi = openapi  # type: ignore[method-assign]
