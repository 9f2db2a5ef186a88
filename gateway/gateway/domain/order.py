"""An order as its owner may see it, and who is asking."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """Where an order or a line is, in fulfillment's words."""

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


@dataclass(frozen=True, slots=True)
class Amount:
    """Money in one currency, in its minor units."""

    currency_code: str
    minor_units: int


@dataclass(frozen=True, slots=True)
class Key:
    """A key that its owner can open. Everything but the key."""

    key_id: str
    content_type: str
    ready_time: datetime | None
    open_time: datetime | None


@dataclass(frozen=True, slots=True)
class Line:
    """One product of an order."""

    item_id: str
    product_id: str
    product_name: str
    quantity: int
    state: State
    reason: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """An order and what has become of it."""

    order_id: str
    state: State
    reason: str
    total: Amount
    paid: Amount | None
    lines: tuple[Line, ...]
    create_time: datetime
    update_time: datetime
    pay_time: datetime | None


@dataclass(frozen=True, slots=True)
class OrderPage:
    """Some orders, newest first, and the name of the next page (empty on the last)."""

    orders: tuple[Order, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Customer:
    """The customer who asks, and from where; all but the country goes into the audit log as it stands."""

    customer_id: str
    email: str
    ip_address: str
    user_agent: str
    country_code: str = ""


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A customer's wish to have one key opened to a one-time public key (a JWK as JSON)."""

    request_id: str
    order_id: str
    key_id: str
    customer: Customer
    recipient_jwk: bytes


@dataclass(frozen=True, slots=True, repr=False)
class DownloadLink:
    """A presigned URL of the ciphertext, and the content key for the one-time private key. Never logged."""

    url: str
    expire_time: datetime
    content_key_jwe: str
    object_sha256: bytes
