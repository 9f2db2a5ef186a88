"""Lets parked purchases go again, in their order. It never buys: whoever asked for a purchase is told to ask again."""

import asyncio
from collections.abc import Callable

import structlog
from chassis.clock import Clock
from chassis.errors import ServiceUnavailable

from kinguin_gateway.domain.switching import BuyingStatus, PauseCause
from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.metrics import BUYING_PAUSED, PURCHASES_PARKED
from kinguin_gateway.ports.supplier import Supplier
from kinguin_gateway.ports.switch import Switch

logger = structlog.get_logger(__name__)

# How soon a change is noticed that another replica, or a person, has made.
IDLE_SECONDS = 5.0
# While something waits: soon at first, then ever less often; money and credentials come from people.
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 120.0
GROWTH = 1.6
# Purchases that one round lets go. They come back all at once.
BATCH = 100


class Releaser:
    """Watches the switch, and what it waits for. Every replica runs one; of two that release at once, one does."""

    def __init__(self, switch: Switch, supplier: Supplier, *, clock: Clock, chance: Callable[[], float]) -> None:
        self._switch = switch
        self._supplier = supplier
        self._clock = clock
        self._chance = chance

    async def run(self) -> None:
        """Watch until canceled."""
        wait = FIRST_SECONDS
        while True:
            try:
                waits, released = await self.look()
            except ServiceUnavailable as error:
                logger.warning("switch cannot be read", why=error.message)
                waits, released = False, 0
            # After something was let go there is soon more to see; while nothing can be, ever less often.
            wait = FIRST_SECONDS if released else min(wait * GROWTH, LONGEST_SECONDS)
            wait = wait if waits else IDLE_SECONDS
            await self._clock.sleep(wait * (0.75 + self._chance() / 2))

    async def look(self) -> tuple[bool, int]:
        """Look once; return whether anything waits to be let go, and how many purchases were."""
        status = await self._switch.status()
        _measure(status)
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
        released = 0
        while count := await self._switch.release(BATCH, balance_cents=balance):
            released += count
            await asyncio.sleep(0)
        return True, released


def _measure(status: BuyingStatus) -> None:
    PURCHASES_PARKED.set(status.parked_count)
    for cause in PauseCause:
        if cause is not PauseCause.NONE:
            BUYING_PAUSED.labels(cause.value).set(status.cause is cause)
