"""The supplier, and the window in which one attempt may be sent to it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from chassis.clock import Clock
from chassis.secret import SecretBytes

from kinguin_gateway.domain.guard import Lookup, Reply
from kinguin_gateway.domain.purchase import Intent, Product, SupplierOrder, SupplierOrderState
from kinguin_gateway.domain.returning import ReturnReply

# K44: as many keys as the supplier puts on one page.
KEYS_PAGE = 100


class SendWindow:
    """The time in which one attempt may be sent, on a local clock that goes on while the machine sleeps.

    It begins before the attempt is committed, so that it always ends before the `send_deadline` of the row does.
    """

    def __init__(self, clock: Clock, length: timedelta) -> None:
        self._clock = clock
        self._end = clock.elapsed() + length.total_seconds()
        self.length = length

    def seconds_left(self) -> float:
        """Return what is left; nothing may be sent when it is not positive."""
        return self._end - self._clock.elapsed()


@dataclass(frozen=True, slots=True)
class SuppliedKey:
    """A key as the supplier delivered it. `value` is None when it is no key of a kind we know."""

    supplier_key_id: str
    product_id: str | None
    content_type: str
    value: SecretBytes | None


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders a search is for; what is absent matches everything. `end_time` is exclusive."""

    external_id: str = ""
    supplier_order_id: str = ""
    product_id: str = ""
    state: SupplierOrderState | None = None
    preorder: bool | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class SupplierHealth:
    """How the supplier answered when it was asked for our balance."""

    reachable: bool
    authorized: bool
    balance_cents: int | None = None
    detail: str = ""


class Supplier(Protocol):
    """The supplier. Reads raise SupplierUnavailable or SupplierUnauthorized; placing an order never raises."""

    def turn(self) -> AbstractAsyncContextManager[object]:
        """Wait for a turn to call the supplier. Raises SupplierUnavailable when too many wait; nothing was sent."""
        ...

    async def place_order(self, intent: Intent, window: SendWindow, *, unit_cents: int | None = None) -> Reply:
        """Send one attempt, within a turn that the caller holds, and never after the window has ended.

        `unit_cents` is the unit price to accept; the intent's limit unless given.
        """
        ...

    async def find_orders(self, external_id: str, *, start_time: datetime) -> Lookup:
        """Search orders by our reference; `start_time` is the database's clock before now."""
        ...

    async def read_order(self, supplier_order_id: str) -> SupplierOrder | None:
        """Return an order; None when the supplier does not show it, which says nothing about whether it took it."""
        ...

    def key_pages(self, supplier_order_id: str, *, first: int = 1) -> AsyncGenerator[Sequence[SuppliedKey], None]:
        """Fetch the keys delivered so far in pages of KEYS_PAGE, from the `first` page on to an empty one (K44).

        Pages may be short, long, shifted or overlapping: only what was ordered tells whether all keys were seen.
        """
        ...

    def search_orders(self, wanted: OrderFilter) -> AsyncGenerator[Sequence[SupplierOrder], None]:
        """Search all orders of the account, the newest first, page by page (K42), each once though pages shift.

        Raises SupplierUnavailable, after what was found, where the supplier does not show all that it counts.
        """
        ...

    async def return_keys(self, supplier_order_id: str) -> ReturnReply:
        """Ask for the return of all keys of an order (K49). Does not raise."""
        ...

    async def changed_products(self, product_ids: Sequence[str], *, since: datetime | None) -> Sequence[Product]:
        """Return those of the products, at most 100, whose price or stock changed since then (K16)."""
        ...

    async def read_balance(self) -> int:
        """Return the money left on our account, in EUR cents, rounded down (K65)."""
        ...

    async def read_product(self, product_id: str) -> Product | None:
        """Return a product; None when the supplier does not know or sell it."""
        ...

    async def check(self) -> SupplierHealth:
        """Ask whether it is there and lets us in. Does not raise."""
        ...
