"""Reports of reconciliation in fulfillment's database: asked for, leased to one run at a time, finished, read."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

from chassis.clock import Clock
from chassis.database import Database
from chassis.outbox import Outbox
from chassis.request_log import earlier_answer, keep_answer
from google.protobuf.message import Message
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.account import PostgresAccount, statement_of
from fulfillment.adapters.postgres import PostgresOrderTransaction
from fulfillment.adapters.stages import difference_of
from fulfillment.domain.reconciliation import LONGEST_RANGE, Kind, Limits, Range, Statement
from fulfillment.facts import SERVICE, timestamp
from fulfillment.ports.reconciliation import Difference, Report, ReportState, Run

R = TypeVar("R", bound=Message)

FIRST_SPAN = timedelta(hours=1)
"""What the first report of the schedule covers."""

_ASK = text("""
    INSERT INTO reconciliation (report_id, start_time, end_time, scheduled, state, create_time, run_at)
    VALUES (:report_id, :start, :end, :scheduled, 'RUNNING', :now, :now)
    ON CONFLICT (start_time, end_time) WHERE state = 'RUNNING' DO NOTHING
""")
_RUNNING = text("""
    SELECT * FROM reconciliation WHERE start_time = :start AND end_time = :end AND state = 'RUNNING'
""")
# One at a time, on all replicas together: a report is work for the other services too, and the account is one.
_CLAIM = text("""
    UPDATE reconciliation SET run_id = nextval('reconciliation_run'), run_at = :until, tries = tries + 1
    WHERE report_id = (
        SELECT report_id FROM reconciliation WHERE state = 'RUNNING' AND run_at <= :now ORDER BY create_time LIMIT 1
    ) AND NOT EXISTS (
        SELECT FROM reconciliation WHERE state = 'RUNNING' AND run_id IS NOT NULL AND run_at > :now
    ) RETURNING *
""")
_FINISH = text("""
    UPDATE reconciliation SET state = 'DONE', finish_time = :now, counts = CAST(:counts AS jsonb), failure = '',
        differences = (
            SELECT coalesce(jsonb_object_agg(kind, n), '{}') FROM (
                SELECT kind, count(*) AS n FROM reconciliation_difference WHERE run_id = :run GROUP BY kind
            ) told
        ),
        mended_count = (SELECT count(*) FROM reconciliation_difference WHERE run_id = :run AND mended)
    WHERE report_id = :report_id RETURNING *
""")
_UNEXPLAINED = text("""
    INSERT INTO reconciliation_difference
        (run_id, kind, subject, order_id, external_id, supplier_order_id, key_id, payment_id, expected, found)
    VALUES (:run, 'BALANCE_UNEXPLAINED', 'balance', '', '', '', '', '', :expected, :found) ON CONFLICT DO NOTHING
""")
_COUNTS = {
    "payments": "SELECT count(*) FROM payment WHERE create_time >= :begin AND create_time < :end",
    "fulfillments": "SELECT count(*) FROM customer_order WHERE create_time >= :begin AND create_time < :end",
    "purchases": "SELECT count(*) FROM purchase WHERE place_time >= :begin AND place_time < :end",
    "supplier_orders": """
        SELECT count(*) FROM stage_supplier_order WHERE run_id = :run AND create_time >= :begin AND create_time < :end
    """,
    "keys": "SELECT count(*) FROM stage_key WHERE run_id = :run AND seal_time >= :begin AND seal_time < :end",
}


class ReportTransaction:
    """One transaction in which a report is asked for."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def ask(self, span: Range, *, report_id: str, now: datetime) -> Report:
        """Ask for a report, or find the one of the same range that runs."""
        return report_of(await _ask(self._connection, span, report_id=report_id, scheduled=False, now=now))

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        """Return the answer that this request got before."""
        return await earlier_answer(
            self._connection, request_id=request_id, digest=digest, response_class=response_class
        )

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        """Keep the answer for a repeat of this request."""
        await keep_answer(self._connection, request_id=request_id, digest=digest, response=response)


