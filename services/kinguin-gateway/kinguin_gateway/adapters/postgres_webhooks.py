"""Webhooks in PostgreSQL."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from chassis.database import Database
from chassis.outbox import Outbox
from chassis.request_log import earlier_answer, keep_answer
from google.protobuf.empty_pb2 import Empty
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import account_audited
from kinguin_gateway.adapters.postgres_looks import hurry_look
from kinguin_gateway.adapters.purchase_rows import NOW
from kinguin_gateway.adapters.tables import PRODUCT, WEBHOOK
from kinguin_gateway.domain.webhook import ABOUT_PRODUCTS, Receipt, Webhook, WebhookOutcome, is_stale
from kinguin_gateway.ports.webhooks import ReplayOrder, WebhookFilter

_W = WEBHOOK.c
_NAMESPACE = uuid.UUID("0f6c6d6e-4bd0-4a26-9d59-64a6c8c9d0aa")
# Many updates of one product within so long lead to one reading of it.
_GATHER = timedelta(seconds=2)


class PostgresWebhooks:
    """Implements `kinguin_gateway.ports.webhooks.Webhooks`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def take(self, connection: AsyncConnection, receipts: Sequence[Receipt]) -> Sequence[WebhookOutcome]:
        """See the port."""
        return [await self._take(connection, receipt) for receipt in receipts]

    async def _take(self, connection: AsyncConnection, receipt: Receipt) -> WebhookOutcome:
        if receipt.event_name == ABOUT_PRODUCTS:
            outcome = await _hurry_product(connection, receipt)
        else:
            latest = select(func.max(_W.told_time)).where(_W.supplier_order_id == receipt.supplier_order_id)
            if is_stale(receipt.told_time, (await connection.execute(latest)).scalar_one()):
                outcome = WebhookOutcome.STALE
            else:
                outcome = await _hurry_purchase(connection, receipt)
        values = {
            **{name: getattr(receipt, name) for name in Receipt.__dataclass_fields__},
            "webhook_id": uuid.uuid5(_NAMESPACE, receipt.event_id),
            "told_time": receipt.told_time,
            "outcome": outcome.value,
        }
        await connection.execute(insert(WEBHOOK).values(**values).on_conflict_do_nothing())
        return outcome

    async def page(self, wanted: WebhookFilter, *, size: int, before: tuple[datetime, str] | None) -> Sequence[Webhook]:
        """See the port."""
        statement = select(WEBHOOK).order_by(_W.receive_time.desc(), _W.webhook_id.desc()).limit(size)
        for column, value in (
            (_W.event_name, wanted.event_name),
            (_W.supplier_order_id, wanted.supplier_order_id),
            (_W.external_id, wanted.external_id),
            (_W.outcome, wanted.outcome.value if wanted.outcome else ""),
        ):
            if value:
                statement = statement.where(column == value)
        if before is not None:
            statement = statement.where(tuple_(_W.receive_time, _W.webhook_id) < (before[0], uuid.UUID(before[1])))
        async with self._database.transaction() as connection:
            return [_webhook(row) for row in (await connection.execute(statement)).all()]

    async def replay(self, order: ReplayOrder) -> Webhook | None:
        """See the port."""
        request_id, digest = order.request_id, order.digest
        named = select(WEBHOOK).where(_W.webhook_id == uuid.UUID(order.webhook_id)).with_for_update()
        async with self._database.transaction("kinguin_gateway.replay_webhook") as connection:
            known = await earlier_answer(connection, request_id=request_id, digest=digest, response_class=Empty)
            row = (await connection.execute(named)).one_or_none()
            if row is None or known is not None:
                return None if row is None else _webhook(row)
            receipt = _webhook(row).receipt
            if receipt.event_name == ABOUT_PRODUCTS:
                outcome = await _hurry_product(connection, receipt, again=True)
            else:
                outcome = await _hurry_purchase(connection, receipt)
            statement = update(WEBHOOK).where(_W.webhook_id == row.webhook_id)
            row = (
                await connection.execute(statement.values(outcome=outcome.value, replay_time=NOW).returning(WEBHOOK))
            ).one()
            details = {"webhook_id": order.webhook_id, "outcome": outcome.value}
            event = account_audited(
                "webhook.replayed",
                key=request_id,
                actor=order.actor,
                request_id=request_id,
                details=details,
                time=row.replay_time,
            )
            await self._outbox.enqueue(connection, event)
            await keep_answer(connection, request_id=request_id, digest=digest, response=Empty())
            return _webhook(row)

    async def last_time(self) -> datetime | None:
        """See the port."""
        async with self._database.transaction() as connection:
            last: datetime | None = (await connection.execute(select(func.max(_W.receive_time)))).scalar_one()
        return last


async def _hurry_purchase(connection: AsyncConnection, receipt: Receipt) -> WebhookOutcome:
    hurried = await hurry_look(connection, supplier_order_id=receipt.supplier_order_id, external_id=receipt.external_id)
    return WebhookOutcome.HURRIED if hurried else WebhookOutcome.UNRELATED


async def _hurry_product(connection: AsyncConnection, receipt: Receipt, *, again: bool = False) -> WebhookOutcome:
    p = PRODUCT.c
    known = select(p.told_time).where(p.product_id == receipt.product_id).with_for_update()
    row = (await connection.execute(known)).one_or_none()
    if row is None:
        return WebhookOutcome.UNRELATED
    if not again and is_stale(receipt.told_time, row.told_time):
        return WebhookOutcome.STALE
    values: dict[str, Any] = {"next_read_time": func.least(p.next_read_time, NOW + _GATHER)}
    if receipt.told_time is not None:
        values["told_time"] = func.greatest(p.told_time, receipt.told_time)
    await connection.execute(update(PRODUCT).where(p.product_id == receipt.product_id).values(**values))
    return WebhookOutcome.HURRIED


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        str(row.webhook_id),
        Receipt(**{name: getattr(row, name) for name in Receipt.__dataclass_fields__}),
        WebhookOutcome(row.outcome),
        row.replay_time,
    )
