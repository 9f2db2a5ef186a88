import asyncio
from collections.abc import Callable, Sequence

import pytest
from chassis import worker
from chassis.errors import ServiceUnavailable
from chassis.worker import ClaimLoop


class Work:
    """Pieces to claim, and what became of them."""

    def __init__(self, pieces: Sequence[int]) -> None:
        self.waiting = list(pieces)
        self.done: list[int] = []
        self.running = 0
        self.most_running = 0
        self.limits: list[int] = []
        self.away = 0

    async def claim(self, limit: int) -> Sequence[int]:
        if self.away:
            self.away -= 1
            raise ServiceUnavailable("away")
        self.limits.append(limit)
        claimed, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return claimed

    async def handle(self, piece: int) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0.001)
            if piece < 0:
                raise ValueError(piece)
            if piece == 0:
                await asyncio.Event().wait()
            self.done.append(piece)
        finally:
            self.running -= 1


async def run_until(
    work: Work, is_over: Callable[[], bool], *, concurrency: int = 3, handle_seconds: float = 0.05
) -> None:
    loop = ClaimLoop(
        "example", claim=work.claim, handle=work.handle, handle_seconds=handle_seconds, concurrency=concurrency,
        idle_seconds=0.01,
    )  # fmt: skip
    await stopped_when(loop, is_over)


async def stopped_when(loop: ClaimLoop[int], is_over: Callable[[], bool]) -> None:
    """Run until then, and stop for good: what hangs is not waited for."""
    task = asyncio.create_task(loop.run())
    for _ in range(1000):
        if is_over():
            break
        await asyncio.sleep(0.01)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(task, return_exceptions=True)
    assert is_over()


async def test_everything_is_handled_with_bounded_concurrency() -> None:
    work = Work(range(1, 31))
    await run_until(work, lambda: len(work.done) == 30)
    assert sorted(work.done) == list(range(1, 31))
    assert work.most_running == 3
    assert max(work.limits) == 3
    assert min(work.limits) >= 1


async def test_a_piece_that_fails_or_hangs_does_not_stop_the_others() -> None:
    work = Work([-1, 0, 1, 2])
    await run_until(work, lambda: len(work.done) == 2)
    assert sorted(work.done) == [1, 2]
    assert work.running == 0


async def test_an_idle_loop_sleeps_until_it_is_woken() -> None:
    work = Work([])
    loop = ClaimLoop("example", claim=work.claim, handle=work.handle, handle_seconds=1, idle_seconds=60)
    task = asyncio.create_task(loop.run())
    await asyncio.sleep(0.05)
    assert len(work.limits) == 1
    work.waiting = [1]
    loop.wakeup.set()
    await asyncio.sleep(0.05)
    assert work.done == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_canceled_loop_finishes_what_was_begun_and_begins_nothing_more() -> None:
    release = asyncio.Event()
    work = Work([1, 2, 3, 4])
    handle = work.handle

    async def slow(piece: int) -> None:
        await release.wait()
        await handle(piece)

    loop = ClaimLoop("example", claim=work.claim, handle=slow, handle_seconds=60, concurrency=2)
    task = asyncio.create_task(loop.run())
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    release.set()
    await asyncio.gather(task, return_exceptions=True)
    assert (work.done, work.waiting) == ([1, 2], [3, 4])


async def test_a_loop_that_is_canceled_again_leaves_nothing_running() -> None:
    work = Work([0, 0])
    loop = ClaimLoop("example", claim=work.claim, handle=work.handle, handle_seconds=60)
    task = asyncio.create_task(loop.run())
    for _ in range(2):
        await asyncio.sleep(0.02)
        assert work.running == 2
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert work.running == 0


async def test_leases_of_what_is_under_way_are_extended_and_of_nothing_else() -> None:
    extended: list[Sequence[int]] = []

    async def extend(pieces: Sequence[int]) -> None:
        extended.append(list(pieces))
        if len(extended) == 1:
            raise ServiceUnavailable("away")
        if len(extended) == 2:
            raise ValueError

    work = Work([0, 1])
    loop = ClaimLoop(
        "example", claim=work.claim, handle=work.handle, handle_seconds=60, extend=extend, extend_seconds=0.01
    )
    await stopped_when(loop, lambda: len(extended) > 3)
    assert len(extended) > 3, "one extension that failed must not be the last"
    assert all(pieces == [0] for pieces in extended[1:])


async def test_a_claim_that_fails_cancels_nothing_that_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FAILURE_PAUSE_SECONDS", 0.01)
    work, release = Work([1]), asyncio.Event()
    claim, handle = work.claim, work.handle

    async def broken(limit: int) -> Sequence[int]:
        if work.waiting:
            return await claim(limit)
        release.set()
        raise ZeroDivisionError

    async def slow(piece: int) -> None:
        await release.wait()
        await asyncio.sleep(0.03)
        await handle(piece)

    loop = ClaimLoop("example", claim=broken, handle=slow, handle_seconds=1, idle_seconds=0.01)
    await stopped_when(loop, lambda: work.done == [1])
