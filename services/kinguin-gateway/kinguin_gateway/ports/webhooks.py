"""The webhooks that were taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from keyferry.type.v1.actor_pb2 import Actor
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.domain.webhook import Receipt, Webhook, WebhookOutcome


@dataclass(frozen=True, slots=True)
class WebhookFilter:
    """Which webhooks a listing is for; what is absent matches everything."""

    event_name: str = ""
    supplier_order_id: str = ""
    external_id: str = ""
    outcome: WebhookOutcome | None = None


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """A person's wish to take a webhook again. `digest` tells a repeat from another request with its id."""

    request_id: str
    digest: bytes
    actor: Actor
    webhook_id: str


class Webhooks(Protocol):
    """Raises ServiceUnavailable while they cannot be reached."""

    async def take(self, connection: AsyncConnection, receipts: Sequence[Receipt]) -> Sequence[WebhookOutcome]:
        """Keep webhooks, and hurry the looks at what they are about, in the caller's transaction."""
        ...

    async def page(self, wanted: WebhookFilter, *, size: int, before: tuple[datetime, str] | None) -> Sequence[Webhook]:
        """Return at most `size` webhooks, the newest first, behind a receive time and name."""
        ...

    async def replay(self, order: ReplayOrder) -> Webhook | None:
        """Take one again, however old it is; None when there is none of this name. Raises RequestIdReused."""
        ...

    async def last_time(self) -> datetime | None:
        """Return when one was last taken."""
        ...
