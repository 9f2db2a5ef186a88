"""kinguin-gateway, as fulfillment needs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from fulfillment.domain.machine import Command
from fulfillment.domain.model import Item, KeyId, OrderId, Purchase
from fulfillment.domain.planner import Known
from fulfillment.domain.product import Product


@dataclass(frozen=True, slots=True)
class Buying:
    """One purchase and all that the supplier's side must be told to make it."""

    purchase: Purchase
    item: Item
    customer_id: str = field(repr=False)
    country_code: str = ""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A purchase that is this worker's until its lease ends, and what is to be done with it."""

    buying: Buying
    commands: Sequence[Command]


@dataclass(frozen=True, slots=True)
class Placed:
    """The supplier took the order."""

    supplier_order_id: str
    product_name: str
    charged_cents: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The supplier said a clear no: nothing was bought."""

    kind: str


@dataclass(frozen=True, slots=True)
class InDoubt:
    """It was sent and nobody knows. Ask again after this long, where that is known."""

    ask_after: timedelta | None


@dataclass(frozen=True, slots=True)
class Paused:
    """Nothing was sent, for buying is paused; the purchase has its place in the line. Ask again after this long."""

    ask_after: timedelta | None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Whom we asked could not say."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What was delivered cannot be sealed as a key, however often we ask, and what else there is was not told."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The supplier's side knows nothing of the purchase, though it told us that it was placed."""


@dataclass(frozen=True, slots=True)
class ArrivedKey:
    """One sealed key, by its name."""

    key_id: KeyId
    content_type: str
    held: bool


@dataclass(frozen=True, slots=True)
class Collected:
    """Every key of a purchase that is sealed so far. `ended` means that the supplier will deliver no more.

    `unreadable` counts what was delivered besides and can never be sealed.
    """

    keys: Sequence[ArrivedKey]
    product_name: str
    more_ready: bool
    ended: bool
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class ReturnUnderWay:
    """The supplier is asked to take the keys back, and has not finished."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The supplier took the keys back."""


@dataclass(frozen=True, slots=True)
class ReturnRefused:
    """The supplier does not take the keys back, or its rules exclude it."""

    why: str


@dataclass(frozen=True, slots=True)
class NoProduct:
    """The supplier does not know the product, or does not sell it."""


PlaceAnswer = Placed | Refused | InDoubt | Paused | NoAnswer
WithdrawAnswer = Placed | Refused | InDoubt | NoAnswer
CollectAnswer = Collected | NoAnswer | Unreadable | Unknown
ReturnAnswer = ReturnUnderWay | Returned | ReturnRefused | NoAnswer
ProductAnswer = Product | NoProduct | NoAnswer


class Supplier(Protocol):
    """kinguin-gateway, which alone knows the supplier. No method raises for what the supplier may answer."""

    async def place(self, buying: Buying) -> PlaceAnswer:
        """Buy, or learn what became of buying: both are the same question under the same external id."""
        ...

    async def collect(self, buying: Buying) -> CollectAnswer:
        """Have what has been delivered sealed for the order's customer."""
        ...

    async def withdraw(self, buying: Buying) -> WithdrawAnswer:
        """Make sure that it is never bought, without buying it; Refused where it never will be, Placed where it was."""
        ...

    async def give_back(self, purchase: Purchase) -> ReturnAnswer:
        """Ask the supplier to take a purchase's keys back, or learn how far that is."""
        ...

    async def read_product(self, product_id: str) -> ProductAnswer:
        """Return what the supplier offers of a product now."""
        ...

    async def known_purchases(self, order_id: OrderId) -> Sequence[tuple[str, Known]] | None:
        """Return each purchase of an order that is known there, with its line; None when nobody could say."""
        ...
