"""The values of fulfillment. Times are aware and in UTC; amounts are whole minor units."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

OrderId = NewType("OrderId", str)
ItemId = NewType("ItemId", str)
ExternalId = NewType("ExternalId", str)
KeyId = NewType("KeyId", str)


class State(StrEnum):
    """Where a purchase, a line or an order is."""

    AWAITING_PAYMENT = "AWAITING_PAYMENT"
    PENDING = "PENDING"
    PURCHASING = "PURCHASING"
    AWAITING_KEYS = "AWAITING_KEYS"
    READY = "READY"
    DELIVERED = "DELIVERED"
    NEEDS_ATTENTION = "NEEDS_ATTENTION"


class Reason(StrEnum):
    """Why a human is needed, or what is waited for. Each has its row in docs/errors.md."""

    NONE = ""
    BUYING_PAUSED = "BUYING_PAUSED"
    PAYMENT_MISMATCH = "PAYMENT_MISMATCH"
    PURCHASE_REFUSED = "PURCHASE_REFUSED"
    PURCHASE_TOO_OLD = "PURCHASE_TOO_OLD"
    KEYS_TOO_LATE = "KEYS_TOO_LATE"
    KEYS_MISSING = "KEYS_MISSING"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    KEY_UNREADABLE = "KEY_UNREADABLE"
    PURCHASE_UNKNOWN = "PURCHASE_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Amount:
    """Money, as the payment rules compare it."""

    currency_code: str
    minor_units: int


@dataclass(frozen=True, slots=True)
class Customer:
    """The buyer, and owner of every key of the order."""

    customer_id: str = field(repr=False)
    email: str = field(repr=False)
    locale: str = ""
    country_code: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One line as ordered. `max_unit_price` is in EUR cents."""

    item_id: ItemId
    product_id: str
    quantity: int
    max_unit_price: int
    offer_id: str = ""
    key_type: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What the customer ordered."""

    order_id: OrderId
    customer: Customer
    total: Amount
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that a provider has confirmed."""

    provider: str
    payment_id: str
    order_id: OrderId
    amount: Amount
    confirm_time: datetime


@dataclass(frozen=True, slots=True)
class Purchase:
    """One purchase at the supplier, and where it is."""

    external_id: ExternalId
    order_id: OrderId
    item_id: ItemId
    quantity: int
    state: State
    state_time: datetime
    reason: Reason = Reason.NONE
    supplier_order_id: str = ""
    place_time: datetime | None = None
    tries: int = 0
    park_time: datetime | None = None
    """When buying was first put off. It stays, so that being put off again does not begin a new wait."""

    @property
    def is_parked(self) -> bool:
        """Whether it waits for buying to go on. Nothing was sent then."""
        return self.reason is Reason.BUYING_PAUSED


@dataclass(frozen=True, slots=True)
class Key:
    """A key of an order, by its name. `held` ones are kept for a human."""

    key_id: KeyId
    item_id: ItemId
    external_id: ExternalId
    content_type: str
    held: bool
    ready_time: datetime
    open_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what was ordered, what serves it, what has arrived."""

    item: Item
    product_name: str
    purchases: Sequence[Purchase]
    keys: Sequence[Key]
    state: State
    reason: Reason


@dataclass(frozen=True, slots=True)
class Fulfillment:
    """Everything of one order."""

    order: Order
    state: State
    reason: Reason
    paid: Amount | None
    lines: Sequence[Line]
    version: int
    create_time: datetime
    update_time: datetime
    pay_time: datetime | None
    mail_time: datetime | None
