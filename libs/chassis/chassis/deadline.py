"""The time that is left for the work at hand, carried along without being passed along.

A server sets the deadline of the request it serves; calls made on the way take what is left of it, less a little, so
that this service and not its caller can say which step was slow.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

# Kept back for rendering and returning the answer: a caller that waits 1 s gets our own error after 0.98 s.
RETURN_OVERHEAD = 0.02
# Below this nothing useful can be finished, so that it is better not to begin.
LEAST_USEFUL = 0.05

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def remaining(at_most: float) -> float:
    """Return the seconds that the next step may take: what the deadline leaves, and never above `at_most`."""
    deadline = _deadline.get()
    if deadline is None:
        return at_most
    return max(0.0, min(at_most, deadline - asyncio.get_running_loop().time()))


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Run the block with a deadline of at most this many seconds; TimeoutError when it passes."""
    seconds = remaining(seconds)
    token = _deadline.set(asyncio.get_running_loop().time() + seconds)
    try:
        async with asyncio.timeout(seconds):
            yield
    finally:
        _deadline.reset(token)
