"""What we buy and what we know of it, in our own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class PurchaseState(StrEnum):
    """What we know of a purchase.

    An attempt that is being sent is in doubt already: nobody can tell it from one whose sender died.
    """

    INTENDED = "intended"
    IN_DOUBT = "in_doubt"
    PLACED = "placed"
    REFUSED = "refused"


class SupplierOrderState(StrEnum):
    """The supplier's own four words for the state of its order (K40)."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    CANCELED = "canceled"
    REFUNDED = "refunded"


class SupplierKeyState(StrEnum):
    """The supplier's own six words for the state of a key (K41)."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    DELIVERED = "DELIVERED"
    RETURNED = "RETURNED"
    REFUNDED = "REFUNDED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True)
class Intent:
    """One chunk of one order line to be bought. Nothing in it ever changes for one external id."""

    external_id: str
    order_id: str
    item_id: str
    product_id: str
    offer_id: str
    quantity: int
    max_unit_cents: int
    key_type: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure in the supplier's words: its kind, its sentence, and the trace to quote to its support (K62)."""

    kind: str = ""
    detail: str = ""
    trace: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class OrderKey:
    """A key as the supplier's order lists it. A state that we do not know is None."""

    supplier_key_id: str
    state: SupplierKeyState | None


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One line of a supplier's order. What the supplier left out is None; `delivered` counts its delivered keys.

    `unit_cents` is the price of one key.
    """

    product_id: str | None
    offer_id: str | None
    quantity: int | None
    name: str
    delivered: int | None
    keys: Sequence[OrderKey] = ()
    unit_cents: int | None = None


@dataclass(frozen=True, slots=True)
class SupplierOrder:
    """An order as the supplier tells it."""

    supplier_order_id: str
    external_id: str
    state: SupplierOrderState
    lines: Sequence[OrderLine]
    total_quantity: int | None = None
    charged_cents: int | None = None
    create_time: datetime | None = None
    total_cents: int | None = None
    preorder: bool = False
    release_time: datetime | None = None

    @property
    def quantity(self) -> int | None:
        """Number of keys ordered, as far as it is told."""
        told = [line.quantity for line in self.lines]
        if not told or None in told:
            return self.total_quantity
        return sum(quantity for quantity in told if quantity is not None)

    @property
    def delivered_count(self) -> int | None:
        """Number of keys delivered so far; None where the order does not list its keys."""
        told = [line.delivered for line in self.lines]
        if not told or None in told:
            return None
        return sum(delivered for delivered in told if delivered is not None)

    @property
    def keys(self) -> Sequence[OrderKey]:
        """Its keys, as far as they are listed."""
        return [key for line in self.lines for key in line.keys]

    @property
    def canceled_count(self) -> int:
        """Number of keys that will not come any more, as far as keys are listed."""
        return sum(key.state is SupplierKeyState.CANCELED for key in self.keys)

    @property
    def product_name(self) -> str:
        """The product's name as the supplier writes it; empty when it is not told."""
        return next((line.name for line in self.lines if line.name), "")


@dataclass(frozen=True, slots=True)
class Purchase:
    """What is stored of one purchase."""

    intent: Intent
    state: PurchaseState
    attempt: int
    send_deadline: datetime
    create_time: datetime
    supplier_order_id: str = ""
    supplier_order_state: SupplierOrderState | None = None
    delivered_count: int = 0
    sealed_count: int = 0
    product_name: str = ""
    charged_cents: int | None = None
    refusal: Problem = Problem()
    looks: int = 0
    revision: int = 0
    parked: bool = False
    canceled_count: int = 0
    release_time: datetime | None = None
    doubt: str = ""
    withdrawn: bool = False
    refunded_cents: int | None = None


@dataclass(frozen=True, slots=True)
class KeyRef:
    """A sealed key of a purchase: everything but the key."""

    supplier_key_id: str
    key_id: str
    content_type: str
    held: bool
    state: SupplierKeyState = SupplierKeyState.DELIVERED


@dataclass(frozen=True, slots=True)
class Tier:
    """A unit price from so many keys of one offer on (K31)."""

    min_quantity: int
    price_cents: int


@dataclass(frozen=True, slots=True)
class Offer:
    """One offer of a product. `available` counts keys that are physically there (K14), `available_text` those as text.

    `tiers` is empty where the offer is not sold wholesale.
    """

    price_cents: int | None
    available: int
    offer_id: str = ""
    merchant_name: str = ""
    available_text: int = 0
    tiers: Sequence[Tier] = ()


@dataclass(frozen=True, slots=True)
class Product:
    """A product as the supplier sells it now."""

    product_id: str
    name: str
    price_cents: int | None
    available: int
    preorder: bool
    excluded_countries: Sequence[str]
    activation_details: str
    offers: Sequence[Offer] = ()
    platform: str = ""
    region: str = ""
    release_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def cheapest_cents(self) -> int | None:
        """The lowest unit price at which at least one key is there; None when nothing is on sale."""
        if not self.offers:
            return self.price_cents if self.available else None
        prices = [offer.price_cents for offer in self.offers if offer.available and offer.price_cents is not None]
        return min(prices, default=None)

    @property
    def available_quantity(self) -> int:
        """Number of keys that are there, over all offers."""
        return sum(offer.available for offer in self.offers) if self.offers else self.available
