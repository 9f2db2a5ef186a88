"""Returns in PostgreSQL."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from chassis.database import Database
from chassis.outbox import Outbox
from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import order_changed, purchase_audited
from kinguin_gateway.adapters.purchase_rows import NOW, WHOLE, purchase_of, same_purchase, write_key_states
from kinguin_gateway.adapters.surplus_rows import write_surplus
from kinguin_gateway.adapters.tables import KEY_RETURN, PURCHASE, SEALED_KEY
from kinguin_gateway.domain.purchase import Problem, Purchase, SupplierOrder
from kinguin_gateway.domain.returning import KeyReturn, ReturnState

_R = KEY_RETURN.c
_FREE = or_(_R.lease_end.is_(None), _R.lease_end < NOW)
_AUDITED = {
    ReturnState.ACCEPTED: "keys.return_accepted",
    ReturnState.RETURNED: "keys.returned",
    ReturnState.REFUNDED: "keys.refunded",
    ReturnState.REFUSED: "keys.return_refused",
}


class PostgresReturns:
    """Implements `kinguin_gateway.ports.returns.Returns`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def of_purchases(self, external_ids: Sequence[str]) -> Mapping[str, Sequence[KeyReturn]]:
        """See the port."""
        async with self._database.transaction() as connection:
            statement = select(KEY_RETURN).where(_R.external_id.in_(external_ids)).order_by(_R.create_time)
            rows = (await connection.execute(statement)).all()
        found: dict[str, list[KeyReturn]] = defaultdict(list)
        for row in rows:
            found[row.external_id].append(_key_return(row))
        return found

    async def delivered_since(self, external_id: str) -> tuple[datetime | None, datetime]:
        """See the port."""
        async with self._database.transaction() as connection:
            first = select(func.min(SEALED_KEY.c.seal_time).label("first"), NOW.label("now"))
            row = (await connection.execute(first.where(SEALED_KEY.c.external_id == external_id))).one()
        return row.first, row.now

    async def ask(self, purchase: Purchase, *, request_id: str) -> KeyReturn:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.ask_return") as connection:
            values = {
                "supplier_order_id": purchase.supplier_order_id,
                "external_id": purchase.intent.external_id,
                "surplus": False,
                "request_id": request_id,
                "state": ReturnState.ASKED.value,
                "next_look_time": NOW,
                "charged_cents": purchase.charged_cents,
            }
            statement = insert(KEY_RETURN).values(**values).on_conflict_do_nothing().returning(KEY_RETURN)
            row = (await connection.execute(statement)).one_or_none()
            if row is not None:
                await self._audit(connection, "keys.return_asked", row)
                return _key_return(row)
            known = select(KEY_RETURN).where(_R.supplier_order_id == purchase.supplier_order_id)
            return _key_return((await connection.execute(known)).one())

    async def ask_surplus(self, purchase: Purchase, surplus: Sequence[SupplierOrder]) -> None:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.ask_surplus_return") as connection:
            kept = select(*WHOLE).where(same_purchase(purchase)).with_for_update(of=PURCHASE)
            await write_surplus(connection, self._outbox, (await connection.execute(kept)).one(), surplus)

    async def claim(self, key_return: KeyReturn, *, lease: timedelta) -> bool:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.claim_return") as connection:
            statement = update(KEY_RETURN).where(_same(key_return), _FREE).values(lease_end=NOW + lease)
            return (await connection.execute(statement.returning(_R.state))).first() is not None

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[KeyReturn]:
        """See the port."""
        due = (
            select(_R.supplier_order_id)
            .where(_R.next_look_time <= NOW, _FREE)
            .order_by(_R.next_look_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        async with self._database.transaction("kinguin_gateway.claim_returns") as connection:
            same = _R.supplier_order_id == due.c.supplier_order_id
            statement = update(KEY_RETURN).where(same).values(lease_end=NOW + lease).returning(KEY_RETURN)
            return [_key_return(row) for row in (await connection.execute(statement)).all()]

    async def count_sending(self, key_return: KeyReturn) -> bool:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.count_return") as connection:
            statement = (
                update(KEY_RETURN)
                .where(_same(key_return), _R.sent_count == key_return.sent_count)
                .where(_R.state == ReturnState.ASKED.value)
                .values(sent_count=key_return.sent_count + 1, update_time=NOW)
            )
            return (await connection.execute(statement.returning(_R.state))).first() is not None

    async def record(self, key_return: KeyReturn, order: SupplierOrder | None, *, look: timedelta | None) -> KeyReturn:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.record_return") as connection:
            before = (await connection.execute(select(KEY_RETURN).where(_same(key_return)).with_for_update())).one()
            statement = (
                update(KEY_RETURN)
                .where(_same(key_return))
                .values(
                    state=key_return.state.value,
                    returned_count=key_return.returned_count,
                    refunded_count=key_return.refunded_count,
                    refusal_kind=key_return.refusal.kind,
                    refusal_detail=key_return.refusal.detail,
                    refusal_trace=key_return.refusal.trace,
                    sent_count=key_return.sent_count,
                    looks=key_return.looks,
                    charged_cents=key_return.charged_cents,
                    refunded_cents=key_return.refunded_cents,
                    lease_end=None,
                    next_look_time=None if look is None else NOW + look,
                    update_time=NOW,
                )
                .returning(KEY_RETURN)
            )
            row = (await connection.execute(statement)).one()
            if order is not None and not row.surplus:
                purchase = purchase_of(await self._purchase(connection, row.external_id))
                await write_key_states(connection, purchase, order)
                if row.refunded_cents is not None:
                    own = update(PURCHASE).where(same_purchase(purchase))
                    await connection.execute(own.values(refunded_cents=row.refunded_cents))
            if row.state != before.state:
                await self._tell(connection, row, order)
            return _key_return(row)

    async def _tell(self, connection: AsyncConnection, row: Row[Any], order: SupplierOrder | None) -> None:
        await self._audit(connection, _AUDITED[ReturnState(row.state)], row)
        if order is None or row.surplus:
            return
        intent = purchase_of(await self._purchase(connection, row.external_id)).intent
        # The state of the return tells this event from those of looks, which have revisions.
        event = order_changed(intent, order, delivered=0, revision=row.state, time=row.update_time)
        await self._outbox.enqueue(connection, event)

    async def _audit(self, connection: AsyncConnection, action: str, row: Row[Any]) -> None:
        purchase = await self._purchase(connection, row.external_id)
        details = {
            "supplier_order_id": row.supplier_order_id,
            "surplus": "true" if row.surplus else "",
            "kind": row.refusal_kind,
            "trace": row.refusal_trace,
        }
        event = purchase_audited(
            action,
            purchase_of(purchase).intent,
            request_id=row.request_id or purchase.request_id,
            attempt=row.supplier_order_id,
            details=details,
            time=row.update_time,
        )
        await self._outbox.enqueue(connection, event)

    async def _purchase(self, connection: AsyncConnection, external_id: str) -> Row[Any]:
        return (await connection.execute(select(*WHOLE).where(PURCHASE.c.external_id == external_id))).one()


def _same(key_return: KeyReturn) -> Any:
    return _R.supplier_order_id == key_return.supplier_order_id


def _key_return(row: Row[Any]) -> KeyReturn:
    return KeyReturn(
        supplier_order_id=row.supplier_order_id,
        external_id=row.external_id,
        surplus=row.surplus,
        state=ReturnState(row.state),
        create_time=row.create_time,
        returned_count=row.returned_count,
        refunded_count=row.refunded_count,
        refusal=Problem(row.refusal_kind, row.refusal_detail, row.refusal_trace),
        sent_count=row.sent_count,
        looks=row.looks,
        charged_cents=row.charged_cents,
        refunded_cents=row.refunded_cents,
    )