class PostgresReports(PostgresAccount):
    """Reports and their runs."""

    def __init__(self, database: Database, outbox: Outbox, *, clock: Clock, limits: Limits) -> None:
        super().__init__(database, clock=clock, limits=limits)
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[ReportTransaction]:
        """Run a block in one transaction."""
        async with self._database.transaction("fulfillment.report.ask") as connection:
            yield ReportTransaction(connection)

    async def claim(self, *, now: datetime, lease: timedelta) -> Run | None:
        """Lease the report that is due, as a new run of it."""
        async with self._database.transaction("fulfillment.report.claim") as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('reconciliation', 3))"))
            row = (await connection.execute(_CLAIM, {"now": now, "until": now + lease})).one_or_none()
            if row is None:
                return None
            await connection.execute(text("INSERT INTO stage_run VALUES (:run)"), {"run": row.run_id})
            return Run(row.report_id, row.run_id, Range(row.start_time, row.end_time), row.scheduled, row.tries)

    async def plan(self, *, now: datetime, every: timedelta, overlap: timedelta, grace: timedelta) -> bool:
        """Ask for the next report of the schedule, from where the one before ended, if it is due."""
        async with self._database.transaction("fulfillment.report.plan") as connection:
            row = (
                await connection.execute(
                    text("""
                        SELECT next_time <= :now AS due, done_time FROM reconciliation_schedule
                        WHERE NOT EXISTS (SELECT FROM reconciliation WHERE state = 'RUNNING' AND scheduled)
                        FOR UPDATE SKIP LOCKED
                    """),
                    {"now": now},
                )
            ).one_or_none()
            if row is None or not row.due:
                return False
            start = row.done_time - overlap if row.done_time else now - grace - FIRST_SPAN
            span = Range(start, min(now - grace, start + LONGEST_RANGE))
            if span.start < span.end:
                await _ask(connection, span, report_id=str(uuid.uuid4()), scheduled=True, now=now)
            await connection.execute(
                text("UPDATE reconciliation_schedule SET next_time = :next"), {"next": now + every}
            )
            return True

    async def finish(self, run: Run, *, counts: Mapping[str, int], balance: Statement | None, now: datetime) -> Report:
        """Finish a report and tell audit, in one transaction."""
        async with self.holding(run, "finish") as connection:
            if balance is not None and balance.unexplained:
                values = {"run": run.run_id, "expected": str(balance.books), "found": f"{balance.unexplained:+d}"}
                await connection.execute(_UNEXPLAINED, values)
            values = {"run": run.run_id, "report_id": run.report_id, "now": now, "counts": json.dumps(dict(counts))}
            report = report_of((await connection.execute(_FINISH, values)).one())
            if run.scheduled:
                await connection.execute(
                    text("UPDATE reconciliation_schedule SET done_time = greatest(done_time, :end)"),
                    {"end": run.span.end},
                )
            message = AuditRecorded(
                actor=actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=SERVICE),
                action="reconciliation.finished",
                details={
                    "report_id": report.report_id,
                    "start_time": report.span.start.isoformat(),
                    "end_time": report.span.end.isoformat(),
                    "differences": str(sum(report.differences.values())),
                    "mended": str(report.mended_count),
                    "unexplained_cents": "" if balance is None else str(balance.unexplained),
                },
                occur_time=timestamp(now),
            )
            identity = ["reconciliation.finished", report.report_id]
            transaction = PostgresOrderTransaction(connection, self._outbox)
            await transaction.tell("audit.recorded", message, about=report.report_id, now=now, identity=identity)
            return report

    async def count(self, run: Run) -> Mapping[str, int]:
        """Count what was compared, a day at a time."""
        counts = dict.fromkeys(_COUNTS, 0)
        begin = run.span.start
        while begin < run.span.end:
            end = min(begin + timedelta(days=1), run.span.end)
            async with self.holding(run, "count") as connection:
                for name, statement in _COUNTS.items():
                    values: dict[str, object] = {"begin": begin, "end": end}
                    if ":run" in statement:
                        values["run"] = run.run_id
                    counts[name] += (await connection.execute(text(statement), values)).scalar_one()
            begin = end
        return counts

    async def put_back(self, run: Run, failure: str, *, run_at: datetime | None, now: datetime) -> None:
        """Let a report be tried again, or give it up. What another run holds stays as it is."""
        statement = text("""
            UPDATE reconciliation SET run_id = NULL, failure = :failure, run_at = coalesce(:run_at, run_at),
                state = CASE WHEN :given_up THEN 'FAILED' ELSE state END,
                finish_time = CASE WHEN :given_up THEN CAST(:now AS timestamptz) END
            WHERE report_id = :report_id AND run_id = :run AND state = 'RUNNING'
        """)
        values = {"report_id": run.report_id, "run": run.run_id, "failure": failure, "run_at": run_at, "now": now}
        async with self._database.transaction("fulfillment.report.put_back") as connection:
            await connection.execute(statement, {**values, "given_up": run_at is None})

    async def get(self, report_id: str) -> Report | None:
        """Return one report."""
        statement = text("SELECT * FROM reconciliation WHERE report_id = :report_id")
        return await self._one(statement.bindparams(report_id=report_id))

    async def newest(self) -> Report | None:
        """Return the report that was finished last."""
        return await self._one(
            text("SELECT * FROM reconciliation WHERE state = 'DONE' ORDER BY create_time DESC, report_id DESC LIMIT 1")
        )

    async def page(self, *, size: int, after: tuple[datetime, str] | None) -> Sequence[Report]:
        """Return reports, newest first."""
        place = "" if after is None else "WHERE (create_time, report_id) < (:time, :report_id)"
        statement = text(f"SELECT * FROM reconciliation {place} ORDER BY create_time DESC, report_id DESC LIMIT :size")  # noqa: S608 # constants
        values = {"size": size} | ({} if after is None else {"time": after[0], "report_id": after[1]})
        async with self._database.transaction() as connection:
            return [report_of(row) for row in await connection.execute(statement, values)]

    async def differences(self, run_id: int, *, kind: Kind | None, after: int, limit: int) -> Sequence[Difference]:
        """Return differences in the order in which they were found."""
        of_kind = "" if kind is None else "AND kind = :kind"
        statement = text(f"""
            SELECT position, kind, order_id, external_id, supplier_order_id, key_id, payment_id, expected, found, mended
            FROM reconciliation_difference WHERE run_id = :run AND position > :after {of_kind}
            ORDER BY position LIMIT :limit
        """)  # noqa: S608 # constants
        values = {"run": run_id, "after": after, "limit": limit} | ({} if kind is None else {"kind": kind.value})
        async with self._database.transaction() as connection:
            return [difference_of(row) for row in await connection.execute(statement, values)]

    async def _one(self, statement: Any) -> Report | None:
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
            return None if row is None else report_of(row)


async def _ask(connection: AsyncConnection, span: Range, *, report_id: str, scheduled: bool, now: datetime) -> Row[Any]:
    values = {"start": span.start, "end": span.end}
    await connection.execute(_ASK, {**values, "report_id": report_id, "scheduled": scheduled, "now": now})
    return (await connection.execute(_RUNNING, values)).one()


def report_of(row: Row[Any]) -> Report:
    """Read a report."""
    return Report(
        report_id=row.report_id,
        span=Range(row.start_time, row.end_time),
        state=ReportState(row.state),
        create_time=row.create_time,
        finish_time=row.finish_time,
        counts=row.counts,
        differences=row.differences,
        mended_count=row.mended_count,
        balance=None if row.balance is None else statement_of(row.balance),
        failure=row.failure,
        run_id=row.run_id,
    )
