"""Webhooks as they are kept. Nothing in them is believed; `updatedAt` only tells which of two is the later (K59)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

# Names that are about an order (K54); older stores still send the second.
ABOUT_ORDERS = frozenset({"order.status", "order.complete"})
ABOUT_PRODUCTS = "product.update"


class WebhookOutcome(StrEnum):
    """What came of a webhook."""

    HURRIED = "hurried"
    UNRELATED = "unrelated"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A webhook that the edge took. What the supplier repeats has one event id."""

    event_id: str
    event_name: str
    supplier_order_id: str
    external_id: str
    status: str
    product_id: str
    updated_at: str
    receive_time: datetime
    body_sha256: bytes

    @property
    def told_time(self) -> datetime | None:
        """When it happened by the supplier's clock; None where that cannot be read."""
        try:
            moment = datetime.fromisoformat(self.updated_at)
        except ValueError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook with what came of it."""

    webhook_id: str
    receipt: Receipt
    outcome: WebhookOutcome
    replay_time: datetime | None


def is_stale(told: datetime | None, latest: datetime | None) -> bool:
    """Tell whether a later webhook about the same came before. What cannot be compared is never stale."""
    return told is not None and latest is not None and told < latest
