"""Time that costs nothing: an event loop whose clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.BaseSelector):
    """Waits for nothing but time, and for that not at all. Nothing is ever registered."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits for something that will never happen")
        self.now += max(timeout, 0.0)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        raise AssertionError(f"no sockets in simulated time: {fileobj} {events} {data}")

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise AssertionError(f"no sockets in simulated time: {fileobj}")

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def _make_self_pipe(self) -> None:
        """No sockets."""

    def _close_self_pipe(self) -> None:
        """No sockets."""

    def _write_to_self(self) -> None:
        """Nobody waits to be woken: there is one thread."""


class SimulatedClock:
    """The clock of one process, on the simulated loop; `behind` is how long it was stopped without noticing."""

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.elapsed())

    def elapsed(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def simulate(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end in simulated time; whatever still runs then is canceled."""
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(_cancel_others())
        loop.close()


async def _cancel_others() -> None:
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def stall(seconds: float) -> None:
    """Sleep as a stopped process does: its own timeouts come late, after it was woken."""
    sleeping = asyncio.ensure_future(asyncio.sleep(seconds))
    canceled = False
    while not sleeping.done():
        try:
            await asyncio.shield(sleeping)
        except asyncio.CancelledError:
            canceled = True
    if canceled:
        raise asyncio.CancelledError
