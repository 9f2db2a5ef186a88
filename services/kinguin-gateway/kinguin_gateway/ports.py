"""What kinguin-gateway needs from outside, in its own words."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from chassis.clock import Clock
from chassis.secret import SecretBytes

from kinguin_gateway.domain.guard import Lookup, Reply
from kinguin_gateway.domain.purchase import Intent, KeyRef, Problem, Product, Purchase, SupplierOrder


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
class Begun:
    """A purchase as a request to buy found it.

    `opened`: a new attempt was committed, and the caller alone may send it. `claimed`: the purchase is in doubt and the
    caller alone should settle it now. `time` is the database's clock.
    """

    purchase: Purchase
    opened: bool
    claimed: bool
    time: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """A purchase whose next look is due, leased to the caller. `time` is the database's clock at the claim."""

    purchase: Purchase
    time: datetime


@dataclass(frozen=True, slots=True)
class SealedSoFar:
    """A purchase and its sealed keys, in the order in which they were first seen."""

    purchase: Purchase
    keys: Sequence[KeyRef]


class Purchases(Protocol):
    """The rows that guard each external id. Raises ServiceUnavailable while they cannot be reached.

    An attempt is opened by one statement that compares its number, so that of two replicas one opens it. What an
    attempt came to is written only onto that attempt while it is in doubt; an order that was taken is written whatever
    the row says of attempts. Every method returns the purchase as it is afterwards, which may be what somebody else
    wrote.
    """

    async def begin(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        """Open the next attempt if nothing can have been taken before; otherwise say how things stand.

        Raises ExternalIdConflict when the external id stands for something else, RequestIdReused when the request id
        began another purchase.
        """
        ...

    async def record_taken(
        self, purchase: Purchase, order: SupplierOrder, *, adopted: bool, look: timedelta
    ) -> Purchase:
        """Write that the supplier took the order, found by a search when `adopted`; look at it after `look`."""
        ...

    async def record_refused(self, purchase: Purchase, problem: Problem) -> Purchase:
        """Write that the attempt was refused."""
        ...

    async def record_not_sent(self, purchase: Purchase) -> Purchase:
        """Write that the attempt was certainly not sent: it is as if it had never been opened."""
        ...

    async def record_doubt(self, purchase: Purchase, *, why: str, look: timedelta) -> Purchase:
        """Write that the attempt ended in doubt. Its sender sends no more, so its send deadline is now at most."""
        ...

    async def record_absent(self, purchase: Purchase, *, sent_before: datetime) -> Purchase:
        """Write that the attempt was not taken, provided that it had to be sent before this moment."""
        ...

    async def postpone(self, purchase: Purchase, *, look: timedelta) -> None:
        """Give the lease back and look again after `look`."""
        ...

    async def record_look(self, purchase: Purchase, order: SupplierOrder, *, look: timedelta | None) -> None:
        """Write what was read of a placed purchase, with an event if it is news; None: there is nothing to wait for."""
        ...

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[Due]:
        """Lease purchases whose next look is due."""
        ...

    async def find(self, external_id: str) -> Purchase | None:
        """Return a purchase."""
        ...

    async def load_keys(self, external_id: str, *, request_id: str, digest: bytes) -> SealedSoFar | None:
        """Return a purchase and its sealed keys. Raises RequestIdReused when the id was used with another digest."""
        ...

    async def record_keys(
        self, purchase: Purchase, order: SupplierOrder, new: Sequence[KeyRef], *, finished: bool
    ) -> SealedSoFar:
        """Write keys that were sealed and what was read of the order. A key that is there already stays as it is."""
        ...


@dataclass(frozen=True, slots=True)
class SuppliedKey:
    """A key as the supplier delivered it. `value` is None when it is no key of a kind we know."""

    supplier_key_id: str
    product_id: str | None
    content_type: str
    value: SecretBytes | None


@dataclass(frozen=True, slots=True)
class SupplierHealth:
    """How the supplier answered when it was asked for our balance."""

    reachable: bool
    authorized: bool
    balance_cents: int | None = None
    detail: str = ""


class Supplier(Protocol):
    """The supplier. Reads raise SupplierUnavailable or SupplierUnauthorized; placing an order never raises."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait for a turn to call the supplier. Raises SupplierUnavailable when too many wait; nothing was sent."""
        ...

    async def place_order(self, intent: Intent, window: SendWindow) -> Reply:
        """Send one attempt, within a turn that the caller holds, and never after the window has ended."""
        ...

    async def find_orders(self, external_id: str, *, start_time: datetime) -> Lookup:
        """Search orders by our reference; `start_time` is the database's clock before now."""
        ...

    async def read_order(self, supplier_order_id: str) -> SupplierOrder | None:
        """Return an order; None when the supplier does not show it, which says nothing about whether it took it."""
        ...

    def key_pages(self, supplier_order_id: str) -> AsyncIterator[Sequence[SuppliedKey]]:
        """Fetch the keys delivered so far, page by page (K44)."""
        ...

    async def read_product(self, product_id: str) -> Product | None:
        """Return a product; None when the supplier does not know or sell it."""
        ...

    async def check(self) -> SupplierHealth:
        """Ask whether it is there and lets us in. Does not raise."""
        ...


@dataclass(frozen=True, slots=True)
class KeyToSeal:
    """A key on its way to vault."""

    request_id: str
    source_ref: str
    order_id: str
    item_id: str
    customer_id: str
    content_type: str
    value: SecretBytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """How vault keeps a key."""

    key_id: str
    held: bool


class Vault(Protocol):
    """Seals keys. The only place outside this process that ever receives one."""

    async def seal(self, key: KeyToSeal) -> Sealed:
        """Seal a key and return once it is safe; doing it again returns the same. Raises vault's own errors."""
        ...
