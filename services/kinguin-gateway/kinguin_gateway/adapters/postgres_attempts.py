"""Attempts to buy in PostgreSQL: who may send, who has to wait, and what is never sent."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import refusal_audited, withdrawal_audited
from kinguin_gateway.adapters.purchase_rows import (
    NOW,
    WHOLE,
    PurchaseRows,
    purchase_of,
    refusal_columns,
    request_id_reused,
    same_purchase,
    untaken_columns,
)
from kinguin_gateway.adapters.switch_rows import Standing, pause_for, read_standing
from kinguin_gateway.adapters.tables import PURCHASE
from kinguin_gateway.domain.guard import Step, next_step
from kinguin_gateway.domain.purchase import Intent, Problem, Purchase, PurchaseState
from kinguin_gateway.domain.switching import PauseCause, must_wait
from kinguin_gateway.errors import ExternalIdConflict
from kinguin_gateway.ports.purchases import Begun

_C = PURCHASE.c
_IN_LINE: Mapping[str, Any] = {"state": PurchaseState.INTENDED.value, "park_time": NOW}


class PostgresAttempts(PurchaseRows):
    """The half of `kinguin_gateway.ports.purchases.Attempts` that is asked before anything is sent."""

    async def stand(self, intent: Intent, *, request_id: str, window: timedelta) -> Purchase | None:
        """See the port."""
        async with self.transaction("stand") as connection:
            row = (await connection.execute(select(*WHOLE).where(_C.external_id == intent.external_id))).one_or_none()
            if row is not None and row.state != PurchaseState.INTENDED.value:
                return purchase_of(_same_intent(row, intent))
            standing = await read_standing(connection, self._outbox, window=window)
            if standing.forgot and row is None:
                # It may have been sent before; `begin` finds out, whether or not anything new is sent now.
                return None
            is_parked = row is not None and row.park_time is not None
            if not must_wait(
                cause=standing.cause, is_new=row is None, is_parked=is_parked, others_wait=standing.others_wait
            ):
                return None if row is None else purchase_of(_same_intent(row, intent))
            return await self._park(connection, intent, request_id)

    async def park(
        self, intent: Intent, *, request_id: str, cause: PauseCause, reason: str, window: timedelta
    ) -> Purchase:
        """See the port."""
        async with self.transaction("park") as connection:
            standing = await read_standing(connection, self._outbox, window=window)
            await pause_for(connection, self._outbox, cause=cause, reason=reason)
            if standing.forgot:
                doubt = {"state": PurchaseState.IN_DOUBT.value, "next_look_time": NOW}
                await self._insert(connection, intent, request_id, deadline=standing.forgotten_deadline, **doubt)
                present = await self._lock(connection, intent, request_id)
                if present.state == PurchaseState.IN_DOUBT.value:
                    return purchase_of(present)
            return await self._park(connection, intent, request_id)

    async def _park(self, connection: AsyncConnection, intent: Intent, request_id: str) -> Purchase:
        await self._insert(connection, intent, request_id, deadline=NOW, **_IN_LINE)
        present = await self._lock(connection, intent, request_id)
        if present.state != PurchaseState.INTENDED.value or present.park_time is not None:
            return purchase_of(present)
        statement = update(PURCHASE).where(_C.external_id == intent.external_id).values(park_time=NOW, update_time=NOW)
        return purchase_of((await connection.execute(statement.returning(*WHOLE))).one())

    async def refuse(self, intent: Intent, *, request_id: str, problem: Problem, window: timedelta) -> Purchase | None:
        """See the port."""
        refusal = refusal_columns(problem)
        async with self.transaction("refuse") as connection:
            standing = await read_standing(connection, self._outbox, window=window)
            if not standing.forgot:
                await self._insert(connection, intent, request_id, deadline=NOW, **refusal)
            known = select(_C.external_id).where(_C.external_id == intent.external_id)
            if standing.forgot and (await connection.execute(known)).first() is None:
                return None
            present = await self._lock(connection, intent, request_id)
            if present.state == PurchaseState.INTENDED.value:
                statement = update(PURCHASE).where(_C.external_id == intent.external_id)
                statement = statement.values(update_time=NOW, **refusal)
                present = (await connection.execute(statement.returning(*WHOLE))).one()
            if present.state == PurchaseState.REFUSED.value and present.withdraw_time is None:
                event = refusal_audited(purchase_of(present), request_id=present.request_id, time=present.update_time)
                await self._outbox.enqueue(connection, event)
            return purchase_of(present)

    async def begin(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        """See the port."""
        async with self.transaction("open") as connection:
            standing = await read_standing(connection, self._outbox, window=window)
            row = await self._begin_new(connection, intent, request_id, standing, window=window, lease=lease)
            if row is not None:
                return _begun(row, opened=not standing.forgot, claimed=standing.forgot)
            present = await self._lock(connection, intent, request_id)
            purchase = purchase_of(present)
            step = next_step(purchase.state, withdrawn=purchase.withdrawn)
            if step is Step.SEND:
                if must_wait(
                    cause=standing.cause, is_new=False, is_parked=purchase.parked, others_wait=standing.others_wait
                ):
                    parked = await self._park(connection, intent, request_id)
                    return Begun(parked, opened=False, claimed=False, time=present.now)
                # The compare-and-set on the attempt's number is what lets one replica open it, whatever locks do.
                statement = (
                    update(PURCHASE)
                    .where(same_purchase(purchase), _C.attempt == purchase.attempt)
                    .where(_C.state == PurchaseState.INTENDED.value)
                    .values(attempt=purchase.attempt + 1, looks=0, doubt="", update_time=NOW)
                    .values(send_deadline=NOW + window, **_leased(lease))
                )
                row = (await connection.execute(statement.returning(*WHOLE))).one()
                return _begun(row, opened=True)
            if step is Step.SETTLE and _is_free(present):
                await connection.execute(update(PURCHASE).where(same_purchase(purchase)).values(lease_end=NOW + lease))
                return _begun(present, claimed=True)
            return _begun(present)

    async def withdraw(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        """See the port."""
        async with self.transaction("withdraw") as connection:
            standing = await read_standing(connection, self._outbox, window=window)
            values = _leased(lease) if standing.forgot else untaken_columns(withdrawn=True)
            deadline = standing.forgotten_deadline if standing.forgot else NOW
            row = await self._insert(connection, intent, request_id, deadline=deadline, withdraw_time=NOW, **values)
            claimed, refused = standing.forgot, not standing.forgot
            if row is None:
                row = present = await self._lock(connection, intent, request_id)
                step = next_step(PurchaseState(present.state), withdrawn=True)
                claimed, refused = step is Step.SETTLE and _is_free(present), step is Step.REFUSE
                if step is not Step.ANSWER:
                    row = await self._write_wish(connection, present, claimed=claimed, refused=refused, lease=lease)
            if refused:
                event = withdrawal_audited(purchase_of(row), request_id=request_id, time=row.now)
                await self._outbox.enqueue(connection, event)
            return _begun(row, claimed=claimed)

    async def _write_wish(
        self, connection: AsyncConnection, present: Row[Any], *, claimed: bool, refused: bool, lease: timedelta
    ) -> Row[Any]:
        values: dict[str, Any] = {"withdraw_time": func.coalesce(_C.withdraw_time, NOW)}
        if claimed:
            values["lease_end"] = NOW + lease
        if refused:
            values |= {"update_time": NOW, **untaken_columns(withdrawn=True)}
        statement = update(PURCHASE).where(_C.external_id == present.external_id).values(**values)
        return (await connection.execute(statement.returning(*WHOLE))).one()

    async def _begin_new(
        self,
        connection: AsyncConnection,
        intent: Intent,
        request_id: str,
        standing: Standing,
        *,
        window: timedelta,
        lease: timedelta,
    ) -> Row[Any] | None:
        """Insert the purchase if it is new to us: opened, or in doubt where the database forgot something lately."""
        wait = must_wait(cause=standing.cause, is_new=True, is_parked=False, others_wait=standing.others_wait)
        if wait and not standing.forgot:
            # Only what is new joins the line here; what is there already has its own place, or its turn.
            await self._insert(connection, intent, request_id, deadline=NOW, **_IN_LINE)
            return None
        deadline = standing.forgotten_deadline if standing.forgot else NOW + window
        return await self._insert(connection, intent, request_id, deadline=deadline, **_leased(lease))

    async def _insert(
        self,
        connection: AsyncConnection,
        intent: Intent,
        request_id: str,
        *,
        deadline: ColumnElement[datetime] | datetime,
        **values: Any,
    ) -> Row[Any] | None:
        """Insert a purchase that this database has never sent; None where it is there already."""
        whole = {"request_id": request_id, "attempt": 1, "send_deadline": deadline, **_columns(intent), **values}
        statement = insert(PURCHASE).values(**whole).on_conflict_do_nothing().returning(*WHOLE)
        return (await connection.execute(statement)).one_or_none()

    async def _lock(self, connection: AsyncConnection, intent: Intent, request_id: str) -> Row[Any]:
        statement = select(*WHOLE).where(_C.external_id == intent.external_id).with_for_update(of=PURCHASE)
        row = (await connection.execute(statement)).one_or_none()
        if row is None:
            # The insert met a conflict, and not on the external id: the request id began another purchase.
            raise request_id_reused(request_id)
        return _same_intent(row, intent)


def _same_intent(row: Row[Any], intent: Intent) -> Row[Any]:
    if purchase_of(row).intent != intent:
        raise ExternalIdConflict(
            "the external id stands for another purchase", metadata={"external_id": intent.external_id}
        )
    return row


def _leased(lease: timedelta) -> dict[str, Any]:
    """Return the columns of a doubt that is its caller's to settle."""
    return {"state": PurchaseState.IN_DOUBT.value, "lease_end": NOW + lease, "next_look_time": NOW + lease}


def _is_free(row: Row[Any]) -> bool:
    return row.lease_end is None or row.lease_end < row.now


def _columns(intent: Intent) -> dict[str, Any]:
    return {name: getattr(intent, name) for name in Intent.__dataclass_fields__}


def _begun(row: Row[Any], *, opened: bool = False, claimed: bool = False) -> Begun:
    return Begun(purchase_of(row), opened=opened, claimed=claimed, time=row.now)
