"""The public HTTP server, as a process of the chassis serves it."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from gateway.edge import Streams
from gateway.protocol import BoundedHttp

KEEP_ALIVE_SECONDS = 30
BACKLOG = 2048
START_POLL_SECONDS = 0.01


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: the process handles them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Implements the chassis' `Serving`."""

    def __init__(
        self, app: ASGIApp, *, listen: str, streams: Streams, trusted_proxies: Sequence[str], drain_seconds: float
    ) -> None:
        host, _, port = listen.rpartition(":")
        self._streams = streams
        self._socket = socket.create_server((host.strip("[]"), int(port)), backlog=BACKLOG, family=_family(host))
        # Connections inherit it. asyncio sets it on sockets of its own making only, and without it an answer in two
        # pieces waits 40 ms for the client's delayed acknowledgement.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)  # noqa: FBT003 # the signature of the socket module
        config = uvicorn.Config(
            app,
            http=BoundedHttp,
            loop="none",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # Off unless named: uvicorn's own default would believe X-Forwarded-For from this machine.
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Listen."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 # uvicorn has a flag, no event
            await asyncio.sleep(START_POLL_SECONDS)
        if self._serving.done():
            await self._serving

    async def set_serving(self, *, serving: bool) -> None:
        """Do nothing: with everything behind it down, the edge still owes its callers an honest answer."""

    async def drain(self, seconds: float) -> None:
        """Take no new request, end the event streams so that pages connect elsewhere, finish what is in flight."""
        self._streams.stopping.set()
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving}, timeout=seconds)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
