"""Reads products for planning. One reading serves purchases of the same moments.

A product may be a little old; a no, or no answer, serves only those who already waited when it was asked for.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

from chassis.clock import Clock

from fulfillment.domain.product import Product
from fulfillment.ports.supplier import ProductAnswer, Supplier

# Whatever is planned is checked once more by kinguin-gateway, so that a reading may be a little old.
FRESH_SECONDS = 10.0
MOST_READINGS = 10_000


@dataclass(frozen=True, slots=True)
class _Reading:
    answer: ProductAnswer
    time: float


class Products:
    """What the supplier offers, as it was read a moment ago."""

    def __init__(self, supplier: Supplier, clock: Clock) -> None:
        self._supplier = supplier
        self._clock = clock
        self._readings: OrderedDict[str, _Reading] = OrderedDict()
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def read(self, product_id: str, *, fresh: bool = False) -> ProductAnswer:
        """Return a product. Who waits for a reading shares it."""
        begun = self._clock.elapsed()
        since = begun if fresh else begun - FRESH_SECONDS
        lock = self._reading.setdefault(product_id, asyncio.Lock())
        async with lock:
            known = self._readings.get(product_id)
            if known is not None and known.time >= (since if isinstance(known.answer, Product) else begun):
                return known.answer
            time = self._clock.elapsed()
            answer = await self._supplier.read_product(product_id)
            self._keep(product_id, _Reading(answer, time))
            return answer

    def _keep(self, product_id: str, reading: _Reading) -> None:
        self._readings[product_id] = reading
        self._readings.move_to_end(product_id)
        while len(self._readings) > MOST_READINGS:
            self._readings.popitem(last=False)
