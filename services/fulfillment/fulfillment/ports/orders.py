"""The rows of orders, as fulfillment needs them: one transaction over everything that is written together."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from fulfillment.domain.model import (
    ExternalId,
    Fulfillment,
    ItemId,
    Key,
    KeyId,
    Money,
    Order,
    OrderId,
    Payment,
    Purchase,
    Reason,
    Refund,
    RefundRequest,
    State,
)
from fulfillment.domain.payments import Paid
from fulfillment.domain.policy import Trouble
from fulfillment.ports.mail import MailDue
from fulfillment.ports.payments import Closure, PaymentRecord
from fulfillment.ports.supplier import Buying

R = TypeVar("R", bound=Message)


class OrderRows(Protocol):
    """Orders, with what they come to."""

    async def load(self, order_id: OrderId, *, lock: bool = False) -> Fulfillment | None:
        """Return a fulfillment; locked, nobody else changes it until the transaction ends."""
        ...

    async def digest(self, order_id: OrderId) -> bytes | None:
        """Return the digest of the order as it was submitted; None when it is not known."""
        ...

    async def add_order(self, order: Order, digest: bytes, *, now: datetime) -> bool:
        """Add an order; False when it is known already, and then nothing was added."""
        ...

    async def cancel_order(self, order_id: OrderId, *, now: datetime) -> None:
        """Note when an order was first asked to be canceled."""
        ...

    async def troubled(
        self, trouble: Trouble, *, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[tuple[datetime, OrderId]]:
        """Return orders that need attention with a purchase in such trouble, with their times, the oldest first.

        Among them may be some of which nothing can go on: who retries one is told so.
        """
        ...

    async def save_summary(
        self,
        order_id: OrderId,
        state: State,
        reason: Reason,
        *,
        now: datetime,
        paid: Paid,
        pay_time: datetime | None,
    ) -> None:
        """Write what the order comes to, count its version up, and tell those who watch it."""
        ...


class MoneyRows(Protocol):
    """Payments, refunds, and what the shop is asked to pay back.

    Of a payment, its refund and its order that arrive at one moment, each in a transaction of its own, none stays
    unseen: who comes second sees the first. An order is locked after these are added, never before.
    """

    async def add_payment(self, payment: Payment, *, now: datetime) -> Payment | None:
        """Add a payment; when its number is known already nothing is added, and the known one is returned."""
        ...

    async def add_refund(self, refund: Refund, *, now: datetime) -> Refund | None:
        """Add a refund, which has yet to be applied; when its number is known, return the known one instead."""
        ...

    async def order_of_payment(self, provider: str, payment_id: str) -> OrderId | None:
        """Return the order that a payment is for; None while the payment is not known, and when it was closed."""
        ...

    async def lock_payment(self, provider: str, payment_id: str) -> PaymentRecord | None:
        """Return a payment. Until the transaction ends nobody else changes it, or adds its order or a refund of it."""
        ...

    async def assign_payment(self, provider: str, payment_id: str, order_id: OrderId) -> None:
        """Give a payment that is locked to an order that is there; which one it first came for is kept."""
        ...

    async def close_payment(
        self, provider: str, payment_id: str, closure: Closure, note: str, *, now: datetime
    ) -> None:
        """End a payment that is locked: it counts for no order any more."""
        ...

    async def money(self, order_id: OrderId) -> Money:
        """Return an order's payments, none that was closed, and their refunds; they may be there before the order."""
        ...

    async def take_pending_refunds(self, order_id: OrderId) -> Sequence[Refund]:
        """Return refunds of the order's payments that were not applied yet, and note that they are."""
        ...

    async def add_refund_request(self, request: RefundRequest, *, now: datetime) -> bool:
        """Add a request; False when it is there already."""
        ...

    async def refund_requests(self, order_id: OrderId) -> Sequence[RefundRequest]:
        """Return what the shop was asked to pay back of an order, in the order of asking."""
        ...

    async def answer_refund_requests(self, order_id: OrderId, request_ids: Sequence[str]) -> Sequence[RefundRequest]:
        """Note which of an order's requests were answered, and return those that were not before."""
        ...


