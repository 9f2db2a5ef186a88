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
    """Where a purchase, a line or an order is. Those from WITHDRAWING on are of purchases only."""

    AWAITING_PAYMENT = "AWAITING_PAYMENT"
    PENDING = "PENDING"
    PURCHASING = "PURCHASING"
    AWAITING_KEYS = "AWAITING_KEYS"
    READY = "READY"
    DELIVERED = "DELIVERED"
    NEEDS_ATTENTION = "NEEDS_ATTENTION"
    PARTLY_CANCELED = "PARTLY_CANCELED"
    CANCELED = "CANCELED"
    REFUNDED = "REFUNDED"
    WITHDRAWING = "WITHDRAWING"
    REVOKING = "REVOKING"
    RETURNING = "RETURNING"
    SHREDDING = "SHREDDING"
    SUPERSEDED = "SUPERSEDED"


class Reason(StrEnum):
    """Why a human is needed, what is waited for, or why keys will not come. Each has its row in docs/errors.md."""

    NONE = ""
    BUYING_PAUSED = "BUYING_PAUSED"
    WAITING_FOR_STOCK = "WAITING_FOR_STOCK"
    PAYMENT_MISMATCH = "PAYMENT_MISMATCH"
    PURCHASE_REFUSED = "PURCHASE_REFUSED"
    PURCHASE_TOO_OLD = "PURCHASE_TOO_OLD"
    KEYS_TOO_LATE = "KEYS_TOO_LATE"
    KEYS_MISSING = "KEYS_MISSING"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    KEY_UNREADABLE = "KEY_UNREADABLE"
    KEY_CORRUPTED = "KEY_CORRUPTED"
    PURCHASE_UNKNOWN = "PURCHASE_UNKNOWN"
    GIVE_UP_TOO_OLD = "GIVE_UP_TOO_OLD"
    RETURN_REFUSED = "RETURN_REFUSED"
    RETURN_TOO_LATE = "RETURN_TOO_LATE"
    CANCEL_ASKED = "CANCEL_ASKED"
    REFUND_TAKEN = "REFUND_TAKEN"
    ROW_UNREADABLE = "ROW_UNREADABLE"
    """Its row holds a word that this version does not know. What could not be read is never written over."""


class Action(StrEnum):
    """What an operator can do."""

    RETRY = "RETRY"
    DELIVER_MANUALLY = "DELIVER_MANUALLY"
    REPLACE_KEY = "REPLACE_KEY"
    CANCEL = "CANCEL"
    REFUND = "REFUND"


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
    unit_price: int | None = None
    """What the customer pays for one key, in minor units of the order's total; None where the shop does not say."""


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
    told_order_id: OrderId | None = None
    """The order that it came for, where a person has given it to another one since."""
    is_closed: bool = False
    """Whether a person has ended it: it counts for no order."""

    @property
    def first_told(self) -> OrderId:
        """The order that the shop names with it."""
        return self.told_order_id or self.order_id


@dataclass(frozen=True, slots=True)
class Refund:
    """Money that a provider has given back, or a bank has taken back."""

    provider: str
    refund_id: str
    payment_id: str
    amount: Amount
    refund_time: datetime
    item_ids: Sequence[ItemId] = ()
    request_ids: Sequence[str] = ()
    """Our requests that it answers."""
    is_chargeback: bool = False


@dataclass(frozen=True, slots=True)
class Money:
    """What was paid for an order and given back of it."""

    payments: Sequence[Payment] = ()
    refunds: Sequence[Refund] = ()


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """What the shop is asked to pay back, because keys will not come. Its number is derived from what it is for."""

    request_id: str
    order_id: OrderId
    item_id: ItemId | None
    external_id: ExternalId | None
    quantity: int
    amount: Amount
    reason: Reason
    is_answered: bool = False


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
    chunk: int = 0
    attempt: int = 1
    offer_id: str = ""
    unit_limit: int | None = None
    """The highest unit price in EUR cents; None until it is planned what is bought."""
    replaced_key_id: KeyId | None = None
    is_preorder: bool = False
    release_time: datetime | None = None
    refusal: str = ""
    """Why the supplier refused it, in its words."""
    supplier_order_id: str = ""
    charged: int | None = None
    """What the supplier charged, in EUR cents."""
    place_time: datetime | None = None
    tries: int = 0
    park_time: datetime | None = None
    """Since when it is parked; None while it is not."""
    overdue_time: datetime | None = None
    """Since when it is asked for a last time, because it is too old; None before."""
    give_up: Reason = Reason.NONE
    """CANCEL_ASKED or REFUND_TAKEN once nothing more is wanted of it."""
    canceled_quantity: int = 0
    lane: int = 0
    claim: int = 0
    """Counts claims: who acts on an earlier one is told so, and only what cannot be told twice is written."""
    next_time: datetime | None = None
    """When it is looked at again, as it was read."""

    @property
    def is_parked(self) -> bool:
        """Whether it waits for buying to go on. Nothing was sent then."""
        return self.reason is Reason.BUYING_PAUSED

    @property
    def is_planned(self) -> bool:
        """Whether it is written down what is bought."""
        return self.unit_limit is not None


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
    revoke_time: datetime | None = None
    replace_time: datetime | None = None

    @property
    def is_openable(self) -> bool:
        """Whether its owner may ask vault for it. Vault has the last word."""
        return not self.held and self.revoke_time is None


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what was ordered, what serves it, what has arrived."""

    item: Item
    product_name: str
    purchases: Sequence[Purchase]
    keys: Sequence[Key]
    state: State
    reason: Reason

    def keys_of(self, external_id: ExternalId) -> Sequence[Key]:
        """Return the keys that came from one purchase."""
        return [key for key in self.keys if key.external_id == external_id]


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
    refunded: Amount | None = None
    cancel_time: datetime | None = None

    @property
    def purchases(self) -> Sequence[Purchase]:
        """Every purchase of the order."""
        return [purchase for line in self.lines for purchase in line.purchases]
