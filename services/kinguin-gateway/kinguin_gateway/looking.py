"""Looks at purchases whose time has come: placed ones for news, doubtful ones for a settlement. It never buys."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from kinguin_gateway.domain.looking import Pace, gap, is_change, is_finished, release_gap
from kinguin_gateway.domain.purchase import Purchase, PurchaseState
from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.ports.purchases import Due, Purchases
from kinguin_gateway.ports.supplier import Supplier
from kinguin_gateway.settling import Settler

logger = structlog.get_logger(__name__)

# What writing down a look may add to the supplier's own time.
HANDLE_MARGIN = timedelta(seconds=2)
LEASE_MARGIN = timedelta(seconds=1)


class Watcher:
    """The polling behind promise 2: no webhook is needed for a purchase to be seen through to its end."""

    def __init__(
        self,
        purchases: Purchases,
        supplier: Supplier,
        settler: Settler,
        *,
        pace: Pace,
        call_limit: timedelta,
        chance: Callable[[], float],
    ) -> None:
        self._purchases = purchases
        self._supplier = supplier
        self._settler = settler
        self._pace = pace
        self._chance = chance
        self.handle_limit = call_limit + HANDLE_MARGIN

    async def claim(self, limit: int) -> Sequence[Due]:
        """Lease purchases whose look is due, for longer than `look` may take."""
        return await self._purchases.claim_due(limit, lease=self.handle_limit + LEASE_MARGIN)

    async def look(self, due: Due) -> None:
        """Ask the supplier about one purchase and write down what is new."""
        if due.purchase.state is PurchaseState.IN_DOUBT:
            await self._settler.settle(due.purchase, due.time)
        else:
            await self._look_at_placed(due.purchase, due.time)

    async def _look_at_placed(self, purchase: Purchase, now: datetime) -> None:
        wait = gap(self._pace, purchase.looks, self._chance())
        try:
            order = await self._supplier.read_order(purchase.supplier_order_id)
        except (SupplierUnavailable, SupplierUnauthorized) as error:
            logger.warning("supplier was not asked", external_id=purchase.intent.external_id, why=error.message)
            order = None
        if order is None:
            # The supplier may answer before its own order can be read. Ask again; a missing order is no reason to buy.
            await self._purchases.postpone(purchase, look=wait)
            return
        finished = is_finished(purchase, order, purchase.sealed_count)
        if is_change(purchase, order):
            # A purchase that moves is likely to move on soon.
            wait = min(wait, gap(self._pace, 0, self._chance()))
        if order.preorder and order.release_time is not None:
            wait = release_gap(wait, now=now, release_time=order.release_time)
        await self._purchases.record_look(purchase, order, look=None if finished else wait)
