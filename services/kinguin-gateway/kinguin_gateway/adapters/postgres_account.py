"""Our account at the supplier in PostgreSQL: readings of its balance, and top-ups."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from chassis.database import Database
from chassis.outbox import Outbox
from chassis.request_log import earlier_answer, keep_answer
from keyferry.kinguin.v1.kinguin_service_pb2 import RecordTopUpResponse
from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from kinguin_gateway.adapters.announcements import account_audited
from kinguin_gateway.adapters.purchase_rows import NOW
from kinguin_gateway.adapters.tables import BALANCE_READING, PURCHASE, TOP_UP
from kinguin_gateway.domain.account import Reading, TopUp
from kinguin_gateway.domain.purchase import PurchaseState
from kinguin_gateway.ports.account import TopUpFilter, TopUpOrder

_B, _T = BALANCE_READING.c, TOP_UP.c
_WEEK = timedelta(days=7)
# What is read every few minutes is worth keeping for as long as somebody may ask where the money went.
_KEPT = timedelta(days=400)
_DAY_SECONDS = 86_400


class PostgresAccount:
    """Implements `kinguin_gateway.ports.account.Account`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def record_reading(self, balance_cents: int) -> Reading:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.balance") as connection:
            time = (await connection.execute(select(NOW.label("now")))).one().now
            values = {"read_time": time, "balance_cents": balance_cents}
            await connection.execute(insert(BALANCE_READING).values(**values).on_conflict_do_nothing())
            await connection.execute(delete(BALANCE_READING).where(_B.read_time < NOW - _KEPT))
        return Reading(balance_cents, time)

    async def last_reading(self) -> Reading | None:
        """See the port."""
        statement = select(BALANCE_READING).order_by(_B.read_time.desc()).limit(1)
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else Reading(row.balance_cents, row.read_time)

    async def daily_cents(self) -> int | None:
        """See the port."""
        age = func.extract("epoch", NOW - func.min(PURCHASE.c.create_time)) / _DAY_SECONDS
        daily_charge = func.sum(PURCHASE.c.charged_cents) / func.greatest(1, age)
        statement = select(daily_charge.label("daily")).where(
            PURCHASE.c.create_time > NOW - _WEEK, PURCHASE.c.state == PurchaseState.PLACED.value
        )
        async with self._database.transaction() as connection:
            daily = (await connection.execute(statement)).one().daily
        return None if daily is None else round(daily)

    async def record_top_up(self, order: TopUpOrder) -> str:
        """See the port."""
        request_id, digest, top_up = order.request_id, order.digest, order.top_up
        async with self._database.transaction("kinguin_gateway.top_up") as connection:
            known = await earlier_answer(
                connection, request_id=request_id, digest=digest, response_class=RecordTopUpResponse
            )
            if known is not None:
                return known.top_up_id
            answer = RecordTopUpResponse(top_up_id=str(uuid.uuid4()))
            values = {
                "top_up_id": uuid.UUID(answer.top_up_id),
                "amount_cents": top_up.amount_cents,
                "top_up_time": top_up.top_up_time,
                "reference": top_up.reference,
            }
            time = (await connection.execute(insert(TOP_UP).values(**values).returning(NOW))).scalar_one()
            event = account_audited(
                "account.topped_up",
                key=request_id,
                actor=order.actor,
                request_id=request_id,
                details={"amount_cents": str(top_up.amount_cents), "reference": top_up.reference},
                time=time,
            )
            await self._outbox.enqueue(connection, event)
            await keep_answer(connection, request_id=request_id, digest=digest, response=answer)
        return answer.top_up_id

    async def top_ups(self, wanted: TopUpFilter, *, size: int, after: tuple[datetime, str] | None) -> Sequence[TopUp]:
        """See the port."""
        statement = select(TOP_UP).order_by(_T.top_up_time, _T.top_up_id).limit(size)
        if wanted.end_time is not None:
            statement = statement.where(_T.top_up_time < wanted.end_time)
        # One lower bound, as in a listing of purchases.
        if after is not None and (wanted.start_time is None or after[0] >= wanted.start_time):
            statement = statement.where(tuple_(_T.top_up_time, _T.top_up_id) > (after[0], uuid.UUID(after[1])))
        elif wanted.start_time is not None:
            statement = statement.where(_T.top_up_time >= wanted.start_time)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(statement)).all()
        return [TopUp(row.amount_cents, row.top_up_time, row.reference, str(row.top_up_id)) for row in rows]
