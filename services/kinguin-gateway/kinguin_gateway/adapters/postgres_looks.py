"""When purchases are looked at in PostgreSQL, and what was seen."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import order_changed
from kinguin_gateway.adapters.purchase_rows import (
    FREE,
    NOW,
    WHOLE,
    PurchaseRows,
    purchase_of,
    same_purchase,
    seen_columns,
    write_key_states,
)
from kinguin_gateway.adapters.surplus_rows import write_surplus
from kinguin_gateway.adapters.tables import PURCHASE
from kinguin_gateway.domain.looking import delivered_count, is_change, is_news
from kinguin_gateway.domain.purchase import Purchase, PurchaseState, SupplierOrder
from kinguin_gateway.ports.purchases import Due

_C = PURCHASE.c


class PostgresLooks(PurchaseRows):
    """Implements `kinguin_gateway.ports.purchases.Looks`."""

    async def postpone(self, purchase: Purchase, *, look: timedelta) -> None:
        """See the port."""
        async with self.transaction("postpone") as connection:
            await self.advance(
                connection,
                purchase,
                _C.state == purchase.state.value,
                _C.attempt == purchase.attempt,
                looks=purchase.looks + 1,
                next_look_time=NOW + look,
            )

    async def record_look(self, purchase: Purchase, order: SupplierOrder, *, look: timedelta | None) -> None:
        """See the port."""
        news, changed = is_news(purchase, order), is_change(purchase, order)
        async with self.transaction("look") as connection:
            row = await self.advance(
                connection,
                purchase,
                _C.revision == purchase.revision,
                **seen_columns(purchase, order),
                revision=purchase.revision + 1,
                looks=0 if changed else purchase.looks + 1,
                next_look_time=None if look is None else NOW + look,
            )
            if row is not None:
                await write_key_states(connection, purchase, order)
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
            .where(_C.next_look_time <= NOW, FREE)
            .order_by(_C.next_look_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        async with self.transaction("claim") as connection:
            statement = update(PURCHASE).where(_C.external_id == due.c.external_id).values(lease_end=NOW + lease)
            rows = (await connection.execute(statement.returning(*WHOLE))).all()
        return [Due(purchase_of(row), row.now) for row in rows]

    async def claim_to_verify(self, limit: int, *, lease: timedelta) -> Sequence[Due]:
        """See the port."""
        due = (
            select(_C.external_id)
            .where(_C.verify_time <= NOW)
            .order_by(_C.verify_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        async with self.transaction("claim") as connection:
            # The next time to verify is the lease: it is what happens if nobody writes that it was done.
            statement = update(PURCHASE).where(_C.external_id == due.c.external_id).values(verify_time=NOW + lease)
            rows = (await connection.execute(statement.returning(*WHOLE))).all()
        return [Due(purchase_of(row), row.now) for row in rows]

    async def record_verified(
        self, purchase: Purchase, surplus: Sequence[SupplierOrder], *, again: timedelta | None
    ) -> None:
        """See the port."""
        async with self.transaction("verify") as connection:
            verify_time = None if again is None else func.greatest(_C.verify_time, NOW + again)
            statement = update(PURCHASE).where(same_purchase(purchase)).values(verify_time=verify_time)
            row = (await connection.execute(statement.returning(*WHOLE))).one()
            await write_surplus(connection, self._outbox, row, surplus)


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
        .values(next_look_time=NOW)
    )
    return (await connection.execute(statement.returning(_C.external_id))).first() is not None
