"""The outside world, in the edge's words."""

from collections.abc import AsyncGenerator
from typing import Protocol

from gateway.domain.fact import Fact
from gateway.domain.order import Customer, DownloadLink, KeyRequest, Order, OrderPage
from gateway.domain.webhook import WebhookHint


class Fulfillments(Protocol):
    """The orders of customers. An order of somebody else is NOT_FOUND, as one that does not exist.

    Every method raises KeyferryError: NOT_FOUND, UNAVAILABLE when fulfillment or something behind it is down (nothing
    was opened then), or what fulfillment answered.
    """

    async def get(self, order_id: str, customer: Customer) -> Order:
        """Return one order."""
        ...

    async def list(self, customer: Customer, *, page_size: int, page_token: str) -> OrderPage:
        """Return some orders of the customer, newest first."""
        ...

    def watch(self, order_id: str, customer: Customer) -> AsyncGenerator[Order, None]:
        """Yield the order now and whenever it changes. Ends by itself now and then: watch again."""
        ...

    async def create_download_link(self, request: KeyRequest) -> DownloadLink:
        """Return a link to one sealed key and what opens it. Audited before it returns; idempotent by request id."""
        ...

    async def reveal_key(self, request: KeyRequest) -> str:
        """Return one key as a JWE to the one-time public key. Audited before it returns; idempotent by request id."""
        ...


class Checkpoints(Protocol):
    """What audit has signed of its log."""

    async def newest(self) -> str:
        """Return a checkpoint, seconds old at most. Raises KeyferryError when audit is down, or signs nothing."""
        ...


class WebhookSink(Protocol):
    """Where accepted webhooks go."""

    async def publish(self, hint: WebhookHint) -> None:
        """Return once the hint is stored and cannot be lost. Raises EventsUnavailable when it may not be."""
        ...


class FactSink(Protocol):
    """Where facts for the audit log go."""

    async def tell(self, fact: Fact) -> None:
        """Return once the fact is stored and cannot be lost; told again it is the same. Raises EventsUnavailable."""
        ...
