"""The account at the supplier in our books: every cent that went in or out, once, and what the balance says to it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.compared import THEIR_ORDERS
from fulfillment.adapters.stages import PLAN, PostgresStage, boundary, slice_end
from fulfillment.domain.reconciliation import Charge, Range, Statement, close_account
from fulfillment.ports.reconciliation import Books, Run, TheirBalance, TheirTopUp

# The supplier pays back within days; who waits for longer is told by RETURN_NOT_PAID_BACK.
LONGEST_WATCH = timedelta(days=60)
# Beyond it a told change of state was seen by an earlier report.
LOOK_BACK = timedelta(days=1)

_SUMS = text("""
    SELECT coalesce(sum(coalesce(s.charged, 0) - coalesce(a.charged, 0)), 0),
           coalesce(sum(s.refunded - coalesce(a.refunded, 0)), 0)
    FROM stage_supplier_order s LEFT JOIN account_order a ON a.supplier_order_id = s.supplier_order_id
    WHERE s.run_id = :run AND s.create_time >= :begin AND s.create_time < :end
      AND (a.supplier_order_id IS NOT NULL OR (s.create_time >= :open AND s.create_time < :sure))
""")
_UNSURE = text("""
    SELECT s.supplier_order_id, s.create_time, coalesce(s.charged, 0) - s.refunded AS minor
    FROM stage_supplier_order s
    WHERE s.run_id = :run AND s.create_time >= :sure
      AND NOT EXISTS (SELECT FROM account_order a WHERE a.supplier_order_id = s.supplier_order_id)
    ORDER BY s.create_time, s.supplier_order_id
""")
_ENTER = text("""
    INSERT INTO account_order (supplier_order_id, external_id, charged, refunded, create_time)
    SELECT s.supplier_order_id, s.external_id, coalesce(s.charged, 0), s.refunded, s.create_time
    FROM stage_supplier_order s
    WHERE s.run_id = :run AND s.create_time >= :begin AND s.create_time < :end
      AND s.supplier_order_id <> ALL(CAST(:left_out AS text[]))
      AND (s.create_time >= :open OR EXISTS (
          SELECT FROM account_order a WHERE a.supplier_order_id = s.supplier_order_id
      ))
    ON CONFLICT (supplier_order_id) DO UPDATE SET
        charged = excluded.charged, refunded = excluded.refunded,
        watched = account_order.watched AND excluded.refunded < excluded.charged
""")
_WATCH_MOVED = text("""
    UPDATE account_order a SET watched = true FROM purchase u
    WHERE u.state_time >= :since AND a.external_id = u.external_id AND NOT a.watched AND a.refunded < a.charged
      AND (u.state IN ('REVOKING', 'RETURNING', 'SHREDDING', 'CANCELED', 'PARTLY_CANCELED', 'REFUNDED')
           OR u.canceled_quantity > 0 OR u.reason IN ('KEYS_MISSING', 'RETURN_REFUSED'))
""")
_WATCH_TOLD = text("""
    UPDATE account_order a SET watched = true
    WHERE NOT a.watched AND a.refunded < a.charged AND a.supplier_order_id IN (
        SELECT w.supplier_order_id FROM stage_surplus w WHERE w.run_id = :run
        UNION SELECT t.supplier_order_id FROM stage_purchase t WHERE t.run_id = :run
          AND (t.return_state <> '' OR t.supplier_state IN ('CANCELED', 'REFUNDED'))
    )
