"""The switch of buying in PostgreSQL, and the line of parked purchases."""

from chassis.database import Database
from chassis.outbox import Outbox
from chassis.request_log import earlier_answer, keep_answer
from google.protobuf.empty_pb2 import Empty
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import account_audited, purchase_released
from kinguin_gateway.adapters.purchase_rows import NOW, WHOLE, purchase_of
from kinguin_gateway.adapters.switch_rows import PARKED
from kinguin_gateway.adapters.tables import BUYING, PURCHASE
from kinguin_gateway.domain.purchase import PurchaseState
from kinguin_gateway.domain.switching import RESERVED, BuyingStatus, PauseCause
from kinguin_gateway.ports.switch import SwitchOrder

_C = PURCHASE.c
# Any number that nothing else in this database locks.
_RELEASE_LOCK = text("SELECT pg_try_advisory_xact_lock(5470113)")
_COST = _C.quantity * _C.max_unit_cents


class PostgresSwitch:
    """Implements `kinguin_gateway.ports.switch.Switch`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def status(self) -> BuyingStatus:
        """See the port."""
        async with self._database.transaction() as connection:
            return await _status(connection)

    async def pause(self, order: SwitchOrder) -> BuyingStatus:
        """See the port."""
        return await self._turn(order, "buying.paused", PauseCause.OPERATOR)

    async def resume(self, order: SwitchOrder) -> BuyingStatus:
        """See the port."""
        return await self._turn(order, "buying.resumed", PauseCause.NONE)

    async def _turn(self, order: SwitchOrder, action: str, cause: PauseCause) -> BuyingStatus:
        request_id, digest = order.request_id, order.digest
        async with self._database.transaction("kinguin_gateway.switch") as connection:
            known = await earlier_answer(connection, request_id=request_id, digest=digest, response_class=Empty)
            if known is None:
                reason = "" if cause is PauseCause.NONE else order.reason
                statement = update(BUYING).values(cause=cause.value, reason=reason, change_time=NOW)
                time = (await connection.execute(statement.returning(NOW))).scalar_one()
                details = {"reason": order.reason}
                event = account_audited(
                    action, key=request_id, actor=order.actor, request_id=request_id, details=details, time=time
                )
                await self._outbox.enqueue(connection, event)
                await keep_answer(connection, request_id=request_id, digest=digest, response=Empty())
            # A repeat is told how things stand now.
            return await _status(connection)

    async def release(self, limit: int, *, balance_cents: int | None) -> int:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.release") as connection:
            if not (await connection.execute(_RELEASE_LOCK)).scalar_one():
                return 0
            cause = PauseCause((await connection.execute(select(BUYING.c.cause).with_for_update())).scalar_one())
            if cause is PauseCause.OPERATOR:
                return 0
            released = await self._release(connection, limit, balance_cents)
            await self._resume_if_nobody_waits(connection, cause)
            return released

    async def _release(self, connection: AsyncConnection, limit: int, balance_cents: int | None) -> int:
        line = (
            select(_C.external_id, func.sum(_COST).over(order_by=(_C.create_time, _C.external_id)).label("cost"))
            .where(PARKED)
            .order_by(_C.create_time, _C.external_id)
            .limit(limit)
            .cte("line")
        )
        turn = select(line.c.external_id)
        if balance_cents is not None:
            unsettled = _C.state.in_([PurchaseState.INTENDED.value, PurchaseState.IN_DOUBT.value])
            pending = select(func.coalesce(func.sum(_COST), 0)).where(
                unsettled, ~PARKED, _C.update_time > NOW - RESERVED
            )
            spent = (await connection.execute(pending)).scalar_one()
            turn = turn.where(line.c.cost <= balance_cents - spent)
        # PARKED again, because one of the line may have been refused since it was read.
        statement = update(PURCHASE).where(_C.external_id.in_(turn), PARKED).values(park_time=None, update_time=NOW)
        rows = (await connection.execute(statement.returning(*WHOLE))).all()
        # The relay publishes in the order of the rows, so that they are asked for again in the order of the line.
        in_order = sorted(rows, key=lambda row: (row.create_time, row.external_id))
        events = [purchase_released(purchase_of(row).intent, time=row.now) for row in in_order]
        await self._outbox.enqueue(connection, *events)
        return len(rows)

    async def _resume_if_nobody_waits(self, connection: AsyncConnection, cause: PauseCause) -> None:
        if cause is PauseCause.NONE:
            return
        waiting = (await connection.execute(select(_C.external_id).where(PARKED).limit(1))).first()
        if waiting is not None and cause is PauseCause.INSUFFICIENT_BALANCE:
            return
        statement = update(BUYING).values(cause=PauseCause.NONE.value, reason="", change_time=NOW).returning(NOW)
        time = (await connection.execute(statement)).scalar_one()
        event = account_audited(
            "buying.resumed",
            key=time.isoformat(),
            actor=None,
            request_id="",
            details={"cause": cause.value},
            time=time,
        )
        await self._outbox.enqueue(connection, event)


async def _status(connection: AsyncConnection) -> BuyingStatus:
    parked = select(func.count()).select_from(PURCHASE).where(PARKED).scalar_subquery()
    oldest = select(func.min(_C.create_time)).where(PARKED).scalar_subquery()
    statement = select(*BUYING.c, parked.label("parked"), oldest.label("oldest"), NOW.label("now"))
    row = (await connection.execute(statement)).one()
    caution_end = row.caution_end if row.caution_end > row.now else None
    return BuyingStatus(PauseCause(row.cause), row.reason, row.change_time, row.parked, caution_end, row.oldest)
