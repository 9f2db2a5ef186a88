"""Purchases in PostgreSQL. Every time that decides anything is the database's clock, which all replicas share."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from chassis.database import Database
from chassis.errors import RequestIdReused
from chassis.failpoints import failpoint
from chassis.outbox import Outbox
from chassis.tables import REQUEST_LOG
from sqlalchemy import ColumnElement, DateTime, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import order_changed, purchase_audited
from kinguin_gateway.adapters.tables import PURCHASE, SEALED_KEY
from kinguin_gateway.domain.looking import delivered_count, is_change, is_news
from kinguin_gateway.domain.purchase import (
    Intent,
    KeyRef,
    Problem,
    Purchase,
    PurchaseState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.errors import ExternalIdConflict
from kinguin_gateway.ports import Begun, Due, SealedSoFar

_C = PURCHASE.c
_NOW = func.clock_timestamp(type_=DateTime(timezone=True))
_SEALED_COUNT = (
    select(func.count())
    .where(SEALED_KEY.c.external_id == _C.external_id)
    .correlate(PURCHASE)
    .scalar_subquery()
    .label("sealed_count")
)
_WHOLE = (*_C, _SEALED_COUNT, _NOW.label("now"))
_FREE = or_(_C.lease_end.is_(None), _C.lease_end < _NOW)
_IN_DOUBT = _C.state == PurchaseState.IN_DOUBT.value
_COLLECTING = "keyferry.kinguin.v1.CollectKeysRequest"


class PostgresPurchases:
    """Implements `kinguin_gateway.ports.Purchases`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def begin(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        """See the port."""
        opening = {
            "state": PurchaseState.IN_DOUBT.value,
            "send_deadline": _NOW + window,
            "lease_end": _NOW + lease,
            "next_look_time": _NOW + lease,
        }
        async with self._transaction("open") as connection:
            first = insert(PURCHASE).values(**_columns(intent), request_id=request_id, attempt=1, **opening)
            row = (await connection.execute(first.on_conflict_do_nothing().returning(*_WHOLE))).one_or_none()
            if row is not None:
                return _begun(row, opened=True)
            present = await self._lock(connection, intent, request_id)
            purchase = _purchase(present)
            is_free = present.lease_end is None or present.lease_end < present.now
            if purchase.state is PurchaseState.INTENDED:
                # The compare-and-set on the attempt's number is what lets one replica open it, whatever locks do.
                statement = (
                    update(PURCHASE)
                    .where(_same(purchase), _C.attempt == purchase.attempt, _C.state == PurchaseState.INTENDED.value)
                    .values(attempt=purchase.attempt + 1, looks=0, doubt="", update_time=_NOW, **opening)
                )
                row = (await connection.execute(statement.returning(*_WHOLE))).one()
                return _begun(row, opened=True)
            if purchase.state is PurchaseState.IN_DOUBT and is_free:
                await connection.execute(update(PURCHASE).where(_same(purchase)).values(lease_end=_NOW + lease))
                return _begun(present, claimed=True)
            return _begun(present)

    async def record_taken(
        self, purchase: Purchase, order: SupplierOrder, *, adopted: bool, look: timedelta
    ) -> Purchase:
        """See the port."""
        details = {
            "supplier_order_id": order.supplier_order_id,
            "adopted": "true" if adopted else "",
            "charged_cents": "" if order.charged_cents is None else str(order.charged_cents),
        }
        async with self._transaction("record") as connection:
            row = await self._advance(
                connection,
                purchase,
                # A clear yes is true whatever became of the row meanwhile, unless it has an order already.
                _C.state.in_([PurchaseState.IN_DOUBT.value, PurchaseState.INTENDED.value]),
                state=PurchaseState.PLACED.value,
                supplier_order_id=order.supplier_order_id,
                doubt="",
                looks=0,
                # A webhook that came before this answer asked for an earlier look.
                next_look_time=func.least(_C.next_look_time, _NOW + look),
                **_seen(purchase, order),
            )
            if row is None:
                return await self._reread(connection, purchase)
            placed = _purchase(row)
            await self._audit(connection, "purchase.placed", row, details)
            if adopted:
                delivered = placed.delivered_count
                event = order_changed(purchase.intent, order, delivered=delivered, revision=0, time=row.now)
                await self._outbox.enqueue(connection, event)
            return placed

    async def record_refused(self, purchase: Purchase, problem: Problem) -> Purchase:
        """See the port."""
        async with self._transaction("record") as connection:
            row = await self._advance(
                connection,
                purchase,
                _IN_DOUBT,
                _C.attempt == purchase.attempt,
                state=PurchaseState.REFUSED.value,
                refusal_kind=problem.kind,
                refusal_detail=problem.detail,
                refusal_trace=problem.trace,
                next_look_time=None,
            )
            if row is None:
                return await self._reread(connection, purchase)
            await self._audit(connection, "purchase.refused", row, {"kind": problem.kind, "trace": problem.trace})
            return _purchase(row)

    async def record_not_sent(self, purchase: Purchase) -> Purchase:
        """See the port."""
        return await self._undo(purchase)

    async def record_absent(self, purchase: Purchase, *, sent_before: datetime) -> Purchase:
        """See the port."""
        return await self._undo(purchase, _C.send_deadline < sent_before)

    async def record_doubt(self, purchase: Purchase, *, why: str, look: timedelta) -> Purchase:
        """See the port."""
        async with self._transaction("record") as connection:
            statement = (
                update(PURCHASE)
                .where(_same(purchase), _IN_DOUBT, _C.attempt == purchase.attempt)
                .values(
                    doubt=why,
                    send_deadline=func.least(_C.send_deadline, _NOW),
                    next_look_time=func.least(_C.next_look_time, _NOW + look),
                    update_time=_NOW,
                )
            )
            row = (await connection.execute(statement.returning(*_WHOLE))).one_or_none()
            if row is None:
                return await self._reread(connection, purchase)
            await self._audit(connection, "purchase.in_doubt", row, {"why": why})
            return _purchase(row)

    async def postpone(self, purchase: Purchase, *, look: timedelta) -> None:
        """See the port."""
        async with self._transaction("postpone") as connection:
            await self._advance(
                connection,
                purchase,
                _C.state == purchase.state.value,
                _C.attempt == purchase.attempt,
                looks=purchase.looks + 1,
                next_look_time=_NOW + look,
            )

    async def record_look(self, purchase: Purchase, order: SupplierOrder, *, look: timedelta | None) -> None:
        """See the port."""
        news, changed = is_news(purchase, order), is_change(purchase, order)
        async with self._transaction("look") as connection:
            row = await self._advance(
                connection,
                purchase,
                _C.revision == purchase.revision,
                **_seen(purchase, order),
                revision=purchase.revision + 1,
                looks=0 if changed else purchase.looks + 1,
                next_look_time=None if look is None else _NOW + look,
            )
            if row is not None and news:
                event = order_changed(
                    purchase.intent,
                    order,
                    delivered=delivered_count(purchase, order),
                    revision=row.revision,
                    time=row.now,
                )
                await self._outbox.enqueue(connection, event)

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[Due]:
        """See the port."""
        due = (
            select(_C.external_id)
            .where(_C.next_look_time <= _NOW, _FREE)
            .order_by(_C.next_look_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        async with self._transaction("claim") as connection:
            statement = update(PURCHASE).where(_C.external_id == due.c.external_id).values(lease_end=_NOW + lease)
            rows = (await connection.execute(statement.returning(*_WHOLE))).all()
        return [Due(_purchase(row), row.now) for row in rows]

    async def find(self, external_id: str) -> Purchase | None:
        """See the port."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(*_WHOLE).where(_C.external_id == external_id))).one_or_none()
        return None if row is None else _purchase(row)

    async def load_keys(self, external_id: str, *, request_id: str, digest: bytes) -> SealedSoFar | None:
        """See the port."""
        async with self._transaction("load") as connection:
            noted = insert(REQUEST_LOG).values(request_id=request_id, method=_COLLECTING, digest=digest, response=b"")
            # An update that changes nothing: the only way to get the row back whether or not it was there.
            same = noted.on_conflict_do_update(
                index_elements=["request_id"], set_={"request_id": noted.excluded.request_id}
            )
            if (await connection.execute(same.returning(REQUEST_LOG.c.digest))).scalar_one() != digest:
                raise _reused(request_id)
            row = (await connection.execute(select(*_WHOLE).where(_C.external_id == external_id))).one_or_none()
            if row is None:
                return None
            return SealedSoFar(_purchase(row), await self._keys(connection, external_id))

    async def record_keys(
        self, purchase: Purchase, order: SupplierOrder, new: Sequence[KeyRef], *, finished: bool
    ) -> SealedSoFar:
        """See the port."""
        external_id = purchase.intent.external_id
        async with self._transaction("keys") as connection:
            if new:
                rows = [
                    {
                        "external_id": external_id,
                        "supplier_key_id": key.supplier_key_id,
                        "key_id": key.key_id,
                        "content_type": key.content_type,
                        "held": key.held,
                    }
                    for key in new
                ]
                await connection.execute(insert(SEALED_KEY).on_conflict_do_nothing(), rows)
            values = {**_seen(purchase, order), **({"next_look_time": None} if finished else {})}
            statement = update(PURCHASE).where(_same(purchase)).values(update_time=_NOW, **values)
            row = (await connection.execute(statement.returning(*_WHOLE))).one()
            return SealedSoFar(_purchase(row), await self._keys(connection, external_id))

    @asynccontextmanager
    async def _transaction(self, step: str) -> AsyncIterator[AsyncConnection]:
        async with self._database.transaction() as connection:
            yield connection
            await failpoint(f"kinguin_gateway.before_{step}_commit")
        await failpoint(f"kinguin_gateway.after_{step}_commit")

    async def _lock(self, connection: AsyncConnection, intent: Intent, request_id: str) -> Row[Any]:
        statement = select(*_WHOLE).where(_C.external_id == intent.external_id).with_for_update(of=PURCHASE)
        row = (await connection.execute(statement)).one_or_none()
        if row is None:
            # The insert met a conflict, and not on the external id: the request id began another purchase.
            raise _reused(request_id)
        if _purchase(row).intent != intent:
            raise ExternalIdConflict(
                "the external id stands for another purchase", metadata={"external_id": intent.external_id}
            )
        return row

    async def _advance(
        self, connection: AsyncConnection, purchase: Purchase, *conditions: ColumnElement[bool], **values: Any
    ) -> Row[Any] | None:
        statement = (
            update(PURCHASE)
            .where(_same(purchase), *conditions)
            .values(**{"lease_end": None, "update_time": _NOW, **values})
        )
        return (await connection.execute(statement.returning(*_WHOLE))).one_or_none()

    async def _undo(self, purchase: Purchase, *conditions: ColumnElement[bool]) -> Purchase:
        async with self._transaction("record") as connection:
            row = await self._advance(
                connection,
                purchase,
                _IN_DOUBT,
                _C.attempt == purchase.attempt,
                *conditions,
                state=PurchaseState.INTENDED.value,
                doubt="",
                next_look_time=None,
            )
            return await self._reread(connection, purchase) if row is None else _purchase(row)

    async def _reread(self, connection: AsyncConnection, purchase: Purchase) -> Purchase:
        return _purchase((await connection.execute(select(*_WHOLE).where(_same(purchase)))).one())

    async def _keys(self, connection: AsyncConnection, external_id: str) -> list[KeyRef]:
        statement = select(SEALED_KEY).where(SEALED_KEY.c.external_id == external_id).order_by(SEALED_KEY.c.position)
        rows = (await connection.execute(statement)).all()
        return [KeyRef(row.supplier_key_id, row.key_id, row.content_type, held=row.held) for row in rows]

    async def _audit(self, connection: AsyncConnection, action: str, row: Row[Any], details: Mapping[str, str]) -> None:
        event = purchase_audited(
            action,
            _purchase(row).intent,
            request_id=row.request_id,
            attempt=row.attempt,
            details=details,
            time=row.now,
        )
        await self._outbox.enqueue(connection, event)


async def hurry_look(connection: AsyncConnection, *, supplier_order_id: str, external_id: str) -> bool:
    """Make the next look at a purchase due now, in the caller's transaction; False when none of ours is meant."""
    named = []
    if supplier_order_id:
        named.append(_C.supplier_order_id == supplier_order_id)
    if external_id:
        named.append(_C.external_id == external_id)
    if not named:
        return False
    statement = (
        update(PURCHASE)
        .where(or_(*named), _C.state.in_([PurchaseState.PLACED.value, PurchaseState.IN_DOUBT.value]))
        .values(next_look_time=_NOW)
    )
    return (await connection.execute(statement.returning(_C.external_id))).first() is not None


def _same(purchase: Purchase) -> ColumnElement[bool]:
    return _C.external_id == purchase.intent.external_id


def _columns(intent: Intent) -> dict[str, Any]:
    return {name: getattr(intent, name) for name in Intent.__dataclass_fields__}


def _seen(purchase: Purchase, order: SupplierOrder) -> dict[str, Any]:
    values: dict[str, Any] = {
        "supplier_order_state": order.state.value,
        "delivered_count": delivered_count(purchase, order),
    }
    if order.product_name:
        values["product_name"] = order.product_name
    if order.charged_cents is not None:
        values["charged_cents"] = order.charged_cents
    return values


def _reused(request_id: str) -> RequestIdReused:
    return RequestIdReused(
        "request_id: was used with another body; use a new id for a new request", metadata={"request_id": request_id}
    )


def _begun(row: Row[Any], *, opened: bool = False, claimed: bool = False) -> Begun:
    return Begun(_purchase(row), opened=opened, claimed=claimed, time=row.now)


def _purchase(row: Row[Any]) -> Purchase:
    return Purchase(
        intent=Intent(**{name: getattr(row, name) for name in Intent.__dataclass_fields__}),
        state=PurchaseState(row.state),
        attempt=row.attempt,
        send_deadline=row.send_deadline,
        create_time=row.create_time,
        supplier_order_id=row.supplier_order_id or "",
        supplier_order_state=SupplierOrderState(row.supplier_order_state) if row.supplier_order_state else None,
        delivered_count=row.delivered_count,
        sealed_count=row.sealed_count,
        product_name=row.product_name,
        charged_cents=row.charged_cents,
        refusal=Problem(row.refusal_kind, row.refusal_detail, row.refusal_trace),
        looks=row.looks,
        revision=row.revision,
    )