""")


class PostgresAccount(PostgresStage):
    """The books, in the same database as what explains them."""

    async def books(self) -> Books | None:
        """Return the books."""
        async with self._database.transaction() as connection:
            return await _books(connection)

    async def watch(self, run: Run, *, now: datetime) -> None:
        """Begin to watch what money may come back of, and cease where nothing came for too long."""
        async with self.holding(run, "watch") as connection:
            books = await _books(connection)
            if books is None:
                return
            await connection.execute(_WATCH_MOVED, {"since": books.close_time - LOOK_BACK})
            await connection.execute(_WATCH_TOLD, {"run": run.run_id})
            await connection.execute(
                text("UPDATE account_order SET watched = false WHERE watched AND create_time < :since"),
                {"since": now - LONGEST_WATCH},
            )

    async def watched(self, *, after: str, limit: int) -> Sequence[str]:
        """Return what is watched."""
        statement = text("""
            SELECT supplier_order_id FROM account_order WHERE watched AND supplier_order_id > :after
            ORDER BY supplier_order_id LIMIT :limit
        """)
        async with self._database.transaction() as connection:
            return list((await connection.execute(statement, {"after": after, "limit": limit})).scalars())

    async def close(self, run: Run, told: TheirBalance, top_ups: Sequence[TheirTopUp]) -> Statement:
        """Explain the balance; a run that takes over from one that did finds it done."""
        async with self.holding(run, "close") as connection:
            done = (
                await connection.execute(
                    text("SELECT balance FROM reconciliation WHERE report_id = :report_id"),
                    {"report_id": run.report_id},
                )
            ).scalar_one()
            if done is not None:
                return statement_of(done)
            for plan in PLAN:
                await connection.execute(plan)
            statement = await self._explain(connection, run, told, top_ups)
            await connection.execute(
                text("UPDATE reconciliation SET balance = CAST(:balance AS jsonb) WHERE report_id = :report_id"),
                {"balance": json.dumps(asdict(statement)), "report_id": run.report_id},
            )
            return statement

    async def _explain(
        self, connection: AsyncConnection, run: Run, told: TheirBalance, top_ups: Sequence[TheirTopUp]
    ) -> Statement:
        books = await _books(connection)
        sure = told.read_time - self._limits.skew
        # The first report takes everything before it for told: the books begin with the balance as it is.
        opened = books.open_time if books else told.read_time
        slices = await self._slices(connection, run)
        charges = refunds = 0
        for each in slices if books else ():
            values = {"run": run.run_id, "begin": each.start, "end": each.end, "open": opened, "sure": sure}
            charged, refunded = (await connection.execute(_SUMS, values)).one()
            charges, refunds = charges + int(charged), refunds + int(refunded)
        unsure = [
            Charge(row.supplier_order_id, row.create_time, int(row.minor))
            for row in await connection.execute(_UNSURE, {"run": run.run_id, "sure": sure})
            if books is not None or row.create_time >= told.read_time
        ]
        near = [charge for charge in unsure if charge.create_time < told.read_time + self._limits.skew]
        statement = close_account(
            opening=books.minor_units if books else None,
            top_ups=await _enter_top_ups(connection, top_ups, told, count=books is not None),
            charges=charges,
            refunds=refunds,
            unsure=near,
            told=told.minor_units,
            at=told.read_time,
        )
        later = [charge.supplier_order_id for charge in unsure if charge not in near]
        begin = opened if books else datetime.min.replace(tzinfo=opened.tzinfo)
        for each in slices:
            values = {"run": run.run_id, "begin": each.start, "end": each.end, "open": begin}
            await connection.execute(_ENTER, {**values, "left_out": [*statement.left_out, *later]})
        await connection.execute(
            text("""
                INSERT INTO supplier_account (minor, open_time, close_time) VALUES (:minor, :now, :now)
                ON CONFLICT (only_one) DO UPDATE SET minor = excluded.minor, close_time = excluded.close_time
            """),
            {"minor": statement.books, "now": told.read_time},
        )
        return statement

    async def _slices(self, connection: AsyncConnection, run: Run) -> Sequence[Range]:
        edges = (
            await connection.execute(
                text("SELECT min(create_time), max(create_time) FROM stage_supplier_order WHERE run_id = :run"),
                {"run": run.run_id},
            )
        ).one()
        found: list[Range] = []
        if edges[0] is None:
            return found
        begin, end = edges[0], edges[1] + timedelta(microseconds=1)
        while begin < end:
            values = {"run": run.run_id, "begin": begin, "end": end}
            place = (await connection.execute(boundary(THEIR_ORDERS), values)).scalar_one_or_none()
            found.append(Range(begin, slice_end(Range(begin, end), place)))
            begin = found[-1].end
        return found


async def _books(connection: AsyncConnection) -> Books | None:
    row = (
        await connection.execute(text("SELECT minor, open_time, close_time FROM supplier_account FOR UPDATE"))
    ).one_or_none()
    return None if row is None else Books(row.minor, row.open_time, row.close_time)


async def _enter_top_ups(
    connection: AsyncConnection, top_ups: Sequence[TheirTopUp], told: TheirBalance, *, count: bool
) -> int:
    """Enter top-ups, each once, and return what the new ones come to."""
    statement = text("""
        INSERT INTO account_top_up (top_up_id, minor, top_up_time) VALUES (:top_up_id, :minor, :top_up_time)
        ON CONFLICT DO NOTHING RETURNING minor
    """)
    total = 0
    for each in top_ups:
        if each.top_up_time > told.read_time:
            continue
        values = {"top_up_id": each.top_up_id, "minor": each.minor_units, "top_up_time": each.top_up_time}
        total += (await connection.execute(statement, values)).scalar_one_or_none() or 0
    return total if count else 0


def statement_of(kept: Mapping[str, Any]) -> Statement:
    """Read a statement as it was kept."""
    return Statement(**{**kept, "left_out": tuple(kept["left_out"])})
