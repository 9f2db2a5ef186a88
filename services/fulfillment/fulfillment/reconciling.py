"""Compares what everybody has written down, and names every difference.

1 claim the report that is due          dies here: its lease ends, and another replica begins a new run of it
2 copy the others' books, by pages      dies here: what was staged belongs to a dead run, and the next one deletes it
3 close the account                     dies here: the report has its balance, and the next run finds it closed
4 compare, ask again, compare again     dies here: as in 2
5 mend what can be: give back what was bought too much, take in keys that nobody was told of
                                        dies here: asked for again it is the same return, and the same keys
6 finish: counts, audit, schedule       one transaction

Of two runs of one report only the later may write: every write asks whether its run still holds the report.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog
from chassis.clock import Clock
from chassis.errors import KeyferryError, ServiceUnavailable

from fulfillment.domain.policy import wait_after
from fulfillment.domain.reconciliation import ASKS, Ask, Limits, Range, Statement, merged
from fulfillment.mending import Mending
from fulfillment.ports.reconciliation import (
    LEASE,
    Candidate,
    LeaseLost,
    Ledgers,
    Looked,
    Report,
    Reports,
    Run,
    TheirBalance,
    TheirKey,
    TheirOrder,
    TheirPurchase,
    TheirTopUp,
)
from fulfillment.report_metrics import show

logger = structlog.get_logger(__name__)

# 31 days of a large shop, at the pace of the supplier's own list.
REPORT_SECONDS = 6 * 3600.0
MOST_TRIES = 8
EVERY = timedelta(hours=1)
# Reports of the schedule overlap by this, for what a crash let be told late.
OVERLAP = timedelta(hours=1)
# A purchase may be asked for well before it is placed, and a key sealed before its name is stored.
SLACK = timedelta(hours=1)
# K50: the supplier takes keys back for a day; what is closer to its end than this is left to a person.
RETURNABLE = timedelta(hours=24)
RETURN_MARGIN = timedelta(minutes=5)
# The balance may be told as it was read last, when the supplier does not answer: that explains nothing.
FRESH_BALANCE = timedelta(minutes=5)
LOOK_BATCH = 200
LOOKS_AT_ONCE = 8
# Beyond so many something is wrong as a whole: the rest is told as it was first seen.
MOST_LOOKS = 50_000
MOST_WATCHED = 5_000
_FIRST_RETRY = timedelta(seconds=10)

T = TypeVar("T")


class Reconciling:
    """Works on reports, one at a time. Any number of replicas may."""

    def __init__(self, reports: Reports, ledgers: Ledgers, mending: Mending, *, clock: Clock, limits: Limits) -> None:
        self._reports = reports
        self._ledgers = ledgers
        self._mending = mending
        self._clock = clock
        self._limits = limits
        self._one_look = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def claim(self, limit: int) -> Sequence[Run]:  # noqa: ARG002 # one at a time, whatever there is room for
        """Ask for the report that the schedule wants, and take the one that is due."""
        now = self._clock.now()
        await self._reports.plan(now=now, every=EVERY, overlap=OVERLAP, grace=self._limits.grace)
        run = await self._reports.claim(now=now, lease=LEASE)
        newest = await self._reports.newest() if run is None else None
        if newest is not None:
            # Whichever replica finished it, all of them show it.
            show(newest, now)
        return [] if run is None else [run]

    async def work(self, run: Run) -> None:
        """Make one report, or leave it to a later try."""
        if run.tries > MOST_TRIES:
            # Its runs died, or failed as nobody foresaw: it must not keep the others waiting for ever.
            await self._put_back(run, "INTERNAL")
            return
        try:
            report = await self._make(run)
        except LeaseLost:
            logger.warning("a report was taken over", report_id=run.report_id)
            return
        except (KeyferryError, TimeoutError) as error:
            why = error.reason if isinstance(error, KeyferryError) else "DEADLINE_EXCEEDED"
            await self._put_back(run, why)
            return
        show(report, self._clock.now())
        logger.info(
            "report is finished", report_id=run.report_id, differences=sum(report.differences.values()), tries=run.tries
        )

    async def _put_back(self, run: Run, why: str) -> None:
        now = self._clock.now()
        again = None if run.tries >= MOST_TRIES else now + wait_after(run.tries, at_least=_FIRST_RETRY, jitter=0.5)
        level = logger.error if again is None else logger.warning
        level("a report could not be made", report_id=run.report_id, why=why, tries=run.tries)
        await self._reports.put_back(run, why, run_at=again, now=now)

    async def _make(self, run: Run) -> Report:
        await self._reports.clear()
        told = await self._ledgers.balance()
        # Read before the supplier's list: what was charged before it is in the list for certain.
        if told is not None and self._clock.now() - told.read_time > FRESH_BALANCE:
            told = None
        until = min(run.span.end, self._clock.now() - self._limits.grace)
        await self._copy(run, until, told)
        balance = await self._close(run, told)
        await self._reports.compare(run, until=until)
        await self._ask_again(run)
        await self._reports.confirm(run, until=until)
        await self._mending.return_surplus(run, since=self._clock.now() - RETURNABLE + RETURN_MARGIN)
        await self._mending.adopt(run)
        counts = await self._reports.count(run)
        report = await self._reports.finish(run, counts=counts, balance=balance, now=self._clock.now())
        try:
            await self._reports.clear()
        except ServiceUnavailable:
            # The report stands; the next one clears first.
            logger.warning("what was staged is left for the next report to delete", report_id=run.report_id)
        return report

    async def _copy(self, run: Run, until: datetime, told: TheirBalance | None) -> None:
        """Stage the others' books: the range with its surroundings, and what is to be paid back by now."""
        now = self._clock.now()
        around = Range(run.span.start - SLACK, min(run.span.end + SLACK, now))
        aged = run.span.until(until).shifted(self._limits.paying_back)
        for span in merged([around, aged]):
            async for purchases in self._ledgers.purchases(span):
                await self._reports.put_purchases(run, purchases)
        for span in (Range(around.start, until), Range(max(until, around.start), around.end)):
            async for keys in self._ledgers.keys(span):
                await self._reports.put_keys(run, keys, since=span.start)
        books = await self._reports.books()
        # From a little before the books were closed: an order may show late in the supplier's list.
        since = books.close_time - SLACK if books else now - SLACK
        for span in merged([around, *([Range(since, now + self._limits.skew)] if told else [])]):
            async for orders in self._ledgers.supplier_orders(span):
                await self._reports.put_orders(run, orders, since=span.start)
        await self._reports.watch(run, now=now)
        await self._copy_watched(run)

    async def _copy_watched(self, run: Run) -> None:
        after, seen = "", 0
        while seen < MOST_WATCHED and (watched := await self._reports.watched(after=after, limit=LOOK_BATCH)):
            found = await self._all(self._ledgers.orders_like("", number) for number in watched)
            await self._reports.put_orders(run, [each for orders in found for each in orders], since=run.span.start)
            after, seen = watched[-1], seen + len(watched)

    async def _close(self, run: Run, told: TheirBalance | None) -> Statement | None:
        if told is None:
            return None
        books = await self._reports.books()
        top_ups: list[TheirTopUp] = []
        if books is not None:
            # From the beginning of the books: a top-up may be noted long after it was made. There are few.
            async for page in self._ledgers.top_ups(Range(books.open_time, told.read_time)):
                top_ups += page
        return await self._reports.close(run, told, top_ups)

    async def _ask_again(self, run: Run) -> None:
        after: tuple[str, str] | None = None
        seen = 0
        while batch := await self._reports.candidates(run, after=after, limit=LOOK_BATCH):
            await self._reports.look_again(run, await self._look(batch))
            after, seen = (batch[-1].kind, batch[-1].subject), seen + len(batch)
            if seen >= MOST_LOOKS:
                logger.error("too many candidates to look at each again", report_id=run.report_id, looked=seen)
                return

    async def _look(self, batch: Sequence[Candidate]) -> Looked:
        wanted = {ask: [each for each in batch if ask in ASKS[each.kind]] for ask in Ask}
        purchases = {each.external_id: each.order_id for each in wanted[Ask.PURCHASE] if each.external_id}
        key_ids = sorted({each.key_id for each in wanted[Ask.KEY] if each.key_id})
        numbers = sorted({each.supplier_order_id for each in wanted[Ask.SUPPLIER_ORDER] if each.supplier_order_id})
        found: list[TheirPurchase | None] = await self._all(
            self._ledgers.purchase(name, order_id) for name, order_id in purchases.items()
        )
        keys: list[TheirKey | None] = await self._all(self._ledgers.key(key_id) for key_id in key_ids)
        orders: list[Sequence[TheirOrder]] = await self._all(self._ledgers.orders_like("", name) for name in numbers)
        return Looked(
            purchases=dict(zip(purchases, found, strict=True)),
            keys=dict(zip(key_ids, keys, strict=True)),
            orders=[each for some in orders for each in some],
            gone_orders=[name for name, some in zip(numbers, orders, strict=True) if not some],
        )

    async def _all(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        async def one(call: Coroutine[Any, Any, T]) -> T:
            async with self._one_look:
                return await call

        tasks = [asyncio.create_task(one(call)) for call in calls]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