class PurchaseRows(Protocol):
    """Purchases, and who works on them.

    A purchase that is written carries the claim on whose behalf that is done: a worker's is the one that `lease`
    returned, also where the purchase was read again since; everybody else's is the one that was read.
    """

    async def add_purchases(self, purchases: Sequence[Purchase], *, run_at: datetime) -> None:
        """Add purchases, due at the given time; those that are there stay as they are."""
        ...

    async def waiting(self, customer_id: str, *, most: int) -> int:
        """Count a customer's purchases that wait to be bought, up to the given number."""
        ...

    async def lock_due(self, shares: Mapping[int, int], *, now: datetime) -> Sequence[Buying]:
        """Lock purchases that are due, from each lane at most its share, each with its order.

        Those that somebody else has are passed over. In a lane the one that has been due longest is first.
        """
        ...

    async def lease(self, purchase: Purchase, *, until: datetime) -> Purchase:
        """Write a claimed purchase and return it under its new claim; it is due again when its lease just ends."""
        ...

    async def renew(self, purchase: Purchase, *, until: datetime) -> None:
        """Write a purchase that its worker goes on with, under the same claim.

        Raises LookupError when somebody else has claimed it since, who must not be overtaken by what would follow.
        """
        ...

    async def extend_leases(self, claims: Mapping[ExternalId, int], *, now: datetime, until: datetime) -> None:
        """Let leases of the given claims that have not ended last longer."""
        ...

    async def save_purchase(self, purchase: Purchase, *, now: datetime, run_at: datetime | None) -> None:
        """Write a purchase and end its lease; `run_at` is when a worker looks at it again, never when None.

        What was hastened while it was leased is due at once. While the lease of another claim lasts, the facts are
        written all the same, for they may not be told again, and the lease, its end and the hint stay as their holder
        has them. But what nobody is to look at again is nobody's, and what nobody holds is due as it is said here.
        A word that could not be read (ROW_UNREADABLE) is left as it is.
        """
        ...

    async def put_off(self, external_id: ExternalId, *, run_at: datetime) -> None:
        """Let a purchase be looked at again at `run_at` and write nothing else of it: it may not be readable."""
        ...

    async def hasten(self, external_id: ExternalId, *, now: datetime) -> None:
        """Let a waiting purchase be looked at now; one that a worker has, as soon as it is put back."""
        ...


class KeyRows(Protocol):
    """Keys, by their names."""

    async def order_of_key(self, key_id: KeyId) -> OrderId | None:
        """Return the order that a key belongs to."""
        ...

    async def add_keys(self, order_id: OrderId, keys: Sequence[Key]) -> Sequence[Key]:
        """Add keys and return those that are new."""
        ...

    async def open_key(self, key_id: KeyId, *, now: datetime) -> bool:
        """Note the first opening of a key; False when it was opened before."""
        ...

    async def revoke_keys(self, key_ids: Sequence[KeyId], *, now: datetime) -> None:
        """Note that nobody can open these keys any more."""
        ...

    async def replace_key(self, key_id: KeyId, *, now: datetime) -> bool:
        """Note that another key is bought in place of this one; False when one was before."""
        ...

    async def name_product(self, order_id: OrderId, item_id: ItemId, name: str) -> None:
        """Keep the supplier's name of a line's product."""
        ...


class MailRows(Protocol):
    """The one mail of each order."""

    async def want_mail(self, order_id: OrderId, *, now: datetime) -> None:
        """Let the order's one mail be sent; wanted twice it is sent once."""
        ...

    async def want_mail_again(
        self, order_id: OrderId, *, now: datetime, most: int, within: timedelta
    ) -> datetime | None:
        """Let a mail that is wanted be sent again, also one that the mail server refused. It is nobody's then.

        Returns None, or, where it was wanted again that often within that time already, when it may be again. Raises
        LookupError for an order that no mail was ever wanted for.
        """
        ...

    async def mail_done(self, order_id: OrderId, claim: int, *, now: datetime) -> None:
        """Note that the mail server took the mail. Where another claim has it by now, when it is sent is that one's."""
        ...


class Telling(Protocol):
    """What is told to others, and what was answered before."""

    async def tell(self, subject: str, message: Message, *, about: str, now: datetime, identity: Sequence[str]) -> None:
        """Put an event into the outbox; the same identity is the same event."""
        ...

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        """Return the answer that this request got before. Raises RequestIdReused."""
        ...

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        """Keep the answer for a repeat of this request."""
        ...


class OrderTransaction(OrderRows, MoneyRows, PurchaseRows, KeyRows, MailRows, Telling, Protocol):
    """One transaction over one or more orders, with everything that is told about them."""

    def isolated(self) -> AbstractAsyncContextManager[None]:
        """Run a block of which nothing is left if it raises; what was written before it stays."""
        ...


class Orders(Protocol):
    """The rows of orders. Raises ServiceUnavailable when the database does not answer."""

    def transaction(self, step: str = "") -> AbstractAsyncContextManager[OrderTransaction]:
        """Run a block in one transaction. One that writes names its `step`, around whose commit failpoints are."""
        ...

    async def page(
        self, *, customer_id: str, state: State | None, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[Fulfillment]:
        """Return fulfillments, newest first, after the given time and order number."""
        ...

    async def due_mails(self, limit: int, *, lease: timedelta, now: datetime) -> Sequence[MailDue]:
        """Claim mails that are due, each under a new claim; each is nobody else's until the lease ends."""
        ...

    async def extend_mails(self, claims: Mapping[OrderId, int], *, now: datetime, until: datetime) -> None:
        """Let leases of the given claims that have not ended last longer."""
        ...

    async def mail_waits(self, order_id: OrderId, claim: int, *, run_at: datetime | None, failure: str) -> None:
        """Note why the mail was not taken and when to try again; never when None. An earlier claim changes nothing."""
        ...
