"""Reads a product before it is bought. One reading serves purchases of the same moments; a no is always a fresh one."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

from chassis.clock import Clock

from kinguin_gateway.domain.offers import Checked, check
from kinguin_gateway.domain.purchase import Intent, Product
from kinguin_gateway.ports.supplier import Supplier

# The price that is sent is a limit of its own, so that a reading may be a little old.
FRESH_SECONDS = 20.0
MOST_READINGS = 10_000


@dataclass(frozen=True, slots=True)
class _Reading:
    product: Product | None
    time: float


class Checker:
    """Says whether a product can be bought as intended, before anything is sent."""

    def __init__(self, supplier: Supplier, clock: Clock) -> None:
        self._supplier = supplier
        self._clock = clock
        self._readings: OrderedDict[str, _Reading] = OrderedDict()
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def check(self, intent: Intent, country_code: str) -> Checked:
        """Return a refusal or the price to send. Raises SupplierUnavailable or SupplierUnauthorized."""
        begun = self._clock.elapsed()
        checked = check(await self._read(intent.product_id, since=begun - FRESH_SECONDS), intent, country_code)
        if checked.refusal is None:
            return checked
        return check(await self._read(intent.product_id, since=begun), intent, country_code)

    async def _read(self, product_id: str, *, since: float) -> Product | None:
        """Return the product as it was read at that moment or later. Who waits for a reading shares it."""
        lock = self._reading.setdefault(product_id, asyncio.Lock())
        async with lock:
            known = self._readings.get(product_id)
            if known is not None and known.time >= since:
                return known.product
            time = self._clock.elapsed()
            product = await self._supplier.read_product(product_id)
            self._readings[product_id] = _Reading(product, time)
            self._readings.move_to_end(product_id)
            while len(self._readings) > MOST_READINGS:
                self._readings.popitem(last=False)
            return product
