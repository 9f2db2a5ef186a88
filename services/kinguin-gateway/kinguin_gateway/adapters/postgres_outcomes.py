"""What attempts to buy came to, in PostgreSQL. Written only onto the attempt it is about, while that is in doubt."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import order_changed, purchase_audited, withdrawal_audited
from kinguin_gateway.adapters.purchase_rows import (
    NOW,
    WHOLE,
    PurchaseRows,
    purchase_of,
    refusal_columns,
    same_purchase,
    seen_columns,
    untaken_columns,
)
from kinguin_gateway.adapters.surplus_rows import write_surplus
from kinguin_gateway.adapters.switch_rows import ANYBODY_WAITS, pause_for
from kinguin_gateway.adapters.tables import PURCHASE
from kinguin_gateway.domain.purchase import Problem, Purchase, PurchaseState, SupplierOrder
from kinguin_gateway.domain.switching import PauseCause

_C = PURCHASE.c
_IN_DOUBT = _C.state == PurchaseState.IN_DOUBT.value


class PostgresOutcomes(PurchaseRows):
    """The half of `kinguin_gateway.ports.purchases.Attempts` that is written after a reply."""

    async def record_taken(
        self,
        purchase: Purchase,
        order: SupplierOrder,
        *,
        adopted: bool,
        look: timedelta,
        verify: timedelta | None = None,
        surplus: Sequence[SupplierOrder] = (),
    ) -> Purchase:
        """See the port."""
        details = {
            "supplier_order_id": order.supplier_order_id,
            "adopted": "true" if adopted else "",
            "charged_cents": "" if order.charged_cents is None else str(order.charged_cents),
        }
        async with self.transaction("record") as connection:
            row = await self.advance(
                connection,
                purchase,
                # A clear yes is true whatever became of the row meanwhile, unless it has an order already.
                _C.state.in_([PurchaseState.IN_DOUBT.value, PurchaseState.INTENDED.value]),
                state=PurchaseState.PLACED.value,
                supplier_order_id=order.supplier_order_id,
                doubt="",
                looks=0,
                park_time=None,
                verify_time=None if verify is None else func.greatest(_C.send_deadline, NOW) + verify,
                # A webhook that came before this answer asked for an earlier look.
                next_look_time=func.least(_C.next_look_time, NOW + look),
                **seen_columns(purchase, order),
            )
            if row is None:
                return await self.reread(connection, purchase)
            await write_surplus(connection, self._outbox, row, surplus)
            placed = purchase_of(row)
            await self._audit(connection, "purchase.placed", row, details)
            if adopted:
                delivered = placed.delivered_count
                event = order_changed(purchase.intent, order, delivered=delivered, revision=0, time=row.now)
                await self._outbox.enqueue(connection, event)
            return placed

    async def record_refused(self, purchase: Purchase, problem: Problem) -> Purchase:
        """See the port."""
        async with self.transaction("record") as connection:
            row = await self.advance(
                connection,
                purchase,
                _IN_DOUBT,
                _C.attempt == purchase.attempt,
                **refusal_columns(problem),
            )
            if row is None:
                return await self.reread(connection, purchase)
            await self._audit(connection, "purchase.refused", row, {"kind": problem.kind, "trace": problem.trace})
            return purchase_of(row)

    async def record_parked(self, purchase: Purchase, *, cause: PauseCause, reason: str) -> Purchase:
        """See the port."""
        async with self.transaction("record") as connection:
            await pause_for(connection, self._outbox, cause=cause, reason=reason)
            row = await self._undo(connection, purchase, park_time=NOW)
            if row is None:
                return await self.reread(connection, purchase)
            if row.park_time is not None:
                await self._audit(connection, "purchase.parked", row, {"cause": cause.value})
            return purchase_of(row)

    async def record_not_sent(self, purchase: Purchase) -> Purchase:
        """See the port."""
        async with self.transaction("record") as connection:
            row = await self._undo(connection, purchase)
            return await self.reread(connection, purchase) if row is None else purchase_of(row)

    async def record_absent(self, purchase: Purchase, *, sent_before: datetime) -> Purchase:
        """See the port."""
        # Nobody knows when its turn was. Where others wait it stands among them, at the place of its first asking.
        async with self.transaction("record") as connection:
            in_time, place = _C.send_deadline < sent_before, case((ANYBODY_WAITS, NOW))
            row = await self._undo(connection, purchase, in_time, park_time=place)
            return await self.reread(connection, purchase) if row is None else purchase_of(row)

    async def record_doubt(self, purchase: Purchase, *, why: str, look: timedelta) -> Purchase:
        """See the port."""
        async with self.transaction("record") as connection:
            statement = (
                update(PURCHASE)
                .where(same_purchase(purchase), _IN_DOUBT, _C.attempt == purchase.attempt)
                .values(
                    doubt=why,
                    send_deadline=func.least(_C.send_deadline, NOW),
                    next_look_time=func.least(_C.next_look_time, NOW + look),
                    update_time=NOW,
                )
            )
            row = (await connection.execute(statement.returning(*WHOLE))).one_or_none()
            if row is None:
                return await self.reread(connection, purchase)
            await self._audit(connection, "purchase.in_doubt", row, {"why": why})
            return purchase_of(row)

    async def _undo(
        self, connection: AsyncConnection, purchase: Purchase, *conditions: ColumnElement[bool], **values: Any
    ) -> Row[Any] | None:
        """Write that certainly nothing was taken; None where the attempt is another, or a condition does not hold.

        The row is locked first: whether it was withdrawn decides, and it may be at this moment.
        """
        wish = select(_C.withdraw_time).where(same_purchase(purchase)).with_for_update()
        withdrawn = (await connection.execute(wish)).scalar_one_or_none() is not None
        values = {**values, **untaken_columns(withdrawn=withdrawn)}
        row = await self.advance(connection, purchase, _IN_DOUBT, _C.attempt == purchase.attempt, *conditions, **values)
        if row is not None and row.state == PurchaseState.REFUSED.value:
            event = withdrawal_audited(purchase_of(row), request_id=row.request_id, time=row.now)
            await self._outbox.enqueue(connection, event)
        return row

    async def _audit(self, connection: AsyncConnection, action: str, row: Row[Any], details: Mapping[str, str]) -> None:
        event = purchase_audited(
            action,
            purchase_of(row).intent,
            request_id=row.request_id,
            attempt=row.attempt,
            details=details,
            time=row.now,
        )
        await self._outbox.enqueue(connection, event)
