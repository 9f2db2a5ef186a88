"""Watches products that we have bought: after a webhook soon, and by itself now and then, in case webhooks are lost."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

import structlog
from chassis.clock import Clock
from chassis.errors import ServiceUnavailable

from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.ports.products import DueProduct, Products
from kinguin_gateway.ports.supplier import Supplier

logger = structlog.get_logger(__name__)

REFRESH_SECONDS = 30.0
# As many as the supplier answers in one page (K9).
BATCH = 100
LEASE = timedelta(seconds=60)
# The supplier's clock is not ours.
OVERLAP = timedelta(hours=1)


class KnownProducts:
    """The ids of products that were ever bought, in memory, so that a flood about others costs nothing."""

    def __init__(self, products: Products, clock: Clock) -> None:
        self._products = products
        self._clock = clock
        self._ids: Collection[str] = frozenset()

    def __contains__(self, product_id: str) -> bool:
        return product_id in self._ids

    async def run(self) -> None:
        """Keep up with what is bought until canceled; an update in between is found by polling."""
        while True:
            try:
                self._ids = await self._products.bought()
            except ServiceUnavailable as error:
                logger.warning("bought products were not read", why=error.message)
            await self._clock.sleep(REFRESH_SECONDS)


class ProductWatcher:
    """Reads products that are due, many with one call."""

    def __init__(
        self, products: Products, supplier: Supplier, *, clock: Clock, chance: Callable[[], float], every: timedelta
    ) -> None:
        self._products = products
        self._supplier = supplier
        self._clock = clock
        self._chance = chance
        self._every = every

    async def run(self) -> None:
        """Watch until canceled."""
        while True:
            count = 0
            try:
                count = await self.look()
            except (ServiceUnavailable, SupplierUnavailable, SupplierUnauthorized) as error:
                logger.warning("products were not read", why=error.message)
            await self._clock.sleep(0.1 if count == BATCH else 1.0 + self._chance())

    async def look(self) -> int:
        """Read what is due, and return how many products that were; what fails is leased and comes again."""
        due = await self._products.claim_due(BATCH, lease=LEASE)
        hurried = [each for each in due if each.hurried]
        await self._read(hurried)
        await self._poll([each for each in due if not each.hurried])
        return len(due)

    async def _read(self, due: Sequence[DueProduct]) -> None:
        if not due:
            return
        found = {
            product.product_id: product
            for product in await self._supplier.changed_products([each.product_id for each in due], since=None)
        }
        read = [(each.product_id, found.get(each.product_id)) for each in due]
        await self._products.record(read, (), again=self._gap())

    async def _poll(self, due: Sequence[DueProduct]) -> None:
        if not due:
            return
        since = min((each.read_time for each in due if each.read_time), default=None)
        changed = await self._supplier.changed_products(
            [each.product_id for each in due], since=None if since is None else since - OVERLAP
        )
        read = [(product.product_id, product) for product in changed]
        known = {product_id for product_id, _ in read}
        unchanged = [each.product_id for each in due if each.product_id not in known]
        await self._products.record(read, unchanged, again=self._gap())
        await asyncio.sleep(0)

    def _gap(self) -> timedelta:
        return self._every * (0.75 + self._chance() / 2)
