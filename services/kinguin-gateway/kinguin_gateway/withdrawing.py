"""Makes sure that a purchase is never made. It looks and writes down; it cannot buy.

1 commit the wish, and refuse what was never sent   dies here: whoever settles the doubt, for whatever reason, heeds it
2 search for what may have been sent                dies here: as above
3 write what the search proves                      dies here: the repeat is answered with what was written

A refund to the customer rests on the answer: once it says REFUSED, nothing is ever sold under this reference.
"""

from datetime import timedelta

from kinguin_gateway.domain.purchase import Intent, Purchase, PurchaseState
from kinguin_gateway.errors import PurchaseInDoubt
from kinguin_gateway.ports.purchases import Purchases
from kinguin_gateway.settling import BUSY_WAIT, LEASE, Settler


class Withdrawer:
    """Withdraws purchases. Several replicas may, beside others that buy the same."""

    def __init__(self, purchases: Purchases, settler: Settler, *, window: timedelta) -> None:
        """`window` is how long an attempt that was forgotten may still be sent."""
        self._purchases = purchases
        self._settler = settler
        self._window = window

    async def withdraw(self, intent: Intent, request_id: str) -> Purchase:
        """Return the purchase, refused or placed. Raises PurchaseInDoubt while nobody knows which it is."""
        begun = await self._purchases.withdraw(intent, request_id=request_id, window=self._window, lease=LEASE)
        purchase = await self._settler.settle(begun.purchase, begun.time) if begun.claimed else begun.purchase
        if purchase.state in {PurchaseState.PLACED, PurchaseState.REFUSED}:
            return purchase
        wait = self._settler.next_look(purchase, begun.time) if begun.claimed else BUSY_WAIT
        raise PurchaseInDoubt.until(wait)
