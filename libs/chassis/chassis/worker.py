"""A loop that claims due work from the database in batches and handles it with bounded concurrency."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from chassis.database import Wakeup
from chassis.errors import ServiceUnavailable
from chassis.metrics import TASK_FAILURES

logger = structlog.get_logger(__name__)

FAILURE_PAUSE_SECONDS = 1.0

T = TypeVar("T")


class ClaimLoop(Generic[T]):
    """Claims what is due and hands each piece to `handle`.

    `claim(limit)` commits a lease on each piece it returns: a piece whose handling fails or whose process dies is
    claimed again when the lease ends, by any replica. `handle` gives up by `handle_seconds`. Without `extend` the lease
    must last longer than that; with it a short lease does, since `extend(pieces)` is called every `extend_seconds` for
    what is being handled: then a dead process is noticed soon and a slow answer is still waited for.
    """

    def __init__(
        self,
        name: str,
        *,
        claim: Callable[[int], Awaitable[Sequence[T]]],
        handle: Callable[[T], Awaitable[None]],
        handle_seconds: float,
        concurrency: int = 16,
        idle_seconds: float = 0.5,
        extend: Callable[[Sequence[T]], Awaitable[None]] | None = None,
        extend_seconds: float = 5.0,
    ) -> None:
        self._name = name
        self._claim = claim
        self._handle = handle
        self._handle_seconds = handle_seconds
        self._concurrency = concurrency
        self._idle_seconds = idle_seconds
        self._extend = extend
        self._extend_seconds = extend_seconds
        self._running: dict[asyncio.Task[None], T] = {}
        self.wakeup = Wakeup()

    async def run(self) -> None:
        """Work until canceled, then finish what was begun; canceled once more, leave it to its lease."""
        extending = asyncio.create_task(self._extend_all())
        try:
            await self._claim_for_ever()
        except asyncio.CancelledError:
            if self._running:
                await asyncio.wait(set(self._running))
            raise
        finally:
            tasks = [extending, *self._running]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim_for_ever(self) -> None:
        while True:
            free = self._concurrency - len(self._running)
            claimed = await self._claim_some(free) if free else ()
            for piece in claimed:
                task = asyncio.create_task(self._handle_one(piece))
                self._running[task] = piece
                task.add_done_callback(self._done)
            if len(claimed) < max(free, 1):
                await self.wakeup.wait(self._idle_seconds)

    async def _extend_all(self) -> None:
        while self._extend is not None:
            await asyncio.sleep(self._extend_seconds)
            pieces = list(self._running.values())
            if not pieces:
                continue
            try:
                await self._extend(pieces)
            except ServiceUnavailable as error:
                logger.warning("leases could not be extended", loop=self._name, why=error.message)
            except Exception:  # leases that run out only cost a second look
                TASK_FAILURES.labels(self._name).inc()
                logger.exception("extending leases failed unexpectedly", loop=self._name)

    def _done(self, task: asyncio.Task[None]) -> None:
        was_full = len(self._running) >= self._concurrency
        self._running.pop(task, None)
        if was_full:
            self.wakeup.set()

    async def _claim_some(self, limit: int) -> Sequence[T]:
        try:
            return await self._claim(limit)
        except ServiceUnavailable as error:
            logger.warning("claiming is held up", loop=self._name, why=error.message)
        except Exception:  # what is being handled must not be canceled for it
            TASK_FAILURES.labels(self._name).inc()
            logger.exception("claiming failed unexpectedly", loop=self._name)
        await asyncio.sleep(FAILURE_PAUSE_SECONDS)
        return ()

    async def _handle_one(self, piece: T) -> None:
        try:
            async with asyncio.timeout(self._handle_seconds):
                await self._handle(piece)
        except (ServiceUnavailable, TimeoutError) as error:
            logger.warning("work is taken up again when its lease ends", loop=self._name, kind=type(error).__name__)
        except Exception:  # one bad piece must not stop the loop
            TASK_FAILURES.labels(self._name).inc()
            logger.exception("work failed unexpectedly", loop=self._name)
