"""The service's description: the three forms of a request, which FastAPI cannot tell, and a page of all of it.

FastAPI's own page loads its scripts from elsewhere, which one without the internet cannot, and others should not.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from pipelines.serving.forms import FORM, JSON

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 0 auto; padding: 1.5rem; font: 1rem/1.45 system-ui, sans-serif; }
td { overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 0.3rem 0.8rem 0.3rem 0; text-align: left; vertical-align: top; border-top: 1px solid #8888; }
pre { padding: 0.8rem; overflow-x: auto; background: #8882; }
"""
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


def page(document: dict[str, Any]) -> str:
    """The document at /openapi.json as a web page, without a script."""
    title = html.escape(f"{document['info']['title']} {document['info']['version']}")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    head = f"<head>{head}<style>{_STYLE}</style></head>"
    return f'<!doctype html><html lang="en">{head}<body>{_body(document)}</body></html>'


def _body(document: dict[str, Any]) -> str:
    routes = [_route(way, path, of) for path, ways in document["paths"].items() for way, of in ways.items()]
    schemas = [
        f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3><pre>{_told(schema)}</pre>'
        for name, schema in document["components"]["schemas"].items()
    ]
    return f"<h1>{html.escape(document['info']['title'])}</h1>{''.join(routes)}<h2>Types</h2>{''.join(schemas)}"


def _route(way: str, path: str, route: dict[str, Any]) -> str:
    parts = [f"<h2>{way.upper()} {html.escape(path)}</h2><p>{html.escape(route['summary'])}"]
    parts.append(f". {html.escape(route.get('description', ''))}</p>")
    if rows := "".join(_parameter(one) for one in route.get("parameters", ())):
        parts.append(f"<h3>Query</h3><table><tr><th>name<th>type<th>meaning</tr>{rows}</table>")
    if asked := route.get("requestBody"):
        parts.append(f"<h3>Body</h3><table>{''.join(_contents(asked['content']))}</table>")
    answers = [f"<tr><td>{html.escape(status)}<td>{_first(of)}</tr>" for status, of in route["responses"].items()]
    return "".join([*parts, f"<h3>Answers</h3><table>{''.join(answers)}</table>"])


def _parameter(one: dict[str, Any]) -> str:
    schema = one["schema"]
    kind = next((each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"), schema)
    shown = ", ".join(f"{name} {kind[name]}" for name in ("minimum", "maximum") if name in kind)
    told = " ".join(filter(None, (kind.get("type", ""), shown)))
    return (
        f"<tr><td>{html.escape(one['name'])}<td>{html.escape(told)}<td>{html.escape(one.get('description', ''))}</tr>"
    )


def _contents(content: dict[str, Any]) -> Iterator[str]:
    for kind, of in content.items():
        yield f"<tr><td>{html.escape(kind)}<td>{_type(of.get('schema', {}))}</tr>"


def _first(answer: dict[str, Any]) -> str:
    content = answer.get("content", {})
    return _type(next(iter(content.values())).get("schema", {})) if content else ""


def _type(schema: dict[str, Any]) -> str:
    """A link to a type, or the schema itself."""
    name = html.escape(schema.get("$ref", "").rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>' if name else f"<code>{_told(schema, None)}</code>"


def _told(schema: dict[str, Any], indent: int | None = 2) -> str:
    return html.escape(json.dumps(schema, indent=indent, ensure_ascii=False))
