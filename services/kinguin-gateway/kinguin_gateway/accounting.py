"""Watches the money on our account, so that somebody is told before it runs out (K65)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from chassis.clock import Clock
from chassis.errors import ServiceUnavailable
from chassis.paging import read_page_token, write_page_token

from kinguin_gateway.domain.account import Balance, Reading, TopUp
from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.metrics import BALANCE_DAYS_LEFT, BALANCE_EUROS
from kinguin_gateway.places import read_moment, read_uuid
from kinguin_gateway.ports.account import Account, TopUpFilter, TopUpOrder
from kinguin_gateway.ports.supplier import Supplier

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TopUpPage:
    """Some top-ups, and the token of the next page; empty on the last one."""

    top_ups: Sequence[TopUp]
    next_page_token: str


class Accountant:
    """Reads the balance now and then, and on demand. Every replica may: a reading by one serves all."""

    def __init__(
        self,
        account: Account,
        supplier: Supplier,
        *,
        clock: Clock,
        chance: Callable[[], float],
        every: timedelta,
        alert_days: float,
    ) -> None:
        self._account = account
        self._supplier = supplier
        self._clock = clock
        self._chance = chance
        self._every = every
        self._alert_days = alert_days
        self._was_low = False

    async def run(self) -> None:
        """Watch until canceled."""
        while True:
            try:
                await self.watch()
            except (ServiceUnavailable, SupplierUnavailable, SupplierUnauthorized) as error:
                logger.warning("balance was not read", why=error.message)
            await self._clock.sleep(self._every.total_seconds() * (0.75 + self._chance() / 2))

    async def watch(self) -> None:
        """Read the balance unless another replica just did; raise the alarm once when it becomes low."""
        last = await self._account.last_reading()
        if last is None or self._clock.now() - last.read_time > self._every / 2:
            last = await self._account.record_reading(await self._supplier.read_balance())
        balance = await self._estimate(last)
        BALANCE_EUROS.set(last.balance_cents / 100)
        BALANCE_DAYS_LEFT.set(float("inf") if balance.days_left is None else balance.days_left)
        if balance.low and not self._was_low:
            logger.error("balance is low", balance_cents=last.balance_cents, days_left=balance.days_left)
        self._was_low = balance.low

    async def balance(self) -> Balance:
        """Return the balance as it is now; while the supplier is away, as it was read last.

        Raises SupplierUnavailable or SupplierUnauthorized where it never was.
        """
        try:
            reading = await self._account.record_reading(await self._supplier.read_balance())
        except (SupplierUnavailable, SupplierUnauthorized):
            last = await self._account.last_reading()
            if last is None:
                raise
            reading = last
        return await self._estimate(reading)

    async def record_top_up(self, order: TopUpOrder) -> str:
        """Keep a top-up and return its name."""
        return await self._account.record_top_up(order)

    async def top_ups(self, wanted: TopUpFilter, *, size: int, token: str) -> TopUpPage:
        """Return one page, the first added first. Raises InvalidRequest for a token of another listing."""
        filters = [str(time or "") for time in (wanted.start_time, wanted.end_time)]
        place = read_page_token(filters, token, parts=2)
        after = None if place is None else (read_moment(place[0]), read_uuid(place[1]))
        found = await self._account.top_ups(wanted, size=size + 1, after=after)
        shown = found[:size]
        last = [shown[-1].top_up_time.isoformat(), shown[-1].top_up_id] if len(found) > size else None
        return TopUpPage(shown, "" if last is None else write_page_token(filters, last))

    async def _estimate(self, reading: Reading) -> Balance:
        return Balance(reading, await self._account.daily_cents(), self._alert_days)
