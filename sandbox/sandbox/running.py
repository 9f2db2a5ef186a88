"""A running sandbox as one block of code: locked, started, stopped again whatever happens."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sandbox.endpoints import Endpoints
from sandbox.given import Given
from sandbox.layout import Layout
from sandbox.ledger import Ledger
from sandbox.parts import make_nodes
from sandbox.setup import Options, Setup
from sandbox.supervisor import Supervisor, Tell, locked, stop_leftovers


class Interrupted(Exception):
    """Somebody wants it to end: Ctrl-C, SIGTERM, or the terminal was closed."""


@dataclass(frozen=True, slots=True)
class Running:
    """What runs, and what happens when it should end."""

    setup: Setup
    endpoints: Endpoints
    interrupted: asyncio.Event


@asynccontextmanager
async def running(layout: Layout, options: Options, *, tell: Tell) -> AsyncIterator[Running]:
    """Run the sandbox for the length of the block.

    Raises AlreadyRunning, GivenIncomplete or StartFailed before the block, and Interrupted when it was told to end
    before everything was ready.
    """
    with locked(layout):
        for name in await asyncio.to_thread(stop_leftovers, layout):
            tell(f"stopped {name}, left behind by a sandbox that was killed")
        setup = Setup(layout, options, Given.read())
        supervisor = Supervisor(setup, make_nodes(setup, Ledger(layout.started)), tell=tell)
        interrupted = _interruption()
        try:
            yield Running(setup, await _start(supervisor, interrupted), interrupted)
        finally:
            await supervisor.stop()


async def _start(supervisor: Supervisor, interrupted: asyncio.Event) -> Endpoints:
    starting = asyncio.create_task(supervisor.start(), name="start")
    waiting = asyncio.create_task(interrupted.wait(), name="interruption")
    await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not starting.done():
        starting.cancel()
        raise Interrupted
    return starting.result()


def _interruption() -> asyncio.Event:
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    # Ignored under nohup, which wants it to outlive the terminal.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, event.set)
    return event
