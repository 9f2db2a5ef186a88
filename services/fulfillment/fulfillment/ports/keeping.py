"""What is kept of customers and of keys, and how it is forgotten: rows of our own, and vault's."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from fulfillment.domain.model import KeyId, OrderId
from fulfillment.ports.orders import OrderTransaction
from fulfillment.ports.vault import FoundKey, NoWord


@dataclass(frozen=True, slots=True)
class VaultErasure:
    """What vault is asked to forget."""

    request_id: str
    customer_id: str = field(repr=False)
    forfeit_unopened: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ErasedKeys:
    """What vault did with the keys of a customer whom it forgot."""

    shredded_count: int
    kept_count: int


class DeliveryAct(StrEnum):
    """What is done with a key, in vault's words."""

    UNSPECIFIED = "UNSPECIFIED"
    """Something that this release has no word for; vault may be newer."""
    STORED = "STORED"
    LINK_ISSUED = "LINK_ISSUED"
    REVEALED = "REVEALED"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    SHREDDED = "SHREDDED"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing that was done with a key. `caller` is empty where its owner did it."""

    act: DeliveryAct
    time: datetime
    caller: str
    request_id: str
    network: str = field(repr=False)
    device: str = field(repr=False)
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryLog:
    """What was done with a key, the earliest first, and how often it was handed over."""

    order_id: OrderId
    deliveries: Sequence[Delivery]
    link_count: int
    reveal_count: int


class KeyKeeper(Protocol):
    """Vault, as the keeper of keys. Its errors pass through."""

    async def erase_customer(self, erasure: VaultErasure) -> ErasedKeys:
        """Have a customer forgotten. Asking again goes on where it stopped, and then changes nothing.

        Raises RemoteError with KEYS_UNOPENED, and nothing was changed.
        """
        ...

    async def keys_of(self, order_id: OrderId) -> Sequence[FoundKey] | NoWord:
        """Return every key that vault has of an order, whatever became of it."""
        ...

    async def delivery_log(self, key_id: KeyId) -> DeliveryLog:
        """Return what was done with a key."""
        ...


class ErasureTransaction(OrderTransaction, Protocol):
    """One transaction over orders of a customer who is to be forgotten."""

    async def orders_of(self, customer_id: str, *, after: str, limit: int) -> Sequence[OrderId]:
        """Return orders of a customer by their numbers, from the one after `after`."""
        ...

    async def forget_customer(self, order_id: OrderId, pseudonym: str) -> None:
        """Remove the customer from an order that is locked, and from its purchases, its mail and its notices.

        No mail of it is sent any more. What the order was submitted with is known no more either.
        """
        ...


class Erasures(Protocol):
    """The rows that name customers. Raises ServiceUnavailable when the database does not answer."""

    def transaction(self, step: str = "") -> AbstractAsyncContextManager[ErasureTransaction]:
        """Run a block in one transaction. One that writes names its `step`, around whose commit failpoints are."""
        ...

    async def strike(self, customer_id: str, pseudonym: str) -> None:
        """Remove a customer from what was told, what was answered and what could not be handled, piece by piece.

        What a piece has done stays done. A payment that could not be handled is left, without its order.
        """
        ...
