"""Finds out what came of a purchase in doubt. Looks and writes down; it never buys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from kinguin_gateway.domain.guard import MOST_ATTEMPTS, NEVER_TAKEN, Absent, Bounds, Found, Unsettled, judge
from kinguin_gateway.domain.looking import SETTLE_MARGIN, Pace, doubt_gap, gap
from kinguin_gateway.domain.purchase import Problem, Purchase, SupplierOrder
from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.metrics import PURCHASES, SURPLUS_ORDERS
from kinguin_gateway.ports.purchases import Due, Purchases
from kinguin_gateway.ports.supplier import Supplier

logger = structlog.get_logger(__name__)

# Somebody else is at this purchase now; asking again this soon finds out what came of it.
BUSY_WAIT = timedelta(seconds=1)
# After this anybody may search for what an attempt came to. Its sender may be dead; and if it still waits for its
# answer, whichever of the two learns of the order first writes it down.
LEASE = timedelta(seconds=3)
# When a search that failed is made again.
VERIFY_LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Others:
    """Orders under a purchase's reference that it does not keep. Of `strange` ones, not asked for, a person decides.

    `complete`: everything that the supplier counts was seen.
    """

    surplus: Sequence[SupplierOrder]
    strange: Sequence[SupplierOrder]
    complete: bool


class Settler:
    """Searches by our reference, adopts what is found, and notes an absence once it is proved."""

    def __init__(
        self, purchases: Purchases, supplier: Supplier, *, bounds: Bounds, pace: Pace, chance: Callable[[], float]
    ) -> None:
        self._purchases = purchases
        self._supplier = supplier
        self._bounds = bounds
        self._pace = pace
        self._chance = chance

    async def settle(self, purchase: Purchase, now: datetime) -> Purchase:
        """Search once and write what it proves; `now` is the database's clock at some moment before this call.

        The result is still in doubt when the search failed, or proved nothing: look again after `next_look`.
        """
        try:
            lookup = await self._supplier.find_orders(purchase.intent.external_id, start_time=now)
        except (SupplierUnavailable, SupplierUnauthorized) as error:
            # A search that fails says nothing, least of all that there is no order.
            logger.warning("search failed, still in doubt", external_id=purchase.intent.external_id, why=error.message)
            await self._purchases.postpone(purchase, look=self.next_look(purchase, now))
            return purchase
        match judge(lookup, purchase.intent, purchase.send_deadline, self._bounds, kept=purchase.supplier_order_id):
            case Found(order, surplus, strange):
                PURCHASES.labels("adopted").inc()
                look, verify = self.first_look(), self.verify_after(purchase, adopted=True)
                after = await self._purchases.record_taken(
                    purchase, order, adopted=True, look=look, verify=verify, surplus=surplus
                )
                if after.supplier_order_id != order.supplier_order_id:
                    # Somebody else wrote another order down meanwhile: that one stays, and this was bought too much.
                    surplus = [order, *surplus]
                    await self._purchases.record_verified(after, surplus, again=timedelta(0))
                tell_surplus(after, *surplus, *strange)
                return after
            case Absent() if purchase.attempt >= MOST_ATTEMPTS and not purchase.withdrawn:
                detail = f"{purchase.attempt} attempts, none of them taken; the last one: {purchase.doubt}"
                return await self._purchases.record_refused(purchase, Problem(NEVER_TAKEN, detail))
            case Absent():
                PURCHASES.labels("absent").inc()
                logger.info("proved that nothing was taken", external_id=purchase.intent.external_id)
                return await self._purchases.record_absent(purchase, sent_before=now - self._bounds.total)
            case Unsettled(strange):
                tell_surplus(purchase, *strange)
                await self._purchases.postpone(purchase, look=self.next_look(purchase, now))
                return purchase

    async def claim_to_verify(self, limit: int) -> Sequence[Due]:
        """Lease placed purchases of which more than one order may have been taken."""
        return await self._purchases.claim_to_verify(limit, lease=VERIFY_LEASE)

    async def verify(self, due: Due) -> None:
        """Search for a placed purchase once more; what a search does not answer is searched for again later."""
        purchase = due.purchase
        try:
            others = await self.find_others(purchase, due.time)
        except (SupplierUnavailable, SupplierUnauthorized) as error:
            logger.warning("search failed", external_id=purchase.intent.external_id, why=error.message)
            return
        again = None if others.complete else VERIFY_LEASE
        await self._purchases.record_verified(purchase, others.surplus, again=again)

    async def find_others(self, purchase: Purchase, now: datetime) -> Others:
        """Search for orders under a reference of which it is known what its purchase keeps: one order, or none.

        Raises SupplierUnavailable or SupplierUnauthorized. `now` is as for `settle`.
        """
        lookup = await self._supplier.find_orders(purchase.intent.external_id, start_time=now)
        kept = purchase.supplier_order_id
        match judge(lookup, purchase.intent, purchase.send_deadline, self._bounds, kept=kept):
            case Found(order, surplus, strange):
                # The purchase's own order may be missing from the answer; everything but that was bought too much.
                ours = [each for each in (order, *surplus) if each.supplier_order_id != kept]
            case Unsettled(strange):
                ours = []
            case Absent():
                ours, strange = [], ()
        strange = [order for order in strange if order.supplier_order_id != kept]
        tell_surplus(purchase, *ours, *strange)
        return Others(ours, strange, complete=lookup.complete)

    def verify_after(self, purchase: Purchase, *, adopted: bool) -> timedelta | None:
        """Return how long after the last moment of sending everything that was taken can be found.

        None where one attempt was made and answered: then there is nothing else that could have been taken.
        """
        return self._bounds.total + SETTLE_MARGIN if adopted or purchase.attempt > 1 else None

    def next_look(self, purchase: Purchase, now: datetime) -> timedelta:
        """Return when a purchase in doubt is worth another search."""
        wait = gap(self._pace, purchase.looks, self._chance())
        return doubt_gap(wait, now=now, send_deadline=purchase.send_deadline, bounds=self._bounds)

    def first_look(self) -> timedelta:
        """Return when a purchase that was just placed is worth a look."""
        return gap(self._pace, 0, self._chance())


def tell_surplus(purchase: Purchase, *surplus: SupplierOrder) -> None:
    """Raise an alarm about orders under our reference that the purchase does not keep."""
    for order in surplus:
        if order.supplier_order_id == purchase.supplier_order_id:
            continue
        SURPLUS_ORDERS.inc()
        logger.error(
            "supplier has an order beyond the purchase's own",
            external_id=purchase.intent.external_id,
            kept=purchase.supplier_order_id,
            surplus=order.supplier_order_id,
        )
