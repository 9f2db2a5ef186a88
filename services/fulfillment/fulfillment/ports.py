"""What fulfillment needs of the outside world, in its own words."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from fulfillment.domain.machine import Command
from fulfillment.domain.model import (
    Amount,
    ExternalId,
    Fulfillment,
    Item,
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

R = TypeVar("R", bound=Message)


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
    """What was delivered cannot be sealed as a key, however often we ask."""


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
    """Every key of a purchase that is sealed so far. `ended` means that the supplier will deliver no more."""

    keys: Sequence[ArrivedKey]
    product_name: str
    more_ready: bool
    ended: bool


PlaceAnswer = Placed | Refused | InDoubt | Paused | NoAnswer
CollectAnswer = Collected | NoAnswer | Unreadable | Unknown


class Supplier(Protocol):
    """kinguin-gateway, which alone knows the supplier. No method raises for what the supplier may answer."""

    async def place(self, buying: Buying) -> PlaceAnswer:
        """Buy, or learn what became of buying: both are the same question under the same external id."""
        ...

    async def collect(self, buying: Buying) -> CollectAnswer:
        """Have what has been delivered sealed for the order's customer."""
        ...

    async def knows_product(self, product_id: str) -> bool | None:
        """Tell whether the supplier sells a product; None when nobody could say."""
        ...


@dataclass(frozen=True, slots=True)
class Viewer:
    """On whose behalf a key is asked for."""

    customer_id: str
    email: str = field(default="", repr=False)
    ip_address: str = field(default="", repr=False)
    user_agent: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class KeyWish:
    """An owner's wish to open one key. Its parts pass through unread."""

    request_id: str
    order_id: OrderId
    key_id: KeyId
    viewer: Viewer
    recipient_jwk: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DownloadLink:
    """A link as vault made it."""

    url: str = field(repr=False)
    expire_time: datetime
    content_key_jwe: str = field(repr=False)
    object_sha256: bytes


class Vault(Protocol):
    """Vault, which alone opens keys. Errors of vault pass through."""

    async def create_download_link(self, wish: KeyWish) -> DownloadLink:
        """Return a download link for the owner."""
        ...

    async def reveal_key(self, wish: KeyWish) -> str:
        """Return the key, encrypted to the owner's one-time key."""
        ...


@dataclass(frozen=True, slots=True)
class Letter:
    """One e-mail, ready to be sent. Its Message-ID is the same each time it is."""

    message_id: str
    to: str = field(repr=False)
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)


class MailRefused(Exception):
    """The mail server will never take this letter."""


class MailDelayed(Exception):
    """The mail server does not take it now, or its answer was lost."""


class Mailer(Protocol):
    """The mail server."""

    async def send(self, letter: Letter) -> None:
        """Hand over a letter. Raises MailRefused or MailDelayed."""
        ...


@dataclass(frozen=True, slots=True)
class MailDue:
    """The mail of one order whose time has come."""

    order_id: OrderId
    email: str = field(repr=False)
    locale: str
    product_names: Sequence[str]
    tries: int


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
