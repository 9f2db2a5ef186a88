"""What the sandbox's small web pages share: one look, strict headers, and a server that ends on SIGTERM."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HERE = Path(__file__).parent
_DRAIN_SECONDS = 2
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Mapping[str, str] = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Templates:
    """Pages of one program, on the common frame. Everything is escaped."""

    def __init__(self, folder: Path) -> None:
        self._environment = Environment(
            loader=FileSystemLoader([folder, _HERE / "templates"]), autoescape=True, undefined=StrictUndefined
        )

    def page(
        self, name: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> HTMLResponse:
        """Render one page."""
        return HTMLResponse(
            self._environment.get_template(name).render(**values), status_code=status, headers=dict(headers or {})
        )


class SafeHeaders:
    """Adds the headers above to every answer that does not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _ready(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("ready\n")


def common_routes() -> list[BaseRoute]:
    """Return the routes that every program has: its look, and whether it is ready."""
    return [Mount("/static", StaticFiles(directory=_HERE / "static")), Route("/readyz", _ready)]


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: `serve` has more than one thing to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: Starlette, listen: str, *, beside: Callable[[], Awaitable[None]] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; `beside` runs along and is canceled at the end."""
    host, _, port = listen.rpartition(":")
    server = _Server(
        uvicorn.Config(
            app,
            host=host,
            port=int(port),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
    )

    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    companion = asyncio.ensure_future(beside()) if beside else None
    try:
        await server.serve()
    finally:
        if companion is not None:
            companion.cancel()
            await asyncio.gather(companion, return_exceptions=True)
