"""Answers that nobody can read, or only somebody patient: what proxies, outages and bugs make of a JSON body (K3)."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Literal

from starlette.responses import Response, StreamingResponse

BodyShape = Literal["type", "kindless", "html", "empty", "huge", "mislabeled", "truncated", "null"]

HUGE_BYTES = 8 * 1024 * 1024
_PAGE = b"<!DOCTYPE html>\n<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\n"
# So many pieces that no single one takes long: a deadline for each read never ends it, one for the whole call does.
_DRIPS = 20
_OWN_LENGTH = "content-length"


def garbled(response: Response, shape: BodyShape) -> Response:
    """Return the answer with its status and headers, but with a body as `shape` says."""
    body, media_type = _garble(bytes(response.body), shape, response.headers.get("content-type", "application/json"))
    kept = {name: value for name, value in response.headers.items() if name not in {_OWN_LENGTH, "content-type"}}
    return Response(body, response.status_code, {**kept, "content-type": media_type})


def _garble(body: bytes, shape: BodyShape, media_type: str) -> tuple[bytes, str]:
    match shape:
        case "type" | "kindless":
            body = _without(body, shape)
        case "html":
            body, media_type = _PAGE, "text/html"
        case "empty":
            body = b""
        case "huge":
            body += b" " * HUGE_BYTES
        case "mislabeled":
            media_type = "text/html; charset=iso-8859-1"
        case "truncated":
            body = body[: len(body) // 2]
        case "null":
            body = b"null"
    return body, media_type


def _without(body: bytes, shape: BodyShape) -> bytes:
    """Return the body of a failure with `type` for its `title`, or without its `kind`; any other body as it is."""
    problem = json.loads(body)
    if not isinstance(problem, dict) or "kind" not in problem:
        return body
    if shape == "kindless":
        del problem["kind"]
    elif "title" in problem:
        problem["type"] = problem.pop("title")
    return json.dumps(problem).encode()


def dripping(response: Response, seconds: float) -> Response:
    """Return an answer whose body takes so long in all to arrive, a few bytes at a time."""
    body = bytes(response.body)
    size = max(1, -(-len(body) // _DRIPS))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]

    async def drip() -> AsyncIterator[bytes]:
        for piece in pieces:
            await asyncio.sleep(seconds / len(pieces))
            yield piece

    return StreamingResponse(drip(), response.status_code, dict(response.headers))
