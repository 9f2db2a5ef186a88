"""The API's description: OpenAPI for programs, and one page of it for people, without anything from elsewhere."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.edge import edge_of

_NOW = "2026-11-23T12:00:00Z"
_METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as the page shows it."""

    method: str
    path: str
    summary: str
    description: str
    parameters: list[Mapping[str, Any]]
    request_example: str
    responses: list[tuple[str, str, str]]


def docs_router(app: FastAPI) -> APIRouter:
    """Return the router of the docs page, which renders the application's own OpenAPI document."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @router.get("/docs")
    async def show_docs(request: Request) -> Response:
        document = app.openapi()
        return edge_of(request).pages.page(
            "docs.html",
            title=document["info"]["title"],
            version=document["info"]["version"],
            description=document["info"]["description"],
            operations=list(_operations(document)),
        )

    return router


def _operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield _operation(document, path, method, methods[method])


def _operation(document: Mapping[str, Any], path: str, method: str, spec: Mapping[str, Any]) -> Operation:
    body = spec.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    responses = []
    for status, response in spec.get("responses", {}).items():
        content: Mapping[str, Any] = next(iter(response.get("content", {}).values()), {})
        # The errors share one form, which the page shows once.
        example = "" if int(status) >= 400 else _example(document, content.get("schema"))  # noqa: PLR2004 # the HTTP error statuses
        responses.append((status, response.get("description", ""), example))
    return Operation(
        method=method.upper(),
        path=path,
        summary=spec.get("summary", ""),
        description=spec.get("description", ""),
        parameters=spec.get("parameters", []),
        request_example=_example(document, body),
        responses=responses,
    )


def _example(document: Mapping[str, Any], schema: Mapping[str, Any] | None) -> str:
    if not schema or schema.get("type") == "string":
        return ""
    return json.dumps(_sample(document, schema), indent=2, ensure_ascii=False)


def _sample(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """Return a made-up value of a schema: its own example, else one made of its parts."""
    if "$ref" in schema:
        return _sample(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return _sample(document, schema["anyOf"][0])
    kind = schema.get("type")
    if kind == "object" and not schema.get("examples"):
        return {name: _sample(document, part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_sample(document, schema["items"])]
    plain = {"integer": 1, "boolean": False}.get(str(kind), "…")
    told = [*schema.get("examples", []), *schema.get("enum", [])]
    return told[0] if told else _NOW if schema.get("format") == "date-time" else plain
