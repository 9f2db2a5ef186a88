"""Lists purchases with everything that is known of them. Reads our own rows and asks nobody."""

from collections.abc import Sequence
from dataclasses import dataclass

from chassis.paging import read_page_token, write_page_token

from kinguin_gateway.domain.purchase import Purchase
from kinguin_gateway.domain.returning import KeyReturn
from kinguin_gateway.places import read_moment
from kinguin_gateway.ports.purchases import Listing, PurchaseFilter
from kinguin_gateway.ports.returns import Returns


@dataclass(frozen=True, slots=True)
class ListedPurchase:
    """A purchase and the returns of its supplier orders: of the one it keeps, and of those bought too much."""

    purchase: Purchase
    returns: Sequence[KeyReturn] = ()


@dataclass(frozen=True, slots=True)
class PurchasePage:
    """Some purchases, and the token of the next page; empty on the last one."""

    purchases: Sequence[ListedPurchase]
    next_page_token: str


class Lister:
    """Lists purchases."""

    def __init__(self, listing: Listing, returns: Returns) -> None:
        self._listing = listing
        self._returns = returns

    async def page(self, wanted: PurchaseFilter, *, size: int, token: str) -> PurchasePage:
        """Return one page, the oldest first. Raises InvalidRequest for a token of another listing."""
        times = [str(time or "") for time in (wanted.start_time, wanted.end_time)]
        filters = (wanted.order_id, wanted.state or "", str(wanted.parked), *times)
        place = read_page_token(filters, token, parts=2)
        after = None if place is None else (read_moment(place[0]), place[1])
        found = await self._listing.page(wanted, size=size + 1, after=after)
        shown = found[:size]
        last = [shown[-1].create_time.isoformat(), shown[-1].intent.external_id] if len(found) > size else None
        return PurchasePage(await self.complete(shown), "" if last is None else write_page_token(filters, last))

    async def complete(self, purchases: Sequence[Purchase]) -> Sequence[ListedPurchase]:
        """Return purchases with their returns."""
        returns = await self._returns.of_purchases([purchase.intent.external_id for purchase in purchases])
        return [ListedPurchase(each, returns.get(each.intent.external_id, ())) for each in purchases]
