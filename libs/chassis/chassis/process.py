"""The life of a service process: hardening, logs, traces, signals, background tasks, readiness, drain."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol, TypeVar

import structlog
import uvloop

from chassis.errors import KeyferryError
from chassis.failpoints import configure_failpoints
from chassis.logs import configure_logs, tell_uncaught_exceptions
from chassis.memory import forbid_memory_dumps
from chassis.metrics import TASK_FAILURES
from chassis.private_http import serve_private_port
from chassis.settings import ServiceSettings, SettingsError
from chassis.tracing import configure_tracing, shutdown_tracing

logger = structlog.get_logger(__name__)

READINESS_SECONDS = 2.0
CHECK_SECONDS = 1.5
RESTART_SECONDS = (0.2, 1.0, 5.0, 15.0, 30.0)
# A task that ran this long was well; its next failure is its first again.
HEALTHY_SECONDS = 60.0

T = TypeVar("T")
S = TypeVar("S", bound=ServiceSettings)


class Serving(Protocol):
    """Something that takes requests: the gRPC server, or the edge's HTTP server."""

    async def start(self) -> None:
        """Listen."""
        ...

    async def set_serving(self, *, serving: bool) -> None:
        """Tell whether requests should be sent here."""
        ...

    async def drain(self, seconds: float) -> None:
        """Take no new request and finish those in flight."""
        ...


class Process:
    """What a composition root assembles a service with. Everything entered is left in reverse order at the end."""

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        self.name = name
        self._settings = settings
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._checks: dict[str, Callable[[], Awaitable[None]]] = {}
        self._on_drain: list[Callable[[], None]] = []
        self._ready = False
        self._stopping = asyncio.Event()

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open a resource for the life of the process."""
        return await self._stack.enter_async_context(manager)

    def check(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        """Make readiness depend on a probe that raises when something is missing."""
        self._checks[name] = probe

    def on_drain(self, act: Callable[[], None]) -> None:
        """Call this when the drain begins: whatever would otherwise last is ended now."""
        self._on_drain.append(act)

    def spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a background loop until the process drains; one that fails is started again, ever more slowly."""
        self._tasks.append(asyncio.create_task(self._supervise(name, run), name=name))

    async def serve(self, server: Serving) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        with serve_private_port(self._settings.keyferry_private_listen, lambda: self._ready):
            await server.start()
            watcher = asyncio.create_task(self._watch_readiness(server), name="readiness")
            logger.info("started")
            await self._stopping.wait()
            logger.info("draining")
            watcher.cancel()
            self._ready = False
            for act in self._on_drain:
                act()
            await server.drain(self._settings.keyferry_drain_seconds)
            await self._cancel_tasks([watcher, *self._tasks])
            logger.info("stopped")

    async def close(self) -> None:
        """Leave everything that was entered, in reverse order."""
        await self._cancel_tasks(self._tasks)
        await self._stack.aclose()

    async def _cancel_tasks(self, tasks: list[asyncio.Task[None]]) -> None:
        """Cancel, let what was begun be finished, and cancel once more.

        A task may lose the first: on Python 3.11 `wait_for` drops it when its answer comes at the same moment.
        """
        pending = set(tasks)
        for _ in range(2):
            if pending:
                for task in pending:
                    task.cancel()
                _, pending = await asyncio.wait(pending, timeout=self._settings.keyferry_drain_seconds / 2)
        if pending:
            logger.error("background tasks did not end", tasks=sorted(task.get_name() for task in pending))

    async def _watch_readiness(self, server: Serving) -> None:
        while True:
            ready = await self._all_well()
            if ready != self._ready:
                logger.info("readiness changed", ready=ready)
            self._ready = ready
            await server.set_serving(serving=ready)
            await asyncio.sleep(READINESS_SECONDS)

    async def _all_well(self) -> bool:
        for name, probe in self._checks.items():
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await probe()
            except (KeyferryError, TimeoutError, OSError) as error:
                logger.warning("not ready", missing=name, kind=type(error).__name__)
                return False
        return True

    async def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        structlog.contextvars.bind_contextvars(task=name)
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await run()
            except Exception:  # a loop that ends in silence is the worst outcome
                TASK_FAILURES.labels(name).inc()
                logger.exception("background task failed")
            else:
                return
            failures = 0 if loop.time() - began > HEALTHY_SECONDS else failures + 1
            await asyncio.sleep(RESTART_SECONDS[min(failures, len(RESTART_SECONDS)) - 1])


def run_process(name: str, settings: S, assemble: Callable[[Process, S], Awaitable[Serving]]) -> None:
    """Run a service: `assemble` opens what it needs and returns its server; this returns after the drain."""
    forbid_memory_dumps()
    configure_logs(name, settings.keyferry_log_level)
    tell_uncaught_exceptions()
    configure_tracing(name, trace_file=settings.keyferry_trace_file, otlp_endpoint=settings.keyferry_otlp_endpoint)
    configure_failpoints(settings.keyferry_failpoints)

    try:
        uvloop.run(_live(name, settings, assemble))
    except SettingsError as refusal:
        # What could only be found out by looking: its sentences are made for whoever starts the service.
        logger.critical("refused to start", why=str(refusal))
        sys.stderr.write(f"{refusal}\n")
        raise SystemExit(2) from None
    except Exception as error:
        # Python's own last word would print the exception's text, which may hold anything.
        logger.critical("stopped by a failure", exc_info=error)
        raise SystemExit(1) from None
    finally:
        shutdown_tracing()


async def _live(name: str, settings: S, assemble: Callable[[Process, S], Awaitable[Serving]]) -> None:
    asyncio.get_running_loop().set_exception_handler(_tell_stray_error)
    process = Process(name, settings)
    try:
        await process.serve(await assemble(process, settings))
    finally:
        await process.close()


def _tell_stray_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio's own handler prints the repr of tasks and their exceptions.
    logger.error("error outside of any call", what=context.get("message", ""), exc_info=context.get("exception"))
