"""The rows that guard each external id."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from kinguin_gateway.domain.purchase import Intent, KeyRef, Problem, Purchase, PurchaseState, SupplierOrder
from kinguin_gateway.domain.switching import PauseCause


@dataclass(frozen=True, slots=True)
class Begun:
    """A purchase as a request to buy, or to withdraw, found it.

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


class Attempts(Protocol):
    """Who may send, and what came of it. Raises ServiceUnavailable while the rows cannot be reached.

    An attempt is opened by one statement that compares its number, so that of two replicas one opens it. What an
    attempt came to is written only onto that attempt while it is in doubt; an order that was taken is written whatever
    the row says of attempts. Every method returns the purchase as it is afterwards, which may be what somebody else
    wrote.

    A withdrawal is kept in the row. From then on no attempt is opened, and a purchase of which it turns out that
    nothing was taken is refused by whichever method writes that down, instead of being intended again.
    """

    async def stand(self, intent: Intent, *, request_id: str, window: timedelta) -> Purchase | None:
        """Return how a purchase stands; None when it was never asked for.

        What was certainly not sent joins the line first where it has to wait (`Purchase.parked`). Raises as `begin`.
        """
        ...

    async def park(
        self, intent: Intent, *, request_id: str, cause: PauseCause, reason: str, window: timedelta
    ) -> Purchase:
        """Stop buying for this cause, unless it is stopped, and put the purchase in line, if it was not sent.

        One that is new to a database which forgot something lately is in doubt instead, as `begin` has it.
        """
        ...

    async def refuse(self, intent: Intent, *, request_id: str, problem: Problem, window: timedelta) -> Purchase | None:
        """Write that the purchase is refused before anything was sent; return it as it stands.

        None where the database cannot know that nothing was: it forgot something lately, and never heard of this id.
        """
        ...

    async def begin(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        """Open the next attempt if nothing can have been taken before; otherwise say how things stand.

        A purchase that has to wait in line is not opened. One that is new to a database which forgot something lately
        is in doubt at once: it may have been sent before.

        Raises ExternalIdConflict when the external id stands for something else, RequestIdReused when the request id
        began another purchase.
        """
        ...

    async def withdraw(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        """Write that the purchase is never to be made, and say how it stands; nothing is ever `opened`.

        What was certainly not sent is refused at once, also where it is new. What may have been is in doubt, as `begin`
        has it, and so is what is new to a database which forgot something lately. Raises as `begin`.
        """
        ...

    async def record_taken(
        self,
        purchase: Purchase,
        order: SupplierOrder,
        *,
        adopted: bool,
        look: timedelta,
        verify: timedelta | None = None,
        surplus: Sequence[SupplierOrder] = (),
    ) -> Purchase:
        """Write that the supplier took the order, found by a search when `adopted`; look at it after `look`.

        `verify` is how long after the last moment of sending a search shows whatever else was taken; None: nothing can
        have been. `surplus` orders were bought too much: each is given back.
        """
        ...

    async def record_parked(self, purchase: Purchase, *, cause: PauseCause, reason: str) -> Purchase:
        """Write that the attempt was refused for a cause that concerns every purchase: it is in line again."""
        ...

    async def record_refused(self, purchase: Purchase, problem: Problem) -> Purchase:
        """Write that the attempt was refused."""
        ...

    async def record_not_sent(self, purchase: Purchase) -> Purchase:
        """Write that the attempt was certainly not sent: it is as if it had never been opened, unless withdrawn."""
        ...

    async def record_doubt(self, purchase: Purchase, *, why: str, look: timedelta) -> Purchase:
        """Write that the attempt ended in doubt. Its sender sends no more, so its send deadline is now at most."""
        ...

    async def record_absent(self, purchase: Purchase, *, sent_before: datetime) -> Purchase:
        """Write that the attempt was not taken, provided that it had to be sent before this moment."""
        ...


class Looks(Protocol):
    """When each purchase is looked at, and what was seen."""

    async def postpone(self, purchase: Purchase, *, look: timedelta) -> None:
        """Give the lease back and look again after `look`."""
        ...

    async def record_look(self, purchase: Purchase, order: SupplierOrder, *, look: timedelta | None) -> None:
        """Write what was read of a placed purchase, with an event if it is news; None: there is nothing to wait for."""
        ...

    async def claim_to_verify(self, limit: int, *, lease: timedelta) -> Sequence[Due]:
        """Lease placed purchases that are to be searched for once more: was anything else taken?"""
        ...

    async def record_verified(
        self, purchase: Purchase, surplus: Sequence[SupplierOrder], *, again: timedelta | None
    ) -> None:
        """Write orders that were bought too much: each is given back. None: no further search is needed."""
        ...

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[Due]:
        """Lease purchases whose next look is due."""
        ...


class SealedKeys(Protocol):
    """Purchases with their sealed keys."""

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
class PurchaseFilter:
    """Which purchases a listing is for; what is absent matches everything.

    They were first asked for from `start_time` on, and before `end_time`.
    """

    order_id: str = ""
    state: PurchaseState | None = None
    parked: bool = False
    start_time: datetime | None = None
    end_time: datetime | None = None


class Listing(Protocol):
    """Purchases as an operator, or a caller that lost what it knew, looks at them."""

    async def page(
        self, wanted: PurchaseFilter, *, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[Purchase]:
        """Return at most `size` purchases, the oldest first, behind a create time and external id."""
        ...


class Purchases(Attempts, Looks, SealedKeys, Protocol):
    """The rows of all purchases, one for each external id."""
