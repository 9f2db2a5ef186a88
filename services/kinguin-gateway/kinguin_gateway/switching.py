"""Lets parked purchases go again, in their order. It never buys: whoever asked for a purchase is told to ask again."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from chassis.clock import Clock
from chassis.errors import ServiceUnavailable

from kinguin_gateway.domain.switching import BuyingStatus, PauseCause
from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.metrics import BUYING_PAUSED, PURCHASES_PARKED
from kinguin_gateway.ports.supplier import Supplier
from kinguin_gateway.ports.switch import Switch

if TYPE_CHECKING:
    from datetime import datetime

logger = structlog.get_logger(__name__)

# How soon a change is noticed that another replica, or a person, has made.
IDLE_SECONDS = 5.0
# While something waits: soon at first, then ever less often; money and credentials come from people.
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 120.0
GROWTH = 1.6
# Nothing that was let go came back for so long: the trouble is over.
CALM_SECONDS = 2 * LONGEST_SECONDS
# Purchases that one round lets go. They are asked for all at once.
BATCH = 100


class Releaser:
    """Watches the switch, and what it waits for. Every replica runs one; of two that release at once, one does."""

    def __init__(self, switch: Switch, supplier: Supplier, *, clock: Clock, chance: Callable[[], float]) -> None:
        self._switch = switch
        self._supplier = supplier
        self._clock = clock
        self._chance = chance
        self._let_go: datetime | None = None
        self._came_back = False
        self._trouble_time = float("-inf")
        self._wait = FIRST_SECONDS

    async def run(self) -> None:
        """Watch until canceled."""
        while True:
            try:
                waits, released = await self.look()
            except ServiceUnavailable as error:
                logger.warning("switch cannot be read", why=error.message)
                waits, released = False, 0
            await self._clock.sleep(self._gap(waits=waits, released=released) * (0.75 + self._chance() / 2))

    def _gap(self, *, waits: bool, released: int) -> float:
        """Return the seconds to the next look.

        Soon, when something was let go, unless the first that was let go before stands in line again: a supplier that
        shows enough money and refuses orders for want of it would otherwise be asked for ever, as fast as we can.
        """
        now = self._clock.elapsed()
        if waits and (self._came_back or not released):
            self._trouble_time = now
            self._wait = min(self._wait * GROWTH, LONGEST_SECONDS)
            return self._wait
        if now - self._trouble_time > CALM_SECONDS:
            self._wait = FIRST_SECONDS
        return FIRST_SECONDS if waits else IDLE_SECONDS

    async def look(self) -> tuple[bool, int]:
        """Look once; return whether anything waits to be let go, and how many purchases were."""
        status = await self._switch.status()
        _measure(status)
        oldest = status.oldest_parked
        self._came_back = self._let_go is not None and oldest is not None and oldest <= self._let_go
        if status.cause is PauseCause.OPERATOR or (not status.paused and not status.parked_count):
            return False, 0
        balance = None
        if status.paused:
            try:
                balance = await self._supplier.read_balance()
            except (SupplierUnavailable, SupplierUnauthorized) as error:
                logger.warning("buying stays paused", cause=status.cause.value, why=error.message)
                return True, 0
            if status.cause is PauseCause.UNAUTHORIZED:
                # We are let in again, and what is on the account is a matter of the next answer.
                balance = None
        released = await self._switch.release(BATCH, balance_cents=balance)
        if released:
            self._let_go = oldest
        return True, released


def _measure(status: BuyingStatus) -> None:
    PURCHASES_PARKED.set(status.parked_count)
    for cause in PauseCause:
        if cause is not PauseCause.NONE:
            BUYING_PAUSED.labels(cause.value).set(status.cause is cause)
