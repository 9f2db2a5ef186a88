"""The rows of orders, as fulfillment needs them."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from fulfillment.domain.model import (
    Amount,
    ExternalId,
    Fulfillment,
    ItemId,
    Key,
    KeyId,
    Order,
    OrderId,
    Payment,
    Purchase,
    Reason,
    State,
)
from fulfillment.domain.planner import Planned
from fulfillment.ports.mail import MailDue
from fulfillment.ports.supplier import Buying

R = TypeVar("R", bound=Message)


class OrderTransaction(Protocol):
    """One transaction over one or more orders, with everything that is told about them."""

    async def load(self, order_id: OrderId, *, lock: bool = False) -> Fulfillment | None:
        """Return a fulfillment; locked, nobody else changes it until the transaction ends."""
        ...

    async def order_of_key(self, key_id: KeyId) -> OrderId | None:
        """Return the order that a key belongs to."""
        ...

    async def digest(self, order_id: OrderId) -> bytes | None:
        """Return the digest of the order as it was submitted; None when it is not known."""
        ...

    async def add_order(self, order: Order, digest: bytes, *, now: datetime) -> bool:
        """Add an order; False when it is known already, and then nothing was added."""
        ...

    async def add_payment(self, payment: Payment) -> Payment | None:
        """Add a payment; when its number is known already nothing is added, and the known one is returned."""
        ...

    async def payments(self, order_id: OrderId) -> Sequence[Payment]:
        """Return an order's payments; they may be there before it."""
        ...

    async def add_purchases(self, order_id: OrderId, planned: Sequence[Planned], *, now: datetime) -> None:
        """Add purchases, due at once; those that are there stay as they are."""
        ...

    async def lock_due(self, limit: int, *, now: datetime) -> Sequence[Buying]:
        """Lock purchases that are due, each with its order; those that somebody else has are passed over."""
        ...

    async def lease(self, purchase: Purchase, *, until: datetime) -> None:
        """Write a claimed purchase; it is due again when the lease ends without an answer."""
        ...

    async def extend_leases(self, external_ids: Sequence[ExternalId], *, now: datetime, until: datetime) -> None:
        """Let leases that have not ended last longer; one that has ended may be somebody else's already."""
        ...

    async def save_purchase(
        self, purchase: Purchase, *, now: datetime, run_at: datetime | None, refusal: str = ""
    ) -> None:
        """Write a purchase and end its lease; `run_at` is when a worker looks at it again, never when None.

        What was hastened while it was leased is due at once.
        """
        ...

    async def hasten(self, external_id: ExternalId, *, now: datetime) -> None:
        """Let a waiting purchase be looked at now; one that a worker has, as soon as it is put back."""
        ...

    async def add_keys(self, order_id: OrderId, keys: Sequence[Key]) -> Sequence[Key]:
        """Add keys and return those that are new."""
        ...

    async def open_key(self, key_id: KeyId, *, now: datetime) -> bool:
        """Note the first opening of a key; False when it was opened before."""
        ...

    async def name_product(self, order_id: OrderId, item_id: ItemId, name: str) -> None:
        """Keep the supplier's name of a line's product."""
        ...

    async def save_summary(
        self,
        order_id: OrderId,
        state: State,
        reason: Reason,
        *,
        now: datetime,
        paid: Amount | None,
        pay_time: datetime | None,
    ) -> None:
        """Write what the order comes to, count its version up, and tell those who watch it."""
        ...

    async def want_mail(self, order_id: OrderId, *, now: datetime) -> None:
        """Let the order's one mail be sent; wanted twice it is sent once."""
        ...

    async def mail_done(self, order_id: OrderId, *, now: datetime) -> None:
        """Note that the mail server took the mail."""
        ...

    async def tell(self, subject: str, message: Message, *, about: str, now: datetime, identity: Sequence[str]) -> None:
        """Put an event into the outbox; the same identity is the same event."""
        ...

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        """Return the answer that this request got before. Raises RequestIdReused."""
        ...

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        """Keep the answer for a repeat of this request."""
        ...


class Orders(Protocol):
    """The rows of orders. Raises ServiceUnavailable when the database does not answer."""

    def transaction(self) -> AbstractAsyncContextManager[OrderTransaction]:
        """Run a block in one transaction."""
        ...

    async def page(
        self, *, customer_id: str, state: State | None, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[Fulfillment]:
        """Return fulfillments, newest first, after the given time and order number."""
        ...

    async def due_mails(self, limit: int, *, lease: timedelta, now: datetime) -> Sequence[MailDue]:
        """Claim mails that are due; each is nobody else's until the lease ends."""
        ...

    async def mail_waits(self, order_id: OrderId, *, run_at: datetime | None, failure: str) -> None:
        """Note why the mail was not taken and when to try again; never when None."""
        ...
