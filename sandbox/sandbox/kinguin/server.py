"""Runs the supplier: two listening sockets, the clockwork behind them, and an orderly end on SIGTERM or SIGINT."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import structlog
import uvicorn
from starlette.types import ASGIApp

from sandbox.kinguin.app import public_app
from sandbox.kinguin.connection import CuttableProtocol
from sandbox.kinguin.control import control_app
from sandbox.kinguin.letters import Headers
from sandbox.kinguin.supplier import Settings, open_supplier
from sandbox.kinguin.webhooks import WORKERS, Post

logger = structlog.get_logger(__name__)

_BACKLOG = 1024
_DRAIN_SECONDS = 2
_KEEP_ALIVE_SECONDS = 30
# The contract wants webhooks answered at once; whoever takes longer gets it again.
_WEBHOOK_TIMEOUT = aiohttp.ClientTimeout(total=5)


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: two servers end together here."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen_on(address: str) -> socket.socket:
    """Return a listening socket for `host:port`; port 0 takes a free one. Raises ValueError or OSError."""
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    return socket.create_server((bare, int(port)), family=family, backlog=_BACKLOG)


@asynccontextmanager
async def _webhook_post(url: str | None) -> AsyncIterator[Post | None]:
    if url is None:
        yield None
        return
    connector = aiohttp.TCPConnector(limit=WORKERS)
    async with aiohttp.ClientSession(connector=connector, timeout=_WEBHOOK_TIMEOUT) as session:

        async def post(body: bytes, headers: Headers) -> int:
            try:
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                    return response.status
            except aiohttp.ClientError as error:
                raise OSError from error

        yield post


def _server(app: ASGIApp) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=CuttableProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
    )


async def serve(settings: Settings, *, public: socket.socket, control: socket.socket, webhook_url: str | None) -> None:
    """Serve until told to end. What is committed is kept; requests in flight have two seconds."""
    async with _webhook_post(webhook_url) as post:
        supplier = open_supplier(settings, post=post)
        servers = (_server(public_app(supplier)), _server(control_app(supplier)))

        def stop() -> None:
            for server in servers:
                server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        background = (
            asyncio.create_task(supplier.deliveries.run(supplier.announce)),
            asyncio.create_task(supplier.webhooks.run()),
        )
        for task in background:
            # A simulator that sells and never delivers would only confuse.
            task.add_done_callback(lambda _task: stop())
        logger.info("listening", public=_address(public), control=_address(control))
        try:
            await asyncio.gather(servers[0].serve([public]), servers[1].serve([control]))
        finally:
            died = [task for task in background if task.done()]
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            supplier.store.close()
        for task in died:
            task.result()


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{host}:{port}"
