"""Webhooks in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from chassis.errors import RequestIdReused
from kinguin_gateway.domain.webhook import Receipt, Webhook, WebhookOutcome, is_stale
from kinguin_gateway.ports.webhooks import ReplayOrder, WebhookFilter
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.unit.simulated import EPOCH


class FakeWebhooks:
    """Keeps webhooks in memory; orders named in `ours` are ours, products in `bought` were bought."""

    def __init__(self, *ours: str, bought: Sequence[str] = ()) -> None:
        self.ours = set(ours)
        self.bought = set(bought)
        self.kept: dict[str, Webhook] = {}
        self.hurried: list[str] = []
        self.replayed: dict[str, bytes] = {}

    async def take(self, connection: AsyncConnection, receipts: Sequence[Receipt]) -> Sequence[WebhookOutcome]:  # noqa: ARG002 # the port's
        return [self._take(receipt) for receipt in receipts]

    def _take(self, receipt: Receipt) -> WebhookOutcome:
        about = receipt.product_id or receipt.supplier_order_id
        told = [
            webhook.receipt.told_time
            for webhook in self.kept.values()
            if (webhook.receipt.product_id or webhook.receipt.supplier_order_id) == about
        ]
        latest = max((time for time in told if time is not None), default=None)
        outcome = WebhookOutcome.STALE if is_stale(receipt.told_time, latest) else self._hurry(receipt)
        self.kept.setdefault(receipt.event_id, Webhook(receipt.event_id, receipt, outcome, None))
        return outcome

    def _hurry(self, receipt: Receipt) -> WebhookOutcome:
        about = {receipt.supplier_order_id, receipt.external_id}
        if not (about & self.ours or receipt.product_id in self.bought):
            return WebhookOutcome.UNRELATED
        self.hurried.append(receipt.product_id or receipt.supplier_order_id)
        return WebhookOutcome.HURRIED

    async def page(self, wanted: WebhookFilter, *, size: int, before: tuple[datetime, str] | None) -> Sequence[Webhook]:
        found = [
            webhook
            for webhook in sorted(
                self.kept.values(), key=lambda each: (each.receipt.receive_time, each.webhook_id), reverse=True
            )
            if wanted.event_name in {"", webhook.receipt.event_name}
            and wanted.supplier_order_id in {"", webhook.receipt.supplier_order_id}
            and wanted.external_id in {"", webhook.receipt.external_id}
            and wanted.outcome in {None, webhook.outcome}
            and (before is None or (webhook.receipt.receive_time, webhook.webhook_id) < before)
        ]
        return found[:size]

    async def replay(self, order: ReplayOrder) -> Webhook | None:
        webhook = self.kept.get(order.webhook_id)
        if webhook is None:
            return None
        if self.replayed.setdefault(order.request_id, order.digest) != order.digest:
            raise RequestIdReused("request_id: was used with another body")
        outcome = self._hurry(webhook.receipt)
        self.kept[order.webhook_id] = replace(webhook, outcome=outcome, replay_time=EPOCH)
        return self.kept[order.webhook_id]

    async def last_time(self) -> datetime | None:
        return max((webhook.receipt.receive_time for webhook in self.kept.values()), default=None)
