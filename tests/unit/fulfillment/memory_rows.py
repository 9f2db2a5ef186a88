"""What is in the memory that stands for PostgreSQL."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from fulfillment.domain.model import (
    Amount,
    ExternalId,
    ItemId,
    Key,
    KeyId,
    Order,
    OrderId,
    Payment,
    Purchase,
    Reason,
    Refund,
    RefundRequest,
    State,
)
from fulfillment.ports.payments import Closure, PaymentRecord
from google.protobuf.message import Message


@dataclass(frozen=True)
class OrderRow:
    order: Order
    digest: bytes
    create_time: datetime
    update_time: datetime
    state: State = State.AWAITING_PAYMENT
    reason: Reason = Reason.NONE
    version: int = 1
    paid: Amount | None = None
    pay_time: datetime | None = None
    mail_time: datetime | None = None
    refunded: Amount | None = None
    cancel_time: datetime | None = None


@dataclass(frozen=True)
class PaymentRow:
    payment: Payment
    create_time: datetime
    close_time: datetime | None = None
    closure: Closure | None = None
    close_note: str = ""


@dataclass(frozen=True)
class RefundRow:
    refund: Refund
    create_time: datetime
    is_applied: bool = False


@dataclass(frozen=True)
class PurchaseRow:
    purchase: Purchase
    run_at: datetime | None
    lease_until: datetime | None = None
    hastened: bool = False

    @property
    def as_read(self) -> Purchase:
        """The purchase, as it is read: with when it is looked at next."""
        return replace(self.purchase, next_time=self.run_at)

    def is_leased(self, now: datetime) -> bool:
        return self.lease_until is not None and self.lease_until > now


@dataclass(frozen=True)
class KeyRow:
    key: Key
    order_id: OrderId


@dataclass(frozen=True)
class MailRow:
    run_at: datetime | None
    tries: int = 0
    send_time: datetime | None = None
    failure: str = ""
    again_times: tuple[datetime, ...] = ()
    lease_until: datetime | None = None
    claim: int = 0


@dataclass(frozen=True)
class Told:
    subject: str
    message: Message
    about: str


@dataclass
class Rows:
    """Everything that is committed, or would be."""

    orders: dict[OrderId, OrderRow] = field(default_factory=dict)
    names: dict[tuple[OrderId, ItemId], str] = field(default_factory=dict)
    payments: dict[tuple[str, str], PaymentRow] = field(default_factory=dict)
    refunds: dict[tuple[str, str], RefundRow] = field(default_factory=dict)
    requests: dict[str, RefundRequest] = field(default_factory=dict)
    purchases: dict[ExternalId, PurchaseRow] = field(default_factory=dict)
    keys: dict[KeyId, KeyRow] = field(default_factory=dict)
    mails: dict[OrderId, MailRow] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    answers: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    inbox: dict[str, None] = field(default_factory=dict)

    def record(self, row: PaymentRow) -> PaymentRecord:
        """Return a payment as staff looks at it."""
        place, is_matched = payment_place(row.payment), row.payment.order_id in self.orders
        own = [each.refund for _, each in sorted(self.refunds.items()) if payment_place(each.refund) == place]
        ended = (row.close_time, row.closure, row.close_note)
        return PaymentRecord(row.payment, row.create_time, is_matched, own, *ended)

    def copy(self) -> "Rows":
        return Rows(**{name: dict(table) for name, table in vars(self).items()})


def payment_place(about: Payment | Refund) -> tuple[str, str]:
    """Name the payment that this is, or is a refund of."""
    return about.provider, about.payment_id
