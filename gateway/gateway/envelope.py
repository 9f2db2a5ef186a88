"""What surrounds every request: its id, its span, its log line, the security headers, and a bounded body.

Plain ASGI: an error that escapes the application still gets a clean answer with every header.
"""

import asyncio
import time
import uuid
from collections.abc import Mapping

import structlog
from chassis.tracing import span
from opentelemetry.trace import SpanKind
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import problem
from gateway.edge import SCOPE_KEY, Edge
from gateway.errors import BodyTooLarge, BodyTooSlow, EdgeError
from gateway.headers import security_headers
from gateway.metrics import HTTP_SECONDS

logger = structlog.get_logger(__name__)

# Kinguin's longest documented body is under 1 KiB, ours is a public key.
MAXIMUM_BODY_BYTES = 64 * 1024
# A body that is too long is read to here and thrown away, so that its sender gets to read the answer.
MAXIMUM_DISCARDED_BYTES = 8 * 1024 * 1024
BODY_SECONDS = 10.0
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Envelope:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, edge: Edge) -> None:
        self._app = app
        self._edge = edge
        self._headers = security_headers(origin=edge.origin, object_origin=edge.object_origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[SCOPE_KEY] = self._edge
        scope["request_id"] = uuid.uuid4().hex
        scope["rate_limits"] = {}
        scope["routine"] = False
        exchange = _Exchange(scope, send, self._headers)
        with structlog.contextvars.bound_contextvars(http_request_id=scope["request_id"]):
            with span(f"HTTP {scope['method']}", kind=SpanKind.SERVER) as current:
                await self._serve(scope, receive, exchange)
                current.update_name(f"{scope['method']} {exchange.route}")
            exchange.log()

    async def _serve(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            body = await _read_body(receive) if scope["method"] in _WITH_BODY else None
        except EdgeError as error:
            await problem.respond(Request(scope), error)(scope, receive, exchange.send)
            return
        try:
            await self._app(scope, receive if body is None else _replay(body, receive), exchange.send)
        except Exception as error:  # noqa: BLE001 # told below
            # The framework has answered 500 and raises again; an answer that has begun cannot be mended.
            if not exchange.begun:
                response = await problem.unexpected_error(Request(scope), error)
                await response(scope, receive, exchange.send)


class _Exchange:
    """One answer on its way out."""

    def __init__(self, scope: Scope, send: Send, headers: Mapping[str, str]) -> None:
        self._scope = scope
        self._send = send
        self._headers = headers
        self._began = time.perf_counter()
        self._took = 0.0
        self._status = 0

    @property
    def begun(self) -> bool:
        return self._status != 0

    @property
    def route(self) -> str:
        """Return the route's template: an address that strangers make up must not become a label."""
        return getattr(self._scope.get("route"), "path", "unknown")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._took = time.perf_counter() - self._began
            headers = MutableHeaders(scope=message)
            for name, value in {**self._headers, **self._scope["rate_limits"]}.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self._scope["request_id"]
        await self._send(message)

    def log(self) -> None:
        """Write the request's log line: the route, never the address with its ids and queries.

        What a route calls routine comes in floods, and the metrics tell enough of it.
        """
        method = self._scope["method"] if self.route != "unknown" else "other"
        HTTP_SECONDS.labels(method, self.route, str(self._status)).observe(self._took)
        tell = logger.debug if self._scope["routine"] else logger.info
        tell(
            "request served",
            method=self._scope["method"],
            route=self.route,
            status=self._status,
            milliseconds=round(self._took * 1000, 2),
        )


async def _read_body(receive: Receive) -> bytes:
    """Return the whole body. Raises BodyTooLarge or BodyTooSlow."""
    body = bytearray()
    total = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                chunk: bytes = message.get("body", b"")
                total += len(chunk)
                if total <= MAXIMUM_BODY_BYTES:
                    body += chunk
                if not message.get("more_body", False) or total > MAXIMUM_DISCARDED_BYTES:
                    break
    except TimeoutError:
        raise BodyTooSlow("the body did not arrive in time") from None
    if total > MAXIMUM_BODY_BYTES:
        raise BodyTooLarge("the body is too large", metadata={"maximum_bytes": str(MAXIMUM_BODY_BYTES)})
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that hands out the body first and then whatever the client does."""
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
