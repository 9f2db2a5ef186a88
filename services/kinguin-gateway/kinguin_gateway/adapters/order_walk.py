"""A walk through the supplier's orders, the newest first, however many there are and whatever comes meanwhile.

A page far behind is dear for whoever has to skip all before it, and each new order shifts every page. So the walk asks
for first pages only: the next query is for what was created up to the second of the oldest order that was seen. What
was created around that second comes again and is known by its id; ids of later orders need not be kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from kinguin_gateway.domain.purchase import SupplierOrder
from kinguin_gateway.ports.supplier import OrderFilter

# K9: as many as the supplier puts on one page.
PAGE = 100
_SECOND = timedelta(seconds=1)
_LAST = datetime.max.replace(tzinfo=UTC) - _SECOND


class Walk:
    """Where one walk is. `query` and `page` are what to ask for next, until it has `ended`."""

    def __init__(self, wanted: OrderFilter) -> None:
        self._wanted = wanted
        self.query: Mapping[str, str] = search_query(wanted)
        self.page = 1
        self.ended = False
        self._edge: datetime | None = None
        self._known: dict[str, datetime | None] = {}
        self._of_query: set[str] = set()
        self._seen_count = 0
        self._first_counted: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether everything was seen that was counted at the beginning; orders may leave a state meanwhile."""
        return self._wanted.state is not None or self._seen_count >= (self._first_counted or 0)

    def take(self, orders: Sequence[SupplierOrder], counted: int) -> Sequence[SupplierOrder]:
        """Take the page that was asked for, and return what is new on it; a short page alone ends nothing."""
        self._first_counted = counted if self._first_counted is None else self._first_counted
        new = list(
            {each.supplier_order_id: each for each in orders if each.supplier_order_id not in self._known}.values()
        )
        self._known.update((order.supplier_order_id, _second(order)) for order in new)
        self._of_query.update(order.supplier_order_id for order in orders)
        self._seen_count += len(new)
        self.ended = not orders or (len(orders) < PAGE and len(self._of_query) >= counted)
        self._step(orders)
        # The supplier's filter has seconds; what is too much is filtered here.
        return [order for order in new if _is_before(order, self._wanted.end_time)]

    def _step(self, orders: Sequence[SupplierOrder]) -> None:
        seconds = [second for order in orders if (second := _second(order)) is not None]
        newest_first = len(seconds) == len(orders) and seconds == sorted(seconds, reverse=True)
        if not seconds or not newest_first or (self._edge is not None and seconds[-1] >= self._edge):
            # A whole page of one second, or orders in no order that helps: the next page is further behind.
            self.page += 1
            return
        self._edge, self.page, end = seconds[-1], 1, seconds[-1] + _SECOND
        self._of_query.clear()
        self._known = {
            name: second for name, second in self._known.items() if second is None or second <= end + _SECOND
        }
        self.query = search_query(replace(self._wanted, end_time=end))


def search_query(wanted: OrderFilter) -> Mapping[str, str]:
    """Return a filter in the supplier's words."""
    preorder = {None: "", True: "yes", False: "no"}[wanted.preorder]
    query = {
        "orderExternalId": wanted.external_id,
        "orderId": wanted.supplier_order_id,
        "productId": wanted.product_id,
        "status": "" if wanted.state is None else wanted.state.value,
        "isPreorder": preorder,
        "createdAtFrom": "" if wanted.start_time is None else moment_to_query(wanted.start_time),
        # A second more than wanted: it is written without fractions.
        "createdAtTo": "" if wanted.end_time is None else moment_to_query(min(wanted.end_time, _LAST) + _SECOND),
    }
    return {name: value for name, value in query.items() if value}


def moment_to_query(moment: datetime) -> str:
    """Render a time as the supplier takes it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _second(order: SupplierOrder) -> datetime | None:
    return None if order.create_time is None else order.create_time.replace(microsecond=0)


def _is_before(order: SupplierOrder, end_time: datetime | None) -> bool:
    return end_time is None or order.create_time is None or order.create_time < end_time
